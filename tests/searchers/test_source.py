"""Another run's search, read from its folder."""

from __future__ import annotations

import dataclasses
import json

import pytest

from raysearch.errors import ConfigError
from searchers.source import read_source
from searchers.testing import make_chain_space
from tests.searchers.multi_kernel_bo.conftest import some_observed


def write_run(folder, space, observations, torn=""):
    """The files of a run's folder that a search leaves."""
    (folder / "teacher").mkdir(parents=True)
    (folder / "teacher" / "architecture.json").write_text(space.teacher.to_json(), "utf-8")
    operations = ", ".join(space.operations)
    (folder / "config.yaml").write_text(
        f"space: {{operations: [{operations}], grouping: coupled, divisor: null, min_channels: 1}}\n",
        "utf-8",
    )
    lines = [
        {
            "architecture": one.architecture,
            "value": one.value,
            "fidelity": one.fidelity,
            "status": one.status,
            **one.metrics,
        }
        for one in observations
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + torn
    (folder / "observations.jsonl").write_text(text, "utf-8")
    return folder


@pytest.fixture
def chain():
    return make_chain_space((8, 8, 8))


def test_a_run_gives_its_space_and_its_full_observations(tmp_path, chain):
    observed = some_observed(chain, 5)
    source = read_source(write_run(tmp_path / "run", chain, observed, torn='{"status":"full'))
    assert source.space.teacher == chain.teacher
    assert [one.architecture for one in source.full] == [one.architecture for one in observed]
    assert [one.value for one in source.full] == [one.value for one in observed]
    assert source.full[0].metrics["accuracy"] == observed[0].metrics["accuracy"]


def test_whole_networks_are_read_where_they_are_wanted(tmp_path, chain):
    edits = some_observed(chain, 4)
    whole = [
        dataclasses.replace(one, architecture=chain.apply(one.architecture).to_compact())
        for one in edits[:2]
    ]
    folder = write_run(tmp_path / "run", chain, [*edits[2:], *whole])
    texts = [one.architecture for one in read_source(folder, whole=True).full]
    assert texts == [one.architecture for one in [*edits[2:], *whole]]
    assert [one.architecture for one in read_source(folder).full] == texts[:2]
    folder = write_run(tmp_path / "chains", chain, whole)
    with pytest.raises(ConfigError, match="has 0 full observations of students that are edits"):
        read_source(folder)


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"search\.warm_start is .* which is no folder of a run"):
        read_source(str(tmp_path))


def test_a_run_that_knows_next_to_nothing_is_refused(tmp_path, chain):
    folder = write_run(tmp_path / "run", chain, some_observed(chain, 1))
    with pytest.raises(ConfigError, match="has 1 full observations, but 2 are needed"):
        read_source(folder)


@pytest.mark.parametrize("path", [7, "", ["runs/a"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ConfigError, match=r"search\.warm_start must be the folder of a run"):
        read_source(path)
