"""What a comparison compares: the configuration that all its cells share, the methods and the seeds; and its folder.

A seed means one thing here: the searcher's and the trainings' stream. The teacher, the split of the data and so the meaning of every
accuracy are those of the base configuration's seed in all cells, so two methods with one seed are a fair pair, and the spread over
seeds is that of searching and training alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from raysearch.comparing.records import METRICS
from raysearch.config import Config, parse_config
from raysearch.errors import ConfigError, RunFolderError
from raysearch.files import write_text
from raysearch.objective import resolve_objective

EQUAL = ("trials", "epochs", "seconds")
MAX_TRIALS = 1000
"""Of a search whose end is a number of seconds."""
MANIFEST = "comparison.yaml"
BASE = "base.yaml"

# what may differ between two sessions of one comparison
_FREE = ("run", "resources", "cluster", "baselines")


@dataclass(frozen=True)
class Cell:
    """One search: a method with a seed."""

    method: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder: "gp-3"; a user's own "package.module:Class" becomes "package.module.Class-3"."""
        label = "".join(
            c if c.isascii() and (c.isalnum() or c in "._-") else "." for c in self.method
        )
        return f"{label[-80:].lstrip('._-')}-{self.seed}"


@dataclass(frozen=True)
class Manifest:
    """A comparison's plan.

    Attributes:
        config: what all cells share; its `run.seed` is that of the teacher and the data.
        methods, seeds: the cells are all pairs of them.
        equal: what is equal for all cells: "trials", "epochs" or "seconds".
        table: `path` and `sha256` of the table that is replayed, and what is known of it; None: students are trained.
    """

    config: Config
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    equal: str = "trials"
    table: Mapping[str, Any] | None = None

    @property
    def cells(self) -> Iterator[Cell]:
        """Seed by seed, so that a comparison that is cut is even."""
        return (Cell(method, seed) for seed in self.seeds for method in self.methods)

    @property
    def budget(self) -> str:
        """What every search may spend, in words."""
        search = self.config.search
        if self.equal == "epochs":
            return f"{search.epochs:,} epochs"
        if self.equal == "seconds":
            return f"{search.seconds:g} seconds"
        return f"{search.trials:,} trials"

    def cell_config(self, cell: Cell, storage: Path) -> Config:
        """The configuration of a cell's run.

        Options of the method reach only the method that the base configuration names; the others take their defaults.
        """
        base = self.config.model_dump()
        if cell.method != base["search"]["method"]:
            base["search"] |= {"method": cell.method, "options": {}, "warm_start": None}
        base["run"] = {"name": cell.name, "storage": str(storage), "seed": cell.seed}
        return parse_config(base)

    def check_same(self, other: Manifest, name: str) -> None:
        """Raises ConfigError where another session of the comparison would make its cells incomparable.

        Args:
            other: what is asked for now.
            name: the comparison's, for the message.
        """
        mine, theirs = _flat(self._identity()), _flat(other._identity())
        for key in dict.fromkeys([*mine, *theirs]):
            if mine.get(key) != theirs.get(key):
                raise ConfigError(
                    f"run.name: {name!r} is a comparison with another configuration ({key} is {mine.get(key)!r} there, "
                    f"{theirs.get(key)!r} here); choose another --name, or leave {key} as it was"
                )

    def _identity(self) -> dict[str, Any]:
        config = {k: v for k, v in self.config.model_dump(mode="json").items() if k not in _FREE}
        search = dict(config["search"])
        search.pop("concurrency")
        if not search["options"]:
            search.pop("method")
        table = None if self.table is None else self.table["sha256"]
        return {**config, "search": search, "--equal": self.equal, "--table": table}

    def joined(self, other: Manifest) -> Manifest:
        """This comparison with the methods and seeds of another session added."""
        methods = dict.fromkeys((*self.methods, *other.methods))
        return replace(
            other, methods=tuple(methods), seeds=tuple(sorted({*self.seeds, *other.seeds}))
        )

    def write(self, folder: Path) -> None:
        """Writes `comparison.yaml` and `base.yaml`."""
        content = {
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "equal": self.equal,
            "table": None if self.table is None else dict(self.table),
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(folder / BASE, self.config.to_yaml())
        write_text(folder / MANIFEST, text)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads what `write` wrote.

        Raises:
            RunFolderError: there is no comparison, or it is damaged.
        """
        if not (folder / MANIFEST).is_file():
            raise RunFolderError(
                f"{folder} is no comparison (there is no {MANIFEST}); give the folder of one, or another name"
            )
        try:
            content = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8"))
            base = yaml.safe_load((folder / BASE).read_text(encoding="utf-8"))
            return cls(
                parse_config(base),
                tuple(content["methods"]),
                tuple(content["seeds"]),
                content["equal"],
                content["table"],
            )
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise RunFolderError(
                f"{folder / MANIFEST}: damaged ({reason}); restore it, or start a new comparison"
            ) from error


def make_manifest(
    config: Config,
    methods: str | Sequence[str],
    seeds: int | str | Sequence[int],
    equal: str,
    table: Mapping[str, Any] | None = None,
) -> Manifest:
    """The checked plan of a comparison.

    Args:
        config: of every search; `search.method` does not matter.
        methods: names, as a list or "a,b,c".
        seeds: how many, from the configuration's own on; or which ones, as a list or "3,5,7".
        equal: see `EQUAL`.
        table: see `Manifest`.

    Raises:
        ConfigError: naming what is wrong, its value and the remedy.
    """
    if equal not in EQUAL:
        raise ConfigError(f"equal: {equal!r} is not known; choose one of {', '.join(EQUAL)}")
    fixed = config.model_dump()
    fixed["data"]["seed"], fixed["teacher"]["seed"] = config.data_seed, config.teacher_seed
    fixed["baselines"] = []  # they can be methods themselves
    search = fixed["search"]
    if equal == "epochs":
        of_trial = config.distill.epochs * config.distill.repeats
        search["epochs"] = search["epochs"] or search["trials"] * of_trial
        search["trials"] = search["epochs"]  # every student is trained for one at least
        if search["epochs"] < of_trial:
            times = (
                f" x distill.repeats={config.distill.repeats}" if config.distill.repeats > 1 else ""
            )
            raise ConfigError(
                f"search.epochs: {search['epochs']} do not hold one training of distill.epochs={config.distill.epochs}{times}; give more"
            )
    if equal == "seconds":
        if search["seconds"] is None:
            raise ConfigError(
                "search.seconds: null, but equal seconds are asked for; say how many a search may spend, such as search.seconds=60"
            )
        search["trials"] = MAX_TRIALS
    first = config.run.seed
    return Manifest(
        parse_config(fixed), parse_methods(methods), parse_seeds(seeds, first), equal, table
    )


def parse_methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    """The methods' names, each once; raises ConfigError."""
    names = methods.split(",") if isinstance(methods, str) else list(methods)
    names = [name.strip() if isinstance(name, str) else name for name in names]
    named = [name for name in names if name]
    if not named:
        raise ConfigError("methods: the list is empty; name some, such as --methods gp,random")
    for name in named:
        if not isinstance(name, str):
            raise ConfigError(f"methods: {name!r} is not a name; see `python -m raysearch methods`")
        if named.count(name) > 1:
            raise ConfigError(f"methods: {name!r} is named twice; name each method once")
    return tuple(named)


def parse_seeds(seeds: int | str | Sequence[int], first: int = 0) -> tuple[int, ...]:
    """The seeds in ascending order: `first` and those after it for a number, else those that are listed; raises ConfigError."""
    help_text = "give how many, such as 5, or which ones, such as 3,5,7"
    if isinstance(seeds, str):
        try:
            listed = [int(part) for part in seeds.split(",") if part.strip()]
        except ValueError:
            raise ConfigError(f"seeds: {seeds!r} is not understood; {help_text}") from None
        seeds = listed if "," in seeds or not listed else listed[0]
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if not 1 <= seeds <= 10_000:
            raise ConfigError(f"seeds: {seeds} is not between 1 and 10,000; {help_text}")
        return tuple(range(first, first + seeds))
    if isinstance(seeds, bool) or not isinstance(seeds, Sequence) or not seeds:
        raise ConfigError(f"seeds: {seeds!r} is not understood; {help_text}")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise ConfigError(f"seeds: {seed!r} is not a whole number of at least 0; {help_text}")
        if list(seeds).count(seed) > 1:
            raise ConfigError(f"seeds: {seed} is listed twice; list each once")
    return tuple(sorted(seeds))


def resolve_metric(metric: str, config: Config) -> str:
    """The metric's name; "auto": the test accuracy where all students have one size, else the reward, which counts size too.

    Raises:
        ConfigError: it is not known.
    """
    if metric == "auto":
        limits = config.limits
        objective = resolve_objective(
            config.objective, has_budget=bool(limits), has_floor="accuracy" in limits
        )
        return "test_accuracy" if objective == "accuracy" else "reward"
    if metric not in METRICS:
        raise ConfigError(
            f"metric: {metric!r} is not known; choose auto or one of {', '.join(METRICS)}"
        )
    return metric


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
