"""Makes the step of a mode; the first module here that imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raysearch.errors import ConfigError
from searchers.candidates import CandidatePool
from searchers.multi_kernel_bo.faithful import FaithfulStep
from searchers.multi_kernel_bo.fit import FitOptions
from searchers.multi_kernel_bo.improved import ImprovedStep
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.multi_kernel_bo.members import MemberOptions
from searchers.multi_kernel_bo.options import StepOptions
from searchers.multi_kernel_bo.snapshot import Step

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

MLP_LR = 3e-3
"""Of our mode, whose networks are smaller than the paper's."""


def make_step(space: SearchSpace, options: StepOptions) -> Step:
    """The step of the chosen mode.

    Raises:
        ConfigError: CUDA is wanted and this process has none.
    """
    device = _device(options.device)
    inputs = Inputs.of(space)
    if options.faithful:
        return FaithfulStep(
            space,
            inputs,
            MemberOptions(options.num_kernels, options.encoder, anchor=0.0, device=device),
            FitOptions(),
            acquisition=options.acquisition,
            num_candidates=options.num_candidates,
            num_threads=options.num_threads,
        )
    pool = CandidatePool(
        space,
        options.num_candidates,
        options.mutation_share,
        options.num_parents,
        options.num_edits,
    )
    num_kernels = 0 if options.encoder == "features" else options.num_kernels
    return ImprovedStep(
        space,
        inputs,
        pool,
        MemberOptions(num_kernels, options.encoder, device=device),
        FitOptions(lr=MLP_LR),
        composite=options.composite,
        batch_size=options.batch_size,
        refit_every=options.refit_every,
        num_threads=options.num_threads,
    )


def _device(name: str) -> str:
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError(
            "search.options.device is 'cuda', but the process that searches has no CUDA: set it to auto"
        )
    return "cuda" if name != "cpu" and has_cuda else "cpu"
