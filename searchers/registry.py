"""The methods by name, and how an algorithm is made from a name or from a user's own import path."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysearch.errors import ConfigError, InputError
from searchers.algorithm import Algorithm, Proposal
from searchers.foreign import algorithm_of

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace


@dataclass(frozen=True)
class Method:
    """A row of the table: where the algorithm is, what it does in one line, and where it comes from."""

    target: str
    summary: str
    paper: str


METHODS: Mapping[str, Method] = {
    "random": Method(
        "searchers.random:RandomAlgorithm",
        "Fresh samples of the space that fill the budget; the baseline of every search.",
        "Bergstra and Bengio 2012",
    ),
    "evolution": Method(
        "searchers.evolution:EvolutionAlgorithm",
        "Regularised evolution: mutates the best of a random few, forgets the oldest.",
        "Real et al. 2019, arXiv:1802.01548",
    ),
    "gp": Method(
        "searchers.gp:GPAlgorithm",
        "Gaussian process on hand-made features, log expected improvement, exact compression.",
        "Jones et al. 1998; Ament et al. 2023, arXiv:2310.20708",
    ),
    "multi_kernel_bo": Method(
        "searchers.multi_kernel_bo.algorithm:MultiKernelBOAlgorithm",
        "Bayesian optimisation with kernels learned over the layers: the paper's form, or ours.",
        "Cao, Wang and Kitani 2019 (ESNAC), arXiv:1902.00383",
    ),
    "n2n": Method(
        "searchers.n2n.algorithm:N2NAlgorithm",
        "REINFORCE: a recurrent policy removes layers, a second one shrinks the best student.",
        "Ashok et al. 2018 (N2N), arXiv:1709.06030",
    ),
    "embedding_gradient": Method(
        "searchers.embedding_gradient.algorithm:EmbeddingGradientAlgorithm",
        "Gradient descent in a learned embedding of architectures, decoded onto the teacher.",
        "Architecture Compression, ICLR 2019 submission",
    ),
    "tpe": Method(
        "searchers.optuna:TPEAlgorithm",
        "Optuna's tree-structured Parzen estimator over the same edits.",
        "Bergstra et al. 2011",
    ),
    "uniform": Method(
        "searchers.uniform:UniformAlgorithm",
        "One student: the teacher scaled evenly to the budget.",
        "",
    ),
    "prune": Method(
        "searchers.prune:PruneAlgorithm",
        "The teacher pruned to the budget by torch-pruning: global L2 norms, isomorphic Taylor.",
        "Fang et al. 2023, arXiv:2301.12900; 2024, arXiv:2407.04616",
    ),
    "bayes_compression": Method(
        "searchers.bayes_compression:BayesCompressionAlgorithm",
        "Bayesian pruning of whole groups of weights; every state on the way is a student.",
        "Zhou et al. 2019, arXiv:1905.04919; Yang 2019, thesis, appendix A",
    ),
    "bayes_nas": Method(
        "searchers.bayes_nas:BayesNASAlgorithm",
        "One-shot search: a super-network's switches are pruned, a network is derived.",
        "Zhou et al. 2019 (BayesNAS), arXiv:1905.04919; Yang 2019, thesis",
    ),
}

_CONTRACT = ("ask", "tell", "state_dict", "load_state_dict")

GIVEN = ("space", "seed", "pruned", "warm_start", "num_trials")
"""Arguments of a constructor that are no options."""


Pruner = Callable[[Sequence[str]], Sequence[Proposal]]
"""Names of forms (`raysearch.models.pruned.FORMS`) -> the pruned students to evaluate."""


def make_algorithm(
    method: str,
    space: SearchSpace,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    *,
    pruned: Pruner | None = None,
    warm_start: str | None = None,
    num_trials: int | None = None,
) -> Algorithm:
    """The algorithm of a method.

    Args:
        method: a key of `METHODS`, or `package.module:Class`: a class with `ask`, `tell`, `state_dict` and `load_state_dict`, or
            a `ray.tune.search.Searcher`. A class of one's own gets `space`, `seed`, `pruned` and `num_trials` where its constructor names
            them.
        space: where the students come from.
        seed: of everything random.
        options: the method's own, by the names of its constructor's arguments.
        pruned: gives pruned students of the teacher; None: there are no weights (a check before the run, a script of one's own).
        warm_start: the folder of another run whose search the method may begin with.
        num_trials: evaluations of the search, for methods that divide them; None: not known.

    Raises:
        ConfigError: unknown method or option, a path that cannot be imported, or a class that does not fit.
    """
    factory = resolve(method)
    given = {"space": space, "seed": seed, "pruned": pruned, "num_trials": num_trials}
    if warm_start is not None:
        given["warm_start"] = warm_start
    arguments = _arguments(method, factory, given, dict(options or {}))
    try:
        made = factory(**arguments)
    except InputError:
        raise
    except Exception as error:
        if method in METHODS:
            raise
        raise ConfigError(
            f"search.method {method!r} could not be created: {type(error).__name__}: {error}"
        ) from error
    if isinstance(made, Algorithm):
        return made
    if callable(getattr(made, "suggest", None)):
        return algorithm_of(made, space)
    missing = ", ".join(name for name in _CONTRACT if not callable(getattr(made, name, None)))
    raise ConfigError(
        f"search.method {method!r} gives a {type(made).__name__} without {missing}: see searchers.algorithm.Algorithm"
    )


def resolve(method: str) -> Any:
    """The class behind a method's name or path.

    Raises:
        ConfigError: there is none.
    """
    if method in METHODS:
        return _load(METHODS[method].target)
    if not isinstance(method, str) or ":" not in method:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"search.method is {method!r}, which is unknown: {hint}choose one of {', '.join(METHODS)}, or package.module:Class"
        )
    try:
        factory = _load(method)
    except Exception as error:
        raise ConfigError(
            f"search.method {method!r} could not be imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise ConfigError(f"search.method {method!r} is not a class but {factory!r}")
    return factory


def option_names(method: str) -> tuple[str, ...] | None:
    """The options of a method; None: whatever is given is passed on."""
    parameters = inspect.signature(resolve(method)).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return tuple(p.name for p in parameters if p.name not in GIVEN)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _arguments(
    method: str, factory: Any, given: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """What the constructor gets: of space and seed what it names, and the checked options."""
    valid = option_names(method)
    if valid is not None:
        for name in options:
            if name not in valid:
                listed = f"valid are {', '.join(valid)}" if valid else "it has none"
                raise ConfigError(
                    f"search.options.{name} is not an option of the method {method!r}: {listed}"
                )
    named = inspect.signature(factory).parameters
    if "warm_start" in given and "warm_start" not in named and valid is not None:
        raise ConfigError(
            f"search.warm_start is {given['warm_start']!r}, but the method {method!r} cannot begin with another search: set it to null"
        )
    unasked = ("pruned", "num_trials")  # not passed on to a constructor that takes anything
    own = {
        key: given[key] for key in given if key in named or (valid is None and key not in unasked)
    }
    return own | options
