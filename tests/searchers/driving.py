"""An algorithm driven by hand, and its refusals: what the tests of several methods share."""

from __future__ import annotations

import pytest

from raysearch.errors import ConfigError


def ask_and_tell(algorithm, steps, outcome):
    """Asks and tells in turn, `outcome(text)` being the observation of a student: the proposals."""
    proposals = []
    for _ in range(steps):
        proposals.append(algorithm.ask())
        algorithm.tell(outcome(proposals[-1].architecture))
    return proposals


def assert_option_is_refused(make, option, value):
    """One sentence names the option, as a configuration spells it, and the value."""
    with pytest.raises(ConfigError) as error:
        make(**{option: value})
    assert f"search.options.{option} must be" in str(error.value)
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)
