"""The thesis's diagonal recursion for the Hessian of weights and of switches (Yang 2019, 4-7 to 4-14), for fidelity.

Notation, for one image
    h_i, h_j   the diagonal of the loss's Hessian with regard to what a layer reads and writes
    g          the gradient of the loss with regard to what an activation writes
    a          what a layer reads
    linear:       H_W = h_j a^2,   h_i = (W^2)^T h_j                                             (4-7 to 4-9)
    convolution:  the same at every place, summed over places
    element-wise: h_i = sigma'(z)^2 h_j + sigma''(z) g                                            (4-10)
    pooling, sums, BatchNorm with fixed statistics: the square of each coefficient
    switch:       o_j = w z, a weight that all of z shares: H_w = sum h_j z^2,   h_z = w^2 h_j

It is exact for the last linear layer and for chains of width one; in between it leaves out what couples the numbers of a layer, and of what
a switch multiplies. A switch that is read at several places has the sum of what they give.
DEVIATION: the mean of (4-13) over places is a sum, as the loss has it; what comes out negative is set to zero (`gamma < C` has no square root).

The gradient is sent back only as far as an activation with a second derivative asks for it: networks of ReLUs have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch.nn.functional import one_hot

from raysearch.errors import ConfigError
from raysearch.models.calls import UNARY
from trainables.bayesnas.coefficients import derivatives, mean_coefficient, pull, slope_of
from trainables.bayesnas.compression.curvature import (
    Measurable,
    conv_gradients,
    measurable,
    normalised,
)

Leaf = TypeVar("Leaf")

Output = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(logits [B, K], labels [B]) -> the diagonal of the Hessian, and the gradient, of each image's loss, both [B, K]."""

Signals = tuple[torch.Tensor, torch.Tensor | None]
"""h and g of what a node writes; no g where nothing before it asks for one."""

_ELEMENTWISE = frozenset(UNARY) - {"add", "sub", "rsub", "mul", "div"}
_STRAIGHT = frozenset(
    {"relu", "relu6", "hardtanh", "leaky_relu", "threshold", "abs", "neg"}
    | {"clamp", "clamp_min", "clamp_max"}
)
"""Those of them without a second derivative."""
_MEANS = ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean")
_CHOICES = (
    "max_pool1d", "max_pool2d", "adaptive_max_pool2d", "flatten", "dropout", "cat", "permute", "reshape",
    "getitem", "contiguous", "narrow", "index_select", "pad", "feature_dropout", "add", "sum", "identity",
)  # fmt: skip


def cross_entropy_output(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """p (1 - p) and p - y of softmax cross-entropy."""
    chances = logits.softmax(dim=1)
    return chances * (1 - chances), chances - one_hot(labels, logits.shape[1])


@torch.no_grad()
def recursive_diagonal(
    module: fx.GraphModule,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    output: Output = cross_entropy_output,
) -> dict[str, torch.Tensor]:
    """The recursion's diagonal for the weight of every measurable layer, a mean over images.

    Args:
        module: what `raysearch.models.build` makes; it is run in evaluation mode.
        batches: (images [B, C, H, W], labels [B]).
        output: where the recursion starts.

    Raises:
        ConfigError: the network has an operation that the recursion does not know.
    """
    layers = measurable(module)
    totals = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    backward = _Backward(module, totals)
    was_training = module.training
    module.eval()
    seen = 0
    for images, labels in batches:
        seen += len(images)
        backward.run((images,), labels, output)
    module.train(was_training)
    return {name: (total / max(1, seen)).clamp_(min=0) for name, total in totals.items()}


@torch.no_grad()
def recursive_factors_diagonal(
    module: fx.GraphModule,
    images: torch.Tensor,
    factors: torch.Tensor,
    labels: torch.Tensor,
    *,
    output: Output = cross_entropy_output,
) -> torch.Tensor:
    """The recursion's diagonal for numbers that outputs of layers are multiplied by, a mean over images: [F].

    Args:
        module: reads images and factors, in this order; every product in it is one of a tensor and a single factor. It must be in
            evaluation mode.
        images: [B, C, H, W].
        factors: [F].
        labels: [B].
        output: where the recursion starts.

    Raises:
        ConfigError: the network has an operation that the recursion does not know.
    """
    _, source = (node for node in module.graph.nodes if node.op == "placeholder")
    total = torch.zeros_like(factors)
    _Backward(module, {}, source, total).run((images, factors), labels, output)
    return (total / len(images)).clamp_(min=0)


class _Recorder(fx.Interpreter):
    """Runs a network and keeps what each node got."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.got: dict[fx.Node, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.got[n] = self.fetch_args_kwargs_from_env(n)
        return super().run_node(n)


class _Backward:
    """The way back through a network.

    Attributes:
        totals: layer -> what its weight's curvature is added to.
        source, factors: the input that holds factors, and what their curvature is added to.
        signals: what has been sent to each node and is not sent on yet.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        totals: Mapping[str, torch.Tensor],
        source: fx.Node | None = None,
        factors: torch.Tensor | None = None,
    ) -> None:
        self.module = module
        self.totals = totals
        self.source, self.factors = source, factors
        self.signals: dict[fx.Node, Signals] = {}
        self.wanted: set[fx.Node] = set()
        """Nodes with something before them, or in them, whose curvature is asked for."""
        self.curved: set[fx.Node] = set()
        """Nodes with a second derivative before them or in them."""
        self.calls: dict[fx.Node, tuple[str, Callable[..., Any]]] = {}
        for node in module.graph.nodes:
            measured = node.op == "call_module" and node.target in totals
            if node is source or measured or self.wanted.intersection(node.all_input_nodes):
                self.wanted.add(node)
            if node.op.startswith("call_"):
                self.calls[node] = self.function(node)
                bends = self.calls[node][0] in _ELEMENTWISE - _STRAIGHT
                if bends or self.curved.intersection(node.all_input_nodes):
                    self.curved.add(node)

    def run(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, output: Output) -> None:
        recorder = _Recorder(self.module)
        logits = recorder.run(*inputs)
        for node in reversed(list(self.module.graph.nodes)):
            if node.op == "output":
                self.send(node.args[0], *output(logits, labels))
            elif node.op.startswith("call_") and node in self.signals:
                self.step(node, *recorder.got[node])

    def send(self, node: Any, curvature: torch.Tensor, gradient: torch.Tensor | None) -> None:
        if node not in self.wanted:
            return
        if node not in self.curved:
            gradient = None
        earlier = self.signals.get(node)
        if earlier is not None:
            curvature = earlier[0] + curvature
            if gradient is not None:
                assert earlier[1] is not None
                gradient = earlier[1] + gradient
        self.signals[node] = curvature, gradient

    def function(self, node: fx.Node) -> tuple[str, Callable[..., Any]]:
        """What a node computes, and its name as ATen has it."""
        if node.op == "call_module":
            function: Callable[..., Any] = self.module.get_submodule(str(node.target))
            name = type(function).__name__.lower()
        else:
            function = (
                getattr(torch.Tensor, str(node.target)) if node.op == "call_method" else node.target  # pyright: ignore[reportAssignmentType]
            )
            name = function.__name__.rstrip("_")
        for short, long in _SPELLINGS:
            name = name.replace(short, long)
        return name, function

    def step(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        signals = self.signals.pop(node)
        name, function = self.calls[node]
        if isinstance(function, Measurable):
            self.layer(node, function, args[0], signals)
        elif self.source in node.all_input_nodes:
            assert self.factors is not None
            assert name == "getitem", "factors are read one by one"
            self.factors[args[1]] += signals[0]
        elif name == "mul" and _is_switching(args):
            self.switch(node, args, signals)
        else:
            self.through(node, name, function, args, kwargs, signals)

    def layer(self, node: fx.Node, layer: Measurable, read: torch.Tensor, signals: Signals) -> None:
        """A layer with weights."""
        curvature, gradient = signals
        if node.target in self.totals:
            self.weigh(str(node.target), layer, read, curvature)
        source = node.args[0]
        if source in self.wanted:
            back = pull(layer, read, curvature, squared=True)
            if gradient is not None and source in self.curved:
                gradient = pull(layer, read, gradient)
            self.send(source, back, gradient)

    def switch(self, node: fx.Node, args: tuple[Any, ...], signals: Signals) -> None:
        """A product with a single number."""
        curvature, gradient = signals
        places = (0, 1) if args[1].ndim == 0 else (1, 0)
        z, w = (args[place] for place in places)
        read, by = (node.args[place] for place in places)
        down = None if gradient is None else gradient * w
        self.send(read, curvature * w.square(), down)
        if by in self.wanted:
            total = (curvature * z.square()).sum()
            self.send(by, total, None if gradient is None else (gradient * z).sum())

    def through(
        self,
        node: fx.Node,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        signals: Signals,
    ) -> None:
        """An operation without weights."""
        curvature, gradient = signals
        tensors = list(_leaves(args, torch.Tensor))
        nodes = list(_leaves(node.args, fx.Node))
        if name == "add" and any(not isinstance(arg, torch.Tensor) for arg in args[:2]):
            name = "neg"  # a constant is added: element-wise
        if name in _ELEMENTWISE and len(tensors) == 1:
            self.bend(
                nodes[0], name, lambda x: function(x, *args[1:], **kwargs), tensors[0], signals
            )
            return
        if name not in _CHOICES and name not in _MEANS:
            raise ConfigError(
                f"search.options.hessian is 'recursive', but the recursion does not know {name!r} ({node.name}): use 'ggn'"
            )
        if name == "add" and not kwargs and tensors[0].shape == tensors[1].shape:
            for source in nodes:
                self.send(source, curvature, gradient)
            return

        def of(*values: torch.Tensor) -> torch.Tensor:
            return function(*_with(args, values), **kwargs)

        back_through = torch.func.vjp(of, *tensors)[1]
        if name in _MEANS:
            curvature = curvature * mean_coefficient(name, function, args, kwargs, curvature)
        backs = back_through(curvature)
        downs = [None] * len(nodes) if gradient is None else back_through(gradient)
        for source, back, down in zip(nodes, backs, downs, strict=True):
            self.send(source, back, down)

    def bend(
        self,
        source: fx.Node,
        name: str,
        function: Callable[[torch.Tensor], torch.Tensor],
        read: torch.Tensor,
        signals: Signals,
    ) -> None:
        """An element-wise function."""
        curvature, gradient = signals
        if name == "relu":
            slope = read.gt(0).to(read)
            back = slope * curvature
        elif name in _STRAIGHT:
            slope = slope_of(function, read)
            back = slope.square() * curvature
        else:
            assert gradient is not None
            slope, second = derivatives(function, read)
            back = slope.square() * curvature + second * gradient
        self.send(source, back, None if gradient is None else slope * gradient)

    def weigh(
        self, name: str, layer: Measurable, read: torch.Tensor, curvature: torch.Tensor
    ) -> None:
        total = self.totals[name]
        if isinstance(layer, nn.Linear):
            total += torch.einsum("...o,...i->oi", curvature, read.square())
        elif isinstance(layer, nn.Conv1d | nn.Conv2d):
            total += conv_gradients(layer, read.square(), curvature).sum(0).view_as(total)
        else:
            found = curvature * normalised(layer, read).square()
            total += (found.flatten(2).sum(2) if found.ndim > 2 else found).sum(0)


_SPELLINGS = (
    ("maxpool", "max_pool"),
    ("avgpool", "avg_pool"),
    ("adaptivemax", "adaptive_max"),
    ("adaptiveavg", "adaptive_avg"),
    ("logsigmoid", "log_sigmoid"),
    ("boundfunction", ""),
)


def _is_switching(args: tuple[Any, ...]) -> bool:
    """Whether one of two factors is a single number."""
    return all(isinstance(arg, torch.Tensor) for arg in args[:2]) and 0 in (
        args[0].ndim,
        args[1].ndim,
    )


def _leaves(values: Any, kind: type[Leaf]) -> Iterable[Leaf]:
    """What is of a kind among nested arguments, in their order."""
    for value in values:
        if isinstance(value, kind):
            yield value
        elif isinstance(value, list | tuple):
            yield from _leaves(value, kind)


def _with(values: Any, tensors: Iterable[torch.Tensor]) -> tuple[Any, ...]:
    """The arguments with other tensors in the places of theirs."""
    given = iter(tensors)

    def put(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return next(given)
        if isinstance(value, list | tuple):
            return type(value)(put(one) for one in value)
        return value

    return tuple(put(value) for value in values)
