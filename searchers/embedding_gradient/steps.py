"""Makes the step of a mode; the first module here that imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchers.embedding_gradient.domain import make_domain
from searchers.embedding_gradient.faithful import FaithfulStep
from searchers.embedding_gradient.fitting import Fitter
from searchers.embedding_gradient.options import StepOptions
from searchers.embedding_gradient.prior import Prior
from searchers.embedding_gradient.proposing import DescentStep
from searchers.embedding_gradient.snapshot import Step

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace


def make_step(
    space: SearchSpace,
    options: StepOptions,
    prior: Prior | None,
    histories: dict[int, dict[str, Any]],
) -> Step:
    """The step of the chosen mode; it adds the losses of its fits to `histories`."""
    domain = make_domain(space, options)
    fitter = Fitter(domain, options, histories)
    if options.faithful:
        return FaithfulStep(space, domain, options, prior, fitter)
    return DescentStep(space, domain, options, prior, fitter)
