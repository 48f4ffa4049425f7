"""A finished search as a source of knowledge for another one: its space and its observations, read from the run's folder.

The folder's plain files are enough (`docs/run-folder.md`); nothing is trained, and no pickle is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raysearch.errors import ConfigError, InputError
from searchers.algorithm import Observation

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

_SPACE_KEYS = ("operations", "grouping", "divisor", "min_channels")


@dataclass(frozen=True, eq=False)
class Source:
    """What another run knows.

    Attributes:
        space: its students, without its budget.
        full: its full observations, in their order; of students that are edits of the teacher (others are not of the space), or of all.
    """

    space: SearchSpace
    full: tuple[Observation, ...]


def read_source(path: object, *, whole: bool = False) -> Source:
    """Reads a run's folder.

    Args:
        path: of the folder, finished or not.
        whole: students that are whole networks (free chains) are wanted, too.

    Raises:
        ConfigError: it is no run, or its search has fewer than two full observations.
    """
    from raysearch.architecture import Architecture, SearchSpace
    from raysearch.architecture.graph import COMPACT_PREFIX

    if not isinstance(path, str | Path) or not str(path):
        raise ConfigError(f"search.warm_start must be the folder of a run, got {path!r}")
    folder = Path(path)
    try:
        text = (folder / "teacher" / "architecture.json").read_text(encoding="utf-8")
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        lines = (folder / "observations.jsonl").read_bytes().split(b"\n")[:-1]  # a torn end is left
        arguments = {key: config["space"][key] for key in _SPACE_KEYS}
        space = SearchSpace(Architecture.from_json(text), **arguments)
        full = tuple(_observation(json.loads(line)) for line in lines if b'"full"' in line)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, InputError) as error:
        raise ConfigError(
            f"search.warm_start is {str(path)!r}, which is no folder of a run ({type(error).__name__}: {error}): "
            "give the folder that a search was written to"
        ) from error
    full = tuple(one for one in full if one.status == "full")
    edits = tuple(one for one in full if not one.architecture.startswith(COMPACT_PREFIX))
    known, students = (full, "") if whole else (edits, " of students that are edits of its teacher")
    if len(known) < 2:
        raise ConfigError(
            f"search.warm_start is {str(path)!r}, whose search has {len(known)} full observations{students if len(known) < len(full) else ''}, "
            "but 2 are needed: choose another run"
        )
    return Source(space, known)


def _observation(record: dict[str, Any]) -> Observation:
    numbers = {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return Observation(
        record["architecture"],
        record["value"],
        record["fidelity"],
        record["status"],
        metrics=numbers,
    )
