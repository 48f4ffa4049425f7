"""What a method's options mean, as the command line tells it."""

from __future__ import annotations

import re

import pytest

from raysearch.errors import ConfigError
from searchers.manual import entries, options_of
from searchers.registry import METHODS, make_algorithm
from searchers.testing import make_chain_space

DOC = """
A class.

Args:
    space: given.
    a, b: of both,
        on two lines: "x".
    c: (one) line

        and another.

Raises:
    d: no argument.

Attributes:
    e: kept.
"""


@pytest.mark.parametrize("method", METHODS)
def test_the_options_are_those_that_a_method_takes_and_each_has_a_meaning(method):
    options = options_of(method)
    with pytest.raises(ConfigError) as error:
        make_algorithm(method, make_chain_space((8, 8)), options={"no_option": 1})
    listed = re.search(r"valid are (.*)", str(error.value))
    assert [one.name for one in options] == (listed[1].split(", ") if listed else [])
    assert [one.name for one in options if not one.text] == []


@pytest.mark.parametrize("method", ["gp", "evolution", "multi_kernel_bo", "bayes_compression"])
def test_the_defaults_may_be_given_as_they_are_told(method):
    options = {one.name: one.default for one in options_of(method)}
    assert make_algorithm(method, make_chain_space((8, 8)), options=options) is not None


def test_a_docstring_is_read_by_its_entries():
    text = 'of both, on two lines: "x".'
    found = {"space": "given.", "a": text, "b": text, "c": "(one) line and another.", "e": "kept."}
    assert entries(DOC.strip()) == found
    assert entries("") == {}


def test_a_class_of_ones_own_may_say_nothing(tmp_path, monkeypatch):
    (tmp_path / "speechless.py").write_text(
        "class Mine:\n    def __init__(self, space, needed, seed=0, step=2): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    needed, step = options_of("speechless:Mine")
    assert (needed.name, needed.text) == ("needed", "")
    assert (step.name, step.default) == ("step", 2)
    with pytest.raises(ConfigError, match="nope"):
        options_of("nope")
