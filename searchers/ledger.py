"""What an algorithm knows of its students: outstanding ones, outcomes, and which architectures are new."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from searchers.algorithm import Exhausted, Observation, Proposal

if TYPE_CHECKING:
    from raysearch.architecture import Edits, EditsBatch, SearchSpace

STATE_VERSION = 1  # of a ledger, and of an algorithm that has no more than it and a generator
DRAWS = (8, 64, 512, 2048)
"""Batch sizes of the attempts to draw a new architecture; after the last one the space counts as exhausted."""

MEASURED_CANDIDATES = 16
"""With a latency budget: so many candidates are measured in the search of a new one."""

_ID_CACHE_SIZE = 4096


def check_version(state: Mapping[str, Any], version: int) -> None:
    """Refuses a state that another version wrote.

    Raises:
        ValueError: with both versions.
    """
    if state.get("version") != version:
        raise ValueError(f"state has version {state.get('version')}, expected {version}")


def repeat(edits: Edits, size: int) -> EditsBatch:
    """A batch of `size` copies of one architecture's edits."""
    from raysearch.architecture import EditsBatch

    return EditsBatch.from_edits([edits] * size)


def unmeasured(space: SearchSpace) -> dict[str, Any]:
    """Arguments of `sample`, `mutate` and `repair` for candidates of which one is taken: with a latency budget the space's model of
    latency decides about them, and `Ledger.first_new` has the one that is taken measured."""
    return {"measured": False} if "latency_ms" in space.limits else {}


def fresh_draws(
    space: SearchSpace, rng: np.random.Generator
) -> tuple[Callable[[int], EditsBatch], Callable[[int], EditsBatch]]:
    """Generators of new students for `Ledger.draw_new`: samples; then mutated samples, which reach what samples do not (full widths)."""

    options = unmeasured(space)

    def sample(size: int) -> EditsBatch:
        return space.sample(size, rng, **options)

    def mutated(size: int) -> EditsBatch:
        return space.mutate(space.sample(size, rng, **options), rng, **options)

    return sample, mutated


class Identifier:
    """The architecture id of an edits' text; the last few thousand are remembered."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._known: OrderedDict[str, str] = OrderedDict()

    def __call__(self, text: str) -> str:
        """The id.

        Raises:
            InvalidArchitecture: the text is not of this space.
        """
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        if len(self._known) >= _ID_CACHE_SIZE:
            self._known.popitem(last=False)
        self._known[text] = self.space.apply(text).id
        return self._known[text]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": OrderedDict()}  # cheap to fill again, large to pickle


class Ledger:
    """The books of one search, keyed by architecture id, so that two texts of one network count once.

    Attributes:
        space: the search space.
        pending: id -> text of the proposals without an outcome, oldest first.
        told: id -> outcome, in the order of first telling. A full outcome replaces any other of the same architecture.
        identify: text -> id.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.pending: dict[str, str] = {}
        self.told: dict[str, Observation] = {}
        self.identify = Identifier(space)

    @property
    def num_students(self) -> int:
        """Architectures that are pending or have an outcome."""
        return len(self.pending.keys() | self.told.keys())

    @property
    def full(self) -> list[Observation]:
        """The outcomes of full trainings, in the order of first telling."""
        return [observation for observation in self.told.values() if observation.status == "full"]

    @property
    def stopped(self) -> list[Observation]:
        """The outcomes of trainings that were stopped early, in the order of first telling."""
        return [one for one in self.told.values() if one.status == "stopped"]

    def is_new(self, edits: Edits | str) -> bool:
        """Neither pending nor told."""
        identity = self.identify(str(edits))
        return identity not in self.pending and identity not in self.told

    def first_new(self, candidates: Iterable[Edits]) -> Edits | None:
        """The first new one of the candidates, inside a latency budget by measurement."""
        new = (edits for edits in candidates if self.is_new(edits))
        if "latency_ms" not in self.space.limits:
            return next(new, None)
        for edits in islice(new, MEASURED_CANDIDATES):
            measured = self.space.repair(self.space.batch([edits]))[0]
            if self.is_new(measured):
                return measured
        return None

    def draw_new(self, *draws: Callable[[int], EditsBatch]) -> Edits:
        """The first new architecture that one of the generators yields, asked in their order for growing batches.

        Args:
            draws: batch size -> that many architectures.

        Raises:
            Exhausted: none of thousands of drawn architectures was new.
        """
        for draw in draws:
            for size in DRAWS:
                if (edits := self.first_new(draw(size))) is not None:
                    return edits
        raise Exhausted

    def new_uniform(self) -> Edits | None:
        """The uniformly scaled student while it is new; without a budget it is the teacher, which is not worth a trial."""
        if not self.space.limits:
            return None
        return self.first_new([self.space.uniform()])

    def propose(self, edits: Edits | str, **extra: Any) -> Proposal:
        """Enters the architecture as pending."""
        text = str(edits)
        self.pending[self.identify(text)] = text
        return Proposal(text, extra)

    def record(self, observation: Observation) -> None:
        """Enters an outcome and clears the pending entry, if there is one."""
        identity = self.identify(observation.architecture)
        self.pending.pop(identity, None)
        known = self.told.get(identity)
        if known is None or known.status != "full" or observation.status == "full":
            self.told[identity] = observation

    def state_dict(self) -> dict[str, Any]:
        """JSON-native."""
        told = {identity: observation.to_dict() for identity, observation in self.told.items()}
        return {"version": STATE_VERSION, "pending": dict(self.pending), "told": told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverts `state_dict`."""
        check_version(state, STATE_VERSION)
        self.pending = dict(state["pending"])
        self.told = {
            identity: Observation.from_dict(values) for identity, values in state["told"].items()
        }


class LedgerAlgorithm:
    """What algorithms with a ledger and one generator share: how they are told, saved and restored.

    Args:
        space: where the students come from.
        seed: of the generator.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        self.space = space
        self._ledger = Ledger(space)
        self._rng = np.random.default_rng(seed)

    def tell(self, observation: Observation) -> None:
        self._ledger.record(observation)

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "ledger": self._ledger.state_dict(),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, STATE_VERSION)
        self._ledger.load_state_dict(state["ledger"])
        self._rng.bit_generator.state = state["rng"]
