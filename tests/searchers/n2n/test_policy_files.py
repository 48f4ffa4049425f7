"""Trained policies in a folder, and a search that begins with them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raysearch.errors import ConfigError
from searchers.n2n.algorithm import N2NAlgorithm
from searchers.registry import make_algorithm
from searchers.testing import make_chain_space, run


def space_of(depth):
    return make_chain_space((8,) * depth, grouping="by_size")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A search of some updates in both stages, and the run's folder that it was written to."""
    space = space_of(3)
    algorithm = N2NAlgorithm(space, num_trials=20, rollouts=2)
    run(algorithm, space, 20)
    assert {row["stage"] for row in algorithm.history()} == {"remove", "shrink"}
    folder = tmp_path_factory.mktemp("run")
    algorithm.write_knowledge(folder / "policy")
    return algorithm, folder


def test_the_folder_holds_weights_history_and_table(trained):
    algorithm, folder = trained
    names = sorted(path.name for path in (folder / "policy").iterdir())
    assert names == [
        "policy-remove.json",
        "policy-remove.safetensors",
        "policy-shrink.json",
        "policy-shrink.safetensors",
        "policy.json",
    ]
    written = json.loads((folder / "policy" / "policy.json").read_text())
    assert written == {"history": algorithm.history(), "layers": algorithm.policy_table()}
    assert {row["stage"] for row in written["layers"]} == {"remove", "shrink"}


@pytest.mark.parametrize("given", ["policy", "warm_start"])
def test_a_policy_of_a_network_of_another_depth_is_learned_on(trained, given):
    source, folder = trained
    space = space_of(6)
    path = str(folder / "policy" if given == "policy" else folder)
    options = {"policy": path} if given == "policy" else {}
    warm_start = path if given == "warm_start" else None
    algorithm = make_algorithm("n2n", space, 1, options, warm_start=warm_start, num_trials=20)
    assert isinstance(algorithm, N2NAlgorithm)
    algorithm.ask()
    weights = algorithm._controllers["remove"].weights()
    for name, value in source._controllers["remove"].weights().items():
        np.testing.assert_array_equal(value, weights[name])
    fresh = N2NAlgorithm(space, seed=1, num_trials=20)
    fresh.ask()
    assert any(
        (value != weights[name]).any()
        for name, value in fresh._controllers["remove"].weights().items()
    )
    assert len(run(algorithm, space, 8)) == 8


def test_a_critic_that_the_policy_lacks_is_fresh(trained):
    source, folder = trained
    space = space_of(4)
    algorithm = N2NAlgorithm(space, policy=str(folder / "policy"), actor_critic=True)
    algorithm.ask()
    weights = algorithm._controllers["remove"].weights()
    assert "critic.weight" in weights
    np.testing.assert_array_equal(
        weights["head.bias"], source._controllers["remove"].weights()["head.bias"]
    )


def test_a_policy_is_written_before_anything_was_learned(tmp_path):
    N2NAlgorithm(space_of(3)).write_knowledge(tmp_path / "policy")
    written = json.loads((tmp_path / "policy" / "policy.json").read_text())
    assert written == {"history": [], "layers": []}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"raw_features": True},
            "raw_features False, but this search has True: set .*raw_features",
        ),
        ({"hidden_removal": 8}, "hidden 30, but this search has 8: set .*hidden_removal"),
        ({"hidden_shrinkage": 8}, "hidden 50, but this search has 8: set .*hidden_shrinkage"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(trained, options, message):
    with pytest.raises(ConfigError, match=message):
        N2NAlgorithm(space_of(3), policy=str(trained[1] / "policy"), **options)


def test_a_folder_without_policies_is_refused(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"search\.options\.policy .*has no policy-remove\.json"):
        N2NAlgorithm(space_of(3), policy=str(tmp_path))
    with pytest.raises(ConfigError, match=r"search\.warm_start .*has no policy-remove\.json"):
        N2NAlgorithm(space_of(3), warm_start=str(trained[1] / "policy"))
    for bad in (3, ""):
        with pytest.raises(ConfigError, match="must be a folder"):
            N2NAlgorithm(space_of(3), policy=bad)
    with pytest.raises(ConfigError, match="give one of them"):
        N2NAlgorithm(space_of(3), policy="a", warm_start="b")


def test_files_that_are_no_policy_are_refused(trained, tmp_path):
    _, folder = trained
    about = (folder / "policy" / "policy-remove.json").read_text()
    for text, weights in ((about, b"nonsense"), ("[1, 2]", b""), (about, None)):
        (tmp_path / "policy-remove.json").write_text(text)
        if weights is not None:
            (tmp_path / "policy-remove.safetensors").write_bytes(weights)
        else:  # another network's
            data = (folder / "policy" / "policy-shrink.safetensors").read_bytes()
            (tmp_path / "policy-remove.safetensors").write_bytes(data)
        with pytest.raises(ConfigError, match="give the folder of another search"):
            N2NAlgorithm(space_of(3), policy=str(tmp_path))
