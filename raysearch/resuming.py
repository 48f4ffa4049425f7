"""The configuration of a run that is continued: that of its folder, and what may change in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raysearch.config import Config, load_config
from raysearch.errors import ConfigError, RunFolderError
from raysearch.sections import read_yaml

RESUMABLE = ("search", "finish.students", "baselines", "schedule", "resources", "cluster")
"""What may change when a run is continued; anything else would make its results incomparable."""


def continued_config(path: Path, overrides: Sequence[str]) -> Config:
    """The configuration of a run's folder, with the overrides on top.

    Args:
        path: of the folder's `config.yaml`, which holds every key.

    Raises:
        RunFolderError: the file is damaged.
        ConfigError: an override would change what the folder's results mean.
    """
    _check_whole(path)
    before = load_config(path)
    for text in overrides:
        key = text.partition("=")[0]
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in RESUMABLE):
            raise ConfigError(
                f"{key}: cannot change in a run that has results; start a new run (what may change: {', '.join(RESUMABLE)})"
            )
    after = load_config(path, overrides)
    then, now = before.search.method, after.search.method
    if (
        then != now
    ):  # a log has one author: the report, the summary and the method's own files name it
        raise ConfigError(
            f"search.method: {now!r} asked, but the students of this run were proposed by {then!r}; start a new run "
            f"(search.warm_start={path.parent} begins it with what this one knows, where the method can)"
        )
    return after


def _check_whole(path: Path) -> None:
    """Raises RunFolderError where a section is missing: the defaults in its place would be another run's."""
    sections = read_yaml(path)
    missing = [name for name in Config.model_fields if name not in sections]
    if missing:
        raise RunFolderError(
            f"{path}: damaged (no section {missing[0]!r}); restore the file, or start a new run"
        )


def fewer_trials(asked: int, done: int) -> str | None:
    """A note for people where a search is to have fewer trials than it has had; None: it is not."""
    if asked >= done:
        return None
    return f"search.trials: {asked} asked, but the search has evaluated {done} students already; they all stay, and none is added"
