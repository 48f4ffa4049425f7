"""Traced graphs in the user's cache folder, one JSON file each."""

from __future__ import annotations

import logging
from pathlib import Path

from raysearch.architecture.graph import Architecture
from raysearch.cache import cache_folder
from raysearch.errors import InvalidArchitecture
from raysearch.files import write_text

MAX_ENTRIES = 256
"""The oldest files beyond this many are dropped."""

_logger = logging.getLogger(__name__)


def read_trace(key: str) -> Architecture | None:
    """The graph that was kept under a key; None where there is none, or its file is damaged."""
    file = _file(key)
    try:
        return Architecture.from_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, InvalidArchitecture) as error:
        _logger.info("the traced graph in %s is damaged (%s) and made again", file, error)
        return None


def keep_trace(key: str, architecture: Architecture) -> None:
    """Keeps a graph; where the folder cannot be written it is traced again next time."""
    file = _file(key)
    try:
        write_text(file, architecture.to_json())
        _drop_oldest(file.parent)
    except OSError as error:
        _logger.info("the traced graph cannot be kept in %s: %s", file, error)


def _file(key: str) -> Path:
    return cache_folder() / "traces" / f"{key}.json"


def _drop_oldest(folder: Path) -> None:
    files = list(folder.glob("*.json"))
    if len(files) > MAX_ENTRIES:
        files.sort(key=lambda file: file.stat().st_mtime)
        for file in files[:-MAX_ENTRIES]:
            file.unlink(missing_ok=True)
