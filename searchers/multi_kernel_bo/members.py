"""The K learned kernels: which students each of them sees, and what its network is.

Each has a fresh network and its own random half of the evaluated students, to which the teacher is added (ESNAC, section 3.3; the
teacher is the public code's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from searchers.multi_kernel_bo.encoders import ENCODERS
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.multi_kernel_bo.kernel import ALPHA, LayerEmbedding
from searchers.multi_kernel_bo.model import BETA, LearnedKernelGP

_DRAWS = (
    nn.init.uniform_,
    nn.init.normal_,
    nn.init.trunc_normal_,
    nn.init.xavier_uniform_,
    nn.init.xavier_normal_,
    nn.init.kaiming_uniform_,
    nn.init.kaiming_normal_,
    nn.init.orthogonal_,
)
"""What the modules of PyTorch draw their weights by."""


@dataclass(frozen=True)
class MemberOptions:
    """What the learned kernels have in common.

    Attributes:
        num_kernels: K.
        encoder: a name of `ENCODERS`.
        share: the probability that a kernel sees a student.
        anchor: the teacher's target.
        alpha, beta: of the kernel and its noise; learning them by leave-one-out gave overconfident predictions.
        max_students: the most that one kernel sees.
        device: of the networks.
    """

    num_kernels: int = 8
    encoder: str = "mlp"
    share: float = 0.5
    anchor: float = 1.0
    alpha: float = ALPHA
    beta: float = BETA
    max_students: int = 256
    device: str = "cpu"


def make_embeddings(inputs: Inputs, options: MemberOptions, seed: Sequence[int]) -> list[nn.Module]:
    """K networks with fresh random weights; torch's global generator is neither used nor moved."""
    num_columns = len(inputs.columns.kept)
    with _DrawnFrom(
        torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**62)))
    ):
        encoders = [ENCODERS[options.encoder](num_columns) for _ in range(options.num_kernels)]
    return [
        LayerEmbedding(encoder, num_columns, inputs.num_features).to(options.device)
        for encoder in encoders
    ]


def subsets(num_students: int, options: MemberOptions, seed: Sequence[int]) -> list[np.ndarray]:
    """Which students each kernel sees: K arrays of rows, ascending.

    A larger number of students leaves what was drawn for the first ones. Beyond `max_students` a kernel sees the newest of its own.
    """
    drawn = []
    for k in range(options.num_kernels):
        seen = np.random.default_rng([*seed, k]).random(num_students) < options.share
        drawn.append(np.flatnonzero(seen)[-options.max_students :])
    return drawn


def make_members(
    X: Tensor,
    targets: np.ndarray,
    teacher: Tensor,
    embeddings: Sequence[nn.Module],
    rows: Sequence[np.ndarray],
    options: MemberOptions,
) -> list[LearnedKernelGP]:
    """The processes of the given networks, each over its rows and the teacher.

    Args:
        X: [n, L F + D] evaluated students.
        targets: [n].
        teacher: [1, L F + D].
        embeddings: K networks.
        rows: K arrays of rows of X.
        options: see `MemberOptions`.
    """
    y = torch.as_tensor(targets, dtype=torch.float64)[:, None]  # [n, 1]
    anchor = torch.full((1, 1), options.anchor, dtype=torch.float64)
    return [
        LearnedKernelGP(
            torch.cat([teacher, X[seen]]).to(options.device),
            torch.cat([anchor, y[seen]]).to(options.device),
            embedding,
            alpha=options.alpha,
            beta=options.beta,
        )
        for embedding, seen in zip(embeddings, rows, strict=True)
    ]


class _DrawnFrom(TorchFunctionMode):
    """Lets PyTorch's initialisations draw from a generator of ours.

    The global one belongs to every thread: seeding it here would give other threads our numbers, and us theirs.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        drawn = {"generator": self._generator} if func in _DRAWS else {}
        return func(*args, **{**(kwargs or {}), **drawn})
