"""The user's cache folder: downloaded data sets, trained teachers, traced graphs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads, trained teachers and traced graphs are kept; the folder need not exist yet.

    `RAYSEARCH_CACHE` wins, then `XDG_CACHE_HOME/raysearch`, then `~/.cache/raysearch`.
    """
    own = os.environ.get("RAYSEARCH_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "raysearch"
