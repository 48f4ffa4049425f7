"""Makes the step of a mode; the first module here that imports torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from searchers.candidates import CandidatePool
from searchers.multi_kernel_bo.faithful import FaithfulStep
from searchers.multi_kernel_bo.feature_transfer import FeatureTransferStep
from searchers.multi_kernel_bo.fit import FitOptions
from searchers.multi_kernel_bo.improved import ImprovedStep
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.multi_kernel_bo.members import MemberOptions
from searchers.multi_kernel_bo.options import StepOptions
from searchers.multi_kernel_bo.snapshot import Step
from searchers.multi_kernel_bo.transfer import TransferStep
from searchers.source import Source

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

MLP_LR = 3e-3
"""Of our mode, whose networks are smaller than the paper's."""


def make_step(space: SearchSpace, options: StepOptions) -> Step:
    """The step of the chosen mode."""
    inputs = Inputs.of(space)
    if options.faithful:
        return FaithfulStep(
            space,
            inputs,
            _members(options),
            _fitting(options),
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
    return ImprovedStep(
        space,
        inputs,
        pool,
        _members(options),
        _fitting(options),
        composite=options.composite,
        use_stopped=options.use_stopped,
        batch_size=options.batch_size,
        refit_every=options.refit_every,
        num_threads=options.num_threads,
    )


def make_transfer(
    space: SearchSpace, source: Source, options: StepOptions
) -> TransferStep | FeatureTransferStep:
    """The step that begins a search with another one's kernels, or with processes on features."""
    if not options.num_learned:
        members = replace(_members(options), num_kernels=options.num_kernels)
        return FeatureTransferStep(space, source, members, options.num_candidates)
    return TransferStep(
        space,
        source,
        _members(options),
        _fitting(options),
        faithful=options.faithful,
        num_candidates=options.num_candidates,
        num_threads=options.num_threads,
    )


def _members(options: StepOptions) -> MemberOptions:
    anchor = 0.0 if options.faithful else 1.0
    device = _device(options.device)
    return MemberOptions(options.num_learned, options.encoder, anchor=anchor, device=device)


def _fitting(options: StepOptions) -> FitOptions:
    return FitOptions() if options.faithful else FitOptions(lr=MLP_LR)


def _device(name: str) -> str:
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
