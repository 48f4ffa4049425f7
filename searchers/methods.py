"""The methods of the table as ready-made Ray Tune searchers.

Each works without Ray being initialised and inside anybody's `ray.tune.Tuner`:

    Tuner(trainable, tune_config=TuneConfig(search_alg=GPSearch(space=space, metric="reward", mode="max"), num_samples=32))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from searchers.algorithm import Observation
from searchers.registry import make_algorithm
from searchers.tune import TuneSearcher

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace


class MethodSearch(TuneSearcher):
    """A method of the table as a searcher; `options` are its algorithm's, `warm_start` is another run's folder where it takes one."""

    method: ClassVar[str]

    def __init__(
        self,
        space: SearchSpace,
        *,
        metric: str | None = None,
        mode: str | None = None,
        num_trials: int | None = None,
        seed: int = 0,
        max_concurrent: int | None = None,
        max_retries: int = 2,
        cache: Mapping[str, Observation] | None = None,
        warm_start: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            make_algorithm(
                self.method, space, seed, options, warm_start=warm_start, num_trials=num_trials
            ),
            space=space,
            metric=metric,
            mode=mode,
            num_trials=num_trials,
            max_concurrent=max_concurrent,
            max_retries=max_retries,
            cache=cache,
        )


class RandomSearch(MethodSearch):
    """Random students that fill the budget; see `searchers.random`."""

    method = "random"


class EvolutionSearch(MethodSearch):
    """Regularised evolution; see `searchers.evolution` for the options."""

    method = "evolution"


class GPSearch(MethodSearch):
    """Gaussian process and log expected improvement; see `searchers.gp` for the options."""

    method = "gp"


class MultiKernelBOSearch(MethodSearch):
    """ESNAC's multi-kernel Bayesian optimisation; see `searchers.multi_kernel_bo.algorithm` for the options."""

    method = "multi_kernel_bo"


class N2NSearch(MethodSearch):
    """N2N's REINFORCE on layer removal, then on shrinkage; see `searchers.n2n.algorithm` for the options."""

    method = "n2n"


class EmbeddingGradientSearch(MethodSearch):
    """Architecture Compression; see `searchers.embedding_gradient.algorithm` for the options."""

    method = "embedding_gradient"


class OptunaSearch(MethodSearch):
    """Optuna's TPE over the same space; see `searchers.optuna` for the options."""

    method = "tpe"


class UniformSearch(MethodSearch):
    """The uniformly scaled student alone; see `searchers.uniform`."""

    method = "uniform"
