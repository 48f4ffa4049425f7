"""The cache folder follows the environment."""

from pathlib import Path

import pytest

from raysearch.cache import cache_folder


def test_the_own_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSEARCH_CACHE", "/somewhere/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/shared")
    assert cache_folder() == Path("/somewhere/own")


def test_the_desktop_standard_comes_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYSEARCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/shared")
    assert cache_folder() == Path("/somewhere/shared/raysearch")


def test_the_home_folder_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYSEARCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "raysearch"
