"""Removal with refit: any layer that keeps the size of the feature map may go, and its neighbours take the channels that arrive.

Removing a layer makes the channels that it reads and those that it writes one. Where they are not one class already, one side takes the
other's number:

    1. a frozen side gives the number (the network's input and output);
    2. else the side with more producers does (a residual stream);
    3. else the input does, as in N2N.

The action is refused, the layer kept, where a frozen side meets several producers, where the side that must change is not one whole
class of channels, where a grouped convolution does not take the new number, and where it exceeds `MAX_CHANNELS` (in densely
connected networks the numbers may double from layer to layer). Layers go one after the other, in the order of the
network; the student is thus a function of the executed actions alone.

Notation: V channel variables of the network; after some removals a variable's number of channels is a sum of others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from raysearch.architecture.apply import apply_edits
from raysearch.architecture.channels import ChannelAnalysis, analyse
from raysearch.architecture.checks import infer_shapes
from raysearch.architecture.graph import Architecture
from raysearch.architecture.groups import channel_map, group_channels
from raysearch.architecture.refit.rules import Refit, Rules, may_remove
from raysearch.architecture.variables import Blocks
from raysearch.errors import InvalidArchitecture

MAX_CHANNELS = 2**16


def remove_layers(
    network: Architecture, remove: Sequence[bool] | np.ndarray, rules: Rules | None = None
) -> Refit:
    """Removes layers; each becomes an identity of its own name.

    Args:
        network: what is edited.
        remove: [L] which layers to remove.
        rules: what stays on principle.

    Returns:
        The student and which layers were removed: a subset of `remove`.

    Raises:
        InvalidArchitecture: `remove` has another length, or is not boolean; or the channels of this network cannot be followed.
    """
    asked = np.asarray(remove)
    if asked.shape != (len(network.layers),) or asked.dtype != bool:
        raise InvalidArchitecture(
            f"remove has shape {asked.shape} and type {asked.dtype}: give a boolean for each of {len(network.layers)} layers"
        )
    analysis = analyse(network)
    sizes = _Sizes(analysis)
    executed = np.zeros(len(asked), bool)
    for place in np.flatnonzero(asked & may_remove(network, rules or Rules())).tolist():
        into, out = analysis.inputs[place], analysis.outputs[place]
        executed[place] = sizes.join(into, out, network.layers[place].name)
    student = with_sizes(
        network, analysis, dict(enumerate(sizes.now().tolist())), np.flatnonzero(executed).tolist()
    )
    return Refit(network, student, executed)


def with_sizes(
    network: Architecture,
    analysis: ChannelAnalysis,
    sizes: Mapping[int, int],
    remove: Iterable[int] = (),
) -> Architecture:
    """A network with other sizes of some free channel variables and without some layers.

    Raises:
        InvalidArchitecture: what the analysis says of some layer's channels is not what its operation does.
    """
    grouping = group_channels(analysis)
    widths = [group.size for group in grouping.free]
    for variable, size in sizes.items():
        if grouping.group_of[variable] >= 0:
            widths[grouping.group_of[variable]] = size
    channels = channel_map(network, analysis, grouping)
    student = apply_edits(network, channels, frozenset(remove), widths, ())
    if infer_shapes(student) != tuple(layer.shape for layer in student.layers):
        raise InvalidArchitecture("the channels of this network cannot be followed")
    return student


class _Sizes:
    """The numbers of channels between removals.

    Attributes:
        forms: [V, V] int64; variable v has forms[v] @ sizes channels. A variable that took the number of others has no column.
        sizes: [V] int64, the network's own.
        producers: for each variable the layers that still make its channels.
    """

    def __init__(self, analysis: ChannelAnalysis) -> None:
        variables = analysis.variables
        self.forms = np.eye(len(variables), dtype=np.int64)
        self.sizes = np.array([variable.size for variable in variables], np.int64)
        self.divisors = np.array([variable.divisor for variable in variables], np.int64)
        self.frozen = np.array([bool(variable.frozen) for variable in variables])
        self.producers = [set(variable.producers) for variable in variables]

    def now(self) -> np.ndarray:
        """The number of channels of every variable: [V] int64."""
        return self.forms @ self.sizes

    def join(self, into: Blocks, out: Blocks, layer: str) -> bool:
        """Makes what a layer reads and writes one; False, and nothing changed, where that is refused."""
        pairs = [(into, out)]
        if len(into) == len(out) and all(a[1] == b[1] for a, b in zip(into, out, strict=True)):
            pairs = [((a,), (b,)) for a, b in zip(into, out, strict=True)]
        before = self.forms
        taken: list[tuple[int, np.ndarray]] = []
        for left, right in pairs:
            choice = self.choose(self.form(left), self.form(right))
            if choice is None or (choice and not self.substitute(*choice)):
                self.forms = before
                return False
            taken += [choice] if choice else []
        for variable, winner in taken:
            self.hand_over(variable, winner)
        for names in self.producers if taken else ():
            names.discard(layer)
        return True

    def form(self, blocks: Blocks) -> np.ndarray:
        """The number of channels of an axis as a form: [V] int64."""
        total = np.zeros(len(self.sizes), np.int64)
        for variable, multiplicity in blocks:
            total += multiplicity * self.forms[variable]
        return total

    def choose(
        self, into: np.ndarray, out: np.ndarray
    ) -> tuple[int, np.ndarray] | tuple[()] | None:
        """The variable that changes and the form that it takes; () where nothing must, None where that is refused."""
        if np.array_equal(into, out):
            return ()
        frozen = [bool(self.frozen[form > 0].any()) for form in (into, out)]
        count = [self.num_producers(form) for form in (into, out)]
        if any(frozen):
            loses = out if frozen[0] else into
            if all(frozen) or count[1 if frozen[0] else 0] > 1:
                return None
        else:
            loses = into if count[1] > count[0] else out
        wins = into if loses is out else out
        variable = int(loses.argmax())
        alone = loses.sum() == 1 and not wins[variable]
        return (variable, wins) if alone else None

    def num_producers(self, form: np.ndarray) -> int:
        return len(set().union(*(self.producers[v] for v in np.flatnonzero(form))))

    def substitute(self, variable: int, form: np.ndarray) -> bool:
        """Gives a variable the number of others; False where some number would not be legal."""
        forms = self.forms + np.outer(self.forms[:, variable], form)
        forms[:, variable] = 0
        new = forms @ self.sizes  # no more than MAX_CHANNELS times what the network has
        illegal = (new % self.divisors != 0) | (new > MAX_CHANNELS)
        if (illegal & (new != self.now())).any():
            return False
        self.forms = forms
        return True

    def hand_over(self, variable: int, form: np.ndarray) -> None:
        """The producers of a variable now make the channels that it took."""
        for other in np.flatnonzero(form):
            self.producers[other] |= self.producers[variable]
