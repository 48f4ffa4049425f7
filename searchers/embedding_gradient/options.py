"""The options of the method, checked, and without what imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysearch.errors import ConfigError
from searchers.algorithm import check_bool, check_choice, check_int, check_share
from searchers.targets import check_composite

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

SIZES = ("params", "macs", "latency")
TRUSTS = ("cloud", "encode", "both", "none")
SAMPLERS = ("paper", "restricted")
PICKS = ("mean", "bound", "thompson")


@dataclass(frozen=True)
class StepOptions:
    """As the arguments of `EmbeddingGradientAlgorithm`, which documents them."""

    faithful: bool
    chains: bool
    size: str
    embedding: int
    channels: int
    hidden: int
    num_regressors: int
    kappa: float
    semi_supervised: bool
    pretrain_steps: int
    fit_steps: int
    refit_every: int
    batch_size: int
    num_starts: int
    num_local: int
    num_parents: int
    num_hops: int
    descent_steps: int
    eta: tuple[float, ...]
    lam: tuple[float, ...]
    a_0: float
    p_0: float | None
    centred: bool
    trust: str
    neighbour_share: float
    pick: str
    composite: bool | None
    sampler: str


OPTION_NAMES = frozenset(
    [
        "faithful",
        "num_initial",
        "chains",
        "sampler",
        "size",
        "centred",
        "embedding",
        "channels",
        "hidden",
        "num_regressors",
        "kappa",
        "semi_supervised",
        "pretrain_steps",
        "fit_steps",
        "refit_every",
        "batch_size",
        "num_starts",
        "num_local",
        "num_parents",
        "num_hops",
        "descent_steps",
        "eta",
        "lam",
        "a_0",
        "p_0",
        "trust",
        "neighbour_share",
        "pick",
        "composite",
    ]
)
"""The arguments of the algorithm that are options of the method."""
MAX_DESCENT = 200
MAX_SIZE = 4096
"""Of the networks: a mistyped number is refused before the search, not when memory ends behind its warm-up."""


def check_options(space: SearchSpace, given: Mapping[str, Any]) -> tuple[int, StepOptions]:
    """The number of students of the warm-up, and the checked options; what is None becomes the mode's own.

    Args:
        space: that the students come from.
        given: every one of `OPTION_NAMES`.

    Raises:
        ConfigError: one of them is wrong, or they do not go together.
    """
    one = _Checked(given)
    faithful = one.flag("faithful")
    own = PAPER if faithful else OURS
    chains = faithful if given["chains"] is None else one.flag("chains")
    size = one.word("size", SIZES)
    if size == "latency" and "latency_ms" not in space.limits:
        raise ConfigError(
            "search.options.size is 'latency', which only a budget of latency_ms has measured: set one, or choose params or macs"
        )
    options = StepOptions(
        faithful=faithful,
        chains=chains,
        size=size,
        embedding=one.count("embedding", 1, most=MAX_SIZE),
        channels=one.count("channels", 1, own, MAX_SIZE),
        hidden=one.count("hidden", 1, most=MAX_SIZE),
        num_regressors=one.count("num_regressors", 1, own, MAX_SIZE),
        kappa=one.number("kappa", 0.0),
        semi_supervised=one.flag("semi_supervised"),
        pretrain_steps=one.count("pretrain_steps", 0),
        fit_steps=one.count("fit_steps", 1, own),
        refit_every=one.count("refit_every", 1),
        batch_size=one.count("batch_size", 1),
        num_starts=one.count("num_starts", 2),
        num_local=one.count("num_local", 0),
        num_parents=one.count("num_parents", 1),
        num_hops=one.count("num_hops", 1),
        descent_steps=one.count("descent_steps", 1, most=MAX_DESCENT),
        eta=one.numbers("eta"),
        lam=one.numbers("lam"),
        a_0=one.number("a_0"),
        p_0=None if given["p_0"] is None else one.number("p_0"),
        centred=one.flag("centred"),
        trust=one.word("trust", TRUSTS),
        neighbour_share=one.share("neighbour_share"),
        pick=one.word("pick", PICKS),
        composite=check_composite(given["composite"]),
        sampler=one.word("sampler", SAMPLERS, own),
    )
    return one.count("num_initial", 1, own), options


PAPER: Mapping[str, Any] = {
    "num_initial": 1500, "channels": 128, "num_regressors": 1, "fit_steps": 100_000, "sampler": "paper",
}  # fmt: skip
OURS: Mapping[str, Any] = {
    "num_initial": 16, "channels": 16, "num_regressors": 8, "fit_steps": 50, "sampler": "restricted",
}  # fmt: skip
"""What None stands for in each mode."""


@dataclass(frozen=True)
class _Checked:
    """Reads options by name."""

    given: Mapping[str, Any]

    def flag(self, name: str) -> bool:
        return check_bool(f"search.options.{name}", self.given[name])

    def word(self, name: str, choices: Sequence[str], own: Mapping[str, Any] | None = None) -> str:
        return check_choice(f"search.options.{name}", self._value(name, own), choices)

    def count(
        self, name: str, least: int, own: Mapping[str, Any] | None = None, most: int | None = None
    ) -> int:
        value = check_int(f"search.options.{name}", self._value(name, own), least)
        if most is not None and value > most:
            raise ConfigError(f"search.options.{name} must be at most {most}, got {value}")
        return value

    def share(self, name: str) -> float:
        return check_share(f"search.options.{name}", self.given[name])

    def number(self, name: str, least: float = -math.inf) -> float:
        return _number(name, self.given[name], least)

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self.given[name]
        several = value if isinstance(value, list | tuple) else [value]
        if not several:
            raise ConfigError(
                f"search.options.{name} must be a number or a list of them, got {value!r}"
            )
        return tuple(_number(name, one, 0.0) for one in several)

    def _value(self, name: str, own: Mapping[str, Any] | None) -> Any:
        value = self.given[name]
        return own[name] if own is not None and value is None else value


def _number(name: str, value: object, least: float) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    if not math.isfinite(number) or number < least:
        wanted = "a number" if least == -math.inf else f"a number of at least {least:g}"
        raise ConfigError(f"search.options.{name} must be {wanted}, got {value!r}")
    return number
