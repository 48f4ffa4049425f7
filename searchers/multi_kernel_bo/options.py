"""The options of the method, checked, and without what imports torch."""

from __future__ import annotations

from dataclasses import dataclass

ENCODERS = ("mlp", "lstm", "features")
ACQUISITIONS = ("random", "evolution")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class StepOptions:
    """As the arguments of `MultiKernelBOAlgorithm`, which documents them."""

    faithful: bool
    num_kernels: int
    encoder: str
    acquisition: str
    num_candidates: int
    mutation_share: float
    num_parents: int
    num_edits: tuple[int, int]
    batch_size: int
    refit_every: int
    composite: bool | None
    use_stopped: bool
    num_threads: int
    device: str

    @property
    def num_learned(self) -> int:
        """Learned kernels: none where the features' process stands alone."""
        return 0 if self.encoder == "features" else self.num_kernels
