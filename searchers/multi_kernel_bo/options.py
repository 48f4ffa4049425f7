"""The options of the method, checked, and without what imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from raysearch.errors import ConfigError
from searchers.algorithm import check_choice

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


def check_device(value: object) -> str:
    """Returns the option `device` after checking it: before any trial, since the search's first step comes after some.

    Raises:
        ConfigError: it is no device's name, or CUDA is wanted and this process has none.
    """
    device = check_choice("search.options.device", value, DEVICES)
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                "search.options.device is 'cuda', but the process that searches has no CUDA: set it to auto"
            )
    return device
