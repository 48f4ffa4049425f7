"""A space whose answers can be computed by hand, for the searchers' unit tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from raysearch.architecture.edits import Edits, EditsBatch
from raysearch.errors import InvalidArchitecture
from searchers.algorithm import Exhausted, Observation, Proposal


@dataclass(frozen=True)
class ToyGroup:
    size: int
    min_channels: int = 1


@dataclass(frozen=True)
class ToyNetwork:
    """What `apply` gives: enough of an Architecture."""

    id: str
    num_params: int
    layers: tuple[str, ...] = ()


class ToySpace:
    """`len(sizes)` layers with a width each; a removed layer's width has no effect, so two texts may mean one network."""

    def __init__(self, sizes: tuple[int, ...] = (6, 6, 6), num_pairs: int = 2) -> None:
        self.groups = tuple(ToyGroup(size) for size in sizes)
        self.removable = tuple(range(len(sizes)))
        self.skip_pairs = np.array([[i, i + 1] for i in range(num_pairs)]).reshape(-1, 2)
        self.limits: Mapping[str, int] = {}
        self._sizes = np.array(sizes)
        self.feature_blocks = {
            "remove": slice(0, len(sizes)),
            "none": slice(len(sizes), len(sizes)),
            "width": slice(len(sizes), 2 * len(sizes)),
        }
        total = int((self._sizes**2).sum()) + 10
        self.teacher = ToyNetwork("teacher", total, tuple(f"layer{i}" for i in range(len(sizes))))

    def parse(self, text: str) -> Edits:
        edits = Edits.from_text(text)
        if len(edits.widths) != len(self.groups):
            raise InvalidArchitecture(
                f"expected {len(self.groups)} widths, got {len(edits.widths)}"
            )
        return edits

    def apply(self, edits: Edits | str) -> ToyNetwork:
        edits = self.parse(edits) if isinstance(edits, str) else edits
        widths = [0 if i in edits.remove else width for i, width in enumerate(edits.widths)]
        key = hashlib.sha256(repr((widths, edits.skips)).encode()).hexdigest()[:12]
        return ToyNetwork(key, 10 + sum(width**2 for width in widths))

    def sample(self, n: int, seed: int | np.random.Generator) -> EditsBatch:
        rng = np.random.default_rng(seed)
        remove = rng.random((n, len(self._sizes))) < 0.3
        widths = rng.integers(1, self._sizes + 1, size=remove.shape)
        rows, pairs = np.nonzero(rng.random((n, len(self.skip_pairs))) < 0.3)
        return EditsBatch(remove, widths, rows, pairs)

    def repair(self, batch: EditsBatch) -> EditsBatch:
        widths = np.clip(batch.widths, 1, self._sizes)
        return EditsBatch(batch.remove, widths, batch.skip_rows, batch.skip_pairs)

    def mutate(
        self, batch: EditsBatch, rng: np.random.Generator, num_edits: tuple[int, int] = (1, 4)
    ) -> EditsBatch:
        children = []
        for edits in batch:
            remove, widths = set(edits.remove), list(edits.widths)
            for _ in range(rng.integers(num_edits[0], num_edits[1] + 1)):
                layer = int(rng.integers(len(widths)))
                if rng.random() < 0.5:
                    remove ^= {layer}
                else:
                    step = int(rng.choice([-1, 1]))
                    widths[layer] = min(max(widths[layer] + step, 1), int(self._sizes[layer]))
            children.append(Edits(tuple(remove), tuple(widths), edits.skips))
        return self.repair(EditsBatch.from_edits(children, len(self._sizes)))

    def vary(self, batch: EditsBatch, rng: np.random.Generator) -> EditsBatch:
        factors = np.exp(0.3 * rng.standard_normal(batch.widths.shape))
        widths = np.rint(batch.widths * factors).astype(np.int64)
        return self.repair(EditsBatch(batch.remove, widths, batch.skip_rows, batch.skip_pairs))

    def batch(self, texts: Iterable[str]) -> EditsBatch:
        return EditsBatch.from_edits([self.parse(text) for text in texts], len(self._sizes))

    def uniform(self) -> Edits:
        return Edits((), tuple(self._sizes // 2), ())

    def num_params(self, batch: EditsBatch) -> np.ndarray:
        return np.array([self.apply(edits).num_params for edits in batch])

    def features(self, batch: EditsBatch) -> np.ndarray:
        remove = np.pad(batch.remove, ((0, 0), (0, len(self._sizes) - batch.remove.shape[1])))
        kept = np.where(remove, 0, batch.widths) / self._sizes
        return np.concatenate([remove, kept], axis=1).astype(np.float32)


def accuracy_of(space: Any, text: str) -> float:
    """An analytic accuracy in [0, 1]: smooth in the widths, best at two thirds of each, hurt by removals."""
    edits = space.parse(text)
    kept = np.array([0 if i in edits.remove else w for i, w in enumerate(edits.widths)])
    shares = kept / np.array([group.size for group in space.groups])
    return float(np.exp(-np.mean((shares - 2 / 3) ** 2 * np.arange(1, len(shares) + 1))))


class Script:
    """An algorithm that proposes given texts in order and remembers what it is told."""

    def __init__(self, texts: list[str], space: ToySpace) -> None:
        self.space = space
        self.texts = list(texts)
        self.told: list[Observation] = []

    def ask(self) -> Proposal | None:
        if not self.texts:
            raise Exhausted
        return Proposal(self.texts.pop(0), {"step": len(self.told)})

    def tell(self, observation: Observation) -> None:
        self.told.append(observation)

    def state_dict(self) -> dict[str, Any]:
        told = [observation.to_dict() for observation in self.told]
        return {"version": 1, "texts": list(self.texts), "told": told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.texts = list(state["texts"])
        self.told = [Observation.from_dict(values) for values in state["told"]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices are slower on several threads, above all on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy_space() -> ToySpace:
    return ToySpace()


@pytest.fixture
def make_toy_space() -> type[ToySpace]:
    return ToySpace


@pytest.fixture
def texts() -> list[str]:
    """Edits' texts of different networks."""
    return [str(Edits((), (1 + i % 6, 1 + i // 6, 3), ())) for i in range(36)]


@pytest.fixture
def script(toy_space: ToySpace, texts: list[str]) -> Script:
    """An algorithm with 36 proposals."""
    return Script(texts, toy_space)


@pytest.fixture
def make_script(toy_space: ToySpace) -> Callable[[list[str]], Script]:
    return lambda texts: Script(texts, toy_space)


@pytest.fixture
def accuracy() -> Callable[[Any, str], float]:
    return accuracy_of
