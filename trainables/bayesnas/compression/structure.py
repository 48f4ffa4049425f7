"""What is left of a network: living groups of weights, kept channels, kept inputs, and the masks that say so to a module.

A channel is lost when the group of the filters that create it is dead, or when every layer that reads it has lost it. Of each channel group of the
space as many are kept as its grid of widths allows, the best of the lost ones come back for that, and never fewer than its smallest width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from raysearch.architecture import Edits, SearchSpace
from raysearch.models.keep import best_of_blocks
from trainables.bayesnas.compression.groups import NO_GROUP, Groups
from trainables.bayesnas.compression.places import Filters, Places


@dataclass(frozen=True, eq=False)
class Structure:
    """A state of the pruning.

    Attributes:
        living: [G] bool.
        kept: [channels] bool.
        inputs: layer -> [in] bool, the inputs that are read, for layers that read only some of those that there are.
    """

    living: np.ndarray
    kept: np.ndarray
    inputs: Mapping[str, np.ndarray]


class Builder:
    """Makes structures, students' edits and masks of living groups.

    Args:
        space: gives the legal widths.
        places: of the teacher.
        groups: of its weights.
    """

    def __init__(self, space: SearchSpace, places: Places, groups: Groups) -> None:
        self.space = space
        self.places = places
        self.groups = groups
        self._shrinks = "shrink" in space.operations
        self._of_layer = {one.layer.name: one for one in places.filters}
        frozen = [np.full(v.size, bool(v.frozen)) for v in places.analysis.variables]
        self._frozen = np.concatenate(frozen)

    def whole(self) -> Structure:
        """Nothing is pruned."""
        living = np.ones(self.groups.count, bool)
        return Structure(living, np.ones(self.places.num_channels, bool), {})

    def settle(self, living: np.ndarray, worth: np.ndarray) -> Structure:
        """The structure that a choice of living groups leaves.

        Args:
            living: [G] bool.
            worth: [G] which groups come back first where a legal width needs them; finite.
        """
        living = living.copy()
        kept = self._kept(~self.lost(living), self._channel_worth(worth))
        self._obey(living, kept)
        inputs: dict[str, np.ndarray] = {}
        for name, read in self._reads(living, worth).items():
            columns = self._of_layer[name].columns
            assert columns is not None
            there = kept[columns]
            if self._gathers(name) and not read[there].all():
                some = self._some(name, read & there, there, living, worth)
                if (some < there).any():
                    inputs[name] = some
        return Structure(living, kept, inputs)

    def lost(self, living: np.ndarray) -> np.ndarray:
        """[channels] whether a channel is lost by itself, whatever widths are legal."""
        made_by = self.groups.filter_group
        lost = (made_by != NO_GROUP) & ~living[made_by]
        gone = {name: ~read for name, read in self._all_reads(living).items()}
        for number, readers in enumerate(self.places.readers):
            if not readers or any(name not in gone for name in readers):
                continue
            own = self.places.of(number)
            unread = np.ones(own.stop - own.start, bool)
            for name in readers:
                columns = self._of_layer[name].columns
                assert columns is not None
                mine = (columns >= own.start) & (columns < own.stop)
                still = np.zeros(len(unread), bool)
                np.logical_or.at(still, columns[mine] - own.start, ~gone[name][mine])
                unread &= ~still
            lost[own] |= unread
        return lost & ~self._frozen

    def edits(self, structure: Structure) -> Edits:
        """The student of a structure."""
        widths = [group.size for group in self.space.groups]
        for number, group in enumerate(self.space.group_of):
            if group >= 0:
                widths[group] = int(structure.kept[self.places.of(number)].sum())
        index = self.places.architecture.index
        inputs = []
        for name, read in structure.inputs.items():
            columns = self._of_layer[name].columns
            assert columns is not None
            present = read[structure.kept[columns]]  # of the student's own inputs
            inputs.append((index[name], tuple(np.flatnonzero(present).tolist())))
        if not inputs:
            return Edits(widths=tuple(widths))
        return Edits(widths=tuple(widths), inputs=tuple(sorted(inputs)))

    def masks(
        self, structure: Structure, state: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What a structure leaves of each parameter: name -> factors of 0 and 1 that broadcast against it.

        Args:
            state: the parameters by name, for their shapes.
        """
        living = torch.from_numpy(structure.living).float()
        kept = torch.from_numpy(structure.kept).float()
        masks: dict[str, torch.Tensor] = {}

        def add(key: str, factor: torch.Tensor) -> None:
            masks[key] = masks[key] * factor if key in masks else factor

        for member in self.groups.members:
            add(member.key, member.spread(living))
        for key, axis, channels in self.places.along:
            if key in state:
                shape = [1] * state[key].ndim
                shape[axis] = -1
                add(key, kept[channels].reshape(shape))
        for filters in self.places.filters:
            key = filters.layer.params.get("weight", f"{filters.layer.name}.weight")
            rank = len(filters.layer.param_shapes["weight"])
            add(key, kept[filters.rows].reshape(-1, *[1] * (rank - 1)))
            if filters.columns is not None:
                read = kept[filters.columns]
                if (some := structure.inputs.get(filters.layer.name)) is not None:
                    read = read * torch.from_numpy(some)
                add(key, read.reshape(1, -1, *[1] * (rank - 2)))
        return masks

    def scores(self, structure: Structure, worth: np.ndarray) -> list[np.ndarray]:
        """For each channel variable [size] which channels a student keeps first: those of the structure, by their worth."""
        own = self._channel_worth(worth)
        own = own / max(1e-30, float(np.abs(own).max())) + 2.0 * structure.kept
        return [own[self.places.of(v)] for v in range(len(self.places.analysis.variables))]

    def _channel_worth(self, worth: np.ndarray) -> np.ndarray:
        """[channels] the mean worth of the groups that create and read a channel."""
        total = np.zeros(self.places.num_channels)
        count = np.zeros(self.places.num_channels)
        made_by = self.groups.filter_group
        has = made_by != NO_GROUP
        total[has] += worth[made_by[has]]
        count[has] += 1
        for name, kinds in self.groups.reading.items():
            columns = self._of_layer[name].columns
            assert columns is not None
            np.add.at(total, columns, worth[kinds[0]].mean(1))
            np.add.at(count, columns, 1)
        return total / np.maximum(count, 1)

    def _kept(self, alive: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """[channels] the living ones, with as many of the others as legal widths need."""
        kept = np.ones_like(alive)
        rank = worth / max(1e-30, float(np.abs(worth).max())) + 2.0 * alive
        for group in self.space.groups:
            members = [v for v, own in enumerate(self.space.group_of) if own == group.id]
            most = max(int(alive[self.places.of(v)].sum()) for v in members)
            width = -(-most // group.divisor) * group.divisor
            width = min(group.size, max(width, group.min_channels))
            if not self._shrinks:
                width = group.size
            for variable in members:
                own = self.places.of(variable)
                divisor = self.places.analysis.variables[variable].divisor
                blocks = divisor if width % divisor == 0 and group.size % divisor == 0 else 1
                chosen = best_of_blocks(rank[own], width, blocks)
                kept[own] = np.isin(np.arange(group.size), chosen)
        return kept

    def _obey(self, living: np.ndarray, kept: np.ndarray) -> None:
        """Lets the groups of lost channels die, and those of channels that came back live; in place."""
        made_by = self.groups.filter_group
        has = made_by != NO_GROUP
        living[made_by[has]] = kept[has]
        was_lost = self.lost(living) & kept
        for name, kinds in self.groups.reading.items():
            columns = self._of_layer[name].columns
            assert columns is not None
            for ids in kinds:
                living[ids[was_lost[columns]]] = True
                living[ids[~kept[columns]]] = False

    def _reads(self, living: np.ndarray, worth: np.ndarray) -> dict[str, np.ndarray]:
        """Layer -> [in] whether an input is read; never none of them: the best then comes back, in `living` too."""
        found = self._all_reads(living)
        for name, read in found.items():
            if not read.any():
                kinds = self.groups.reading[name]
                best = int(np.argmax(worth[kinds[0]].mean(1)))
                for ids in kinds:
                    living[ids[best]] = True
                read[best] = True
        return found

    def _some(
        self,
        name: str,
        read: np.ndarray,
        there: np.ndarray,
        living: np.ndarray,
        worth: np.ndarray,
    ) -> np.ndarray:
        """What a layer reads of what is there; where that is nothing, the best of it, which then lives."""
        if not read.any():
            kinds = self.groups.reading[name]
            best = int(np.argmax(np.where(there, worth[kinds[0]].mean(1), -np.inf)))
            for ids in kinds:
                living[ids[best]] = True
            read = np.arange(len(read)) == best
        return read

    def _all_reads(self, living: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: np.logical_and.reduce([living[ids].any(1) for ids in kinds])
            for name, kinds in self.groups.reading.items()
        }

    def _gathers(self, name: str) -> bool:
        """Whether a layer may read some of its inputs only: linear layers, and a convolution that reads the network's input."""
        filters: Filters = self._of_layer[name]
        if filters.layer.op == "linear":
            return True
        source = filters.layer.inputs[0]
        architecture = self.places.architecture
        return len(source) == 1 and architecture[source[0]].op == "input"
