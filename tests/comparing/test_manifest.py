"""The plan of a comparison: what is equal in all cells, and the sentences about what does not fit."""

from pathlib import Path

import pytest

from raysearch.comparing.manifest import Cell, Manifest, make_manifest, resolve_metric
from raysearch.comparison import open_folder
from raysearch.config import load_config
from raysearch.errors import ConfigError, RunFolderError


def manifest(methods="gp,random", seeds=2, equal="trials", overrides=()):
    return make_manifest(load_config(None, overrides), methods, seeds, equal)


def test_cells_share_teacher_and_data_and_differ_in_method_and_seed():
    plan = manifest(overrides=["run.seed=5", "search.options.num_initial=3"])
    configs = {cell: plan.cell_config(cell, Path("runs")) for cell in plan.cells}
    assert [(cell.seed, cell.method) for cell in configs] == [
        (5, "gp"),
        (5, "random"),
        (6, "gp"),
        (6, "random"),
    ]
    assert {(c.data_seed, c.teacher_seed) for c in configs.values()} == {(5, 5)}
    assert [c.run.seed for c in configs.values()] == [5, 5, 6, 6]
    assert all(c.baselines == [] for c in configs.values())
    # options are those of the method that the configuration names
    assert [c.search.options for c in configs.values()][:2] == [{"num_initial": 3}, {}]


def test_equal_epochs_are_those_of_the_trials_unless_they_are_given():
    plan = manifest(equal="epochs", overrides=["search.trials=8", "distill.epochs=3"])
    assert plan.config.search.epochs == 24
    assert plan.config.search.trials >= 24  # all may be stopped after their first epoch
    given = manifest(equal="epochs", overrides=["search.epochs=50"])
    assert given.config.search.epochs == 50
    assert given.budget == "50 epochs"


def test_a_cell_s_folder_is_a_run_s_name():
    for method in ("gp", "my.package:Search", "_odd:Näme", "x" * 200):
        config = manifest(method).cell_config(Cell(method, 2**31 - 1), Path())
        assert load_config({"run": {"name": config.run.name}})


def test_seeds_are_a_number_or_a_list():
    assert manifest(seeds="3").seeds == (0, 1, 2)
    assert manifest(seeds="7,3,5").seeds == (3, 5, 7)
    assert manifest(seeds="4,").seeds == (4,)
    assert manifest(seeds=[2, 1]).seeds == (1, 2)


BAD = {
    "no method": ({"methods": ""}, "methods: the list is empty"),
    "commas alone": ({"methods": ","}, "methods: the list is empty"),
    "a method twice": ({"methods": "gp,random,gp"}, "'gp' is named twice"),
    "no seed": ({"seeds": 0}, "seeds: 0"),
    "a negative number": ({"seeds": "-3"}, "seeds: -3"),
    "words for seeds": ({"seeds": "three"}, "seeds: 'three'"),
    "a seed twice": ({"seeds": "3,3"}, "seeds: 3 is listed twice"),
    "a negative seed": ({"seeds": "3,-1"}, "seeds: -1"),
    "an empty list": ({"seeds": []}, "seeds: []"),
    "true": ({"seeds": True}, "seeds: True"),
    "another measure": ({"equal": "hours"}, "equal: 'hours'"),
    "seconds without a number": ({"equal": "seconds"}, "search.seconds=60"),
    "epochs for less than one": (
        {"equal": "epochs", "overrides": ["search.epochs=3"]},
        "search.epochs: 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name):
    arguments, words = BAD[name]
    with pytest.raises(ConfigError) as raised:
        manifest(**arguments)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_comparison_is_read_back_and_takes_more_methods_and_seeds(tmp_path):
    first = manifest("gp,random", 2)
    first.write(tmp_path)
    again = Manifest.read(tmp_path)
    assert again == first
    more = manifest("tpe,gp", "5,")
    again.check_same(more, "x")
    joined = again.joined(more)
    assert joined.methods == ("gp", "random", "tpe")
    assert joined.seeds == (0, 1, 5)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("search.trials=9", "search.trials"),
        ("distill.lr=0.2", "distill.lr"),
        ("run.seed=1", "seed"),
        ("budget.params=0.1", "budget.params"),
    ],
)
def test_another_configuration_is_refused_with_the_key(override, key):
    with pytest.raises(ConfigError, match=key):
        manifest().check_same(manifest(overrides=[override]), "mine")


@pytest.mark.parametrize(
    "override", ["resources.cpus=2", "search.concurrency=1", "run.name=other", "search.method=tpe"]
)
def test_what_does_not_touch_the_results_may_change(override):
    manifest().check_same(manifest(overrides=[override]), "mine")


def test_a_folder_without_or_with_a_torn_plan_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no comparison"):
        Manifest.read(tmp_path)
    manifest().write(tmp_path)
    (tmp_path / "comparison.yaml").write_text("methods: [gp")
    with pytest.raises(RunFolderError, match="damaged"):
        Manifest.read(tmp_path)


def test_without_a_name_the_same_command_continues_and_another_configuration_begins_anew(tmp_path):
    def folder(*overrides):
        config = load_config({"run": {"storage": str(tmp_path)}}, overrides)
        plan = make_manifest(config, "gp", 1, "trials")
        return open_folder(plan, config, "compare-digits").name

    (tmp_path / "compare-digits-002").mkdir()  # something else
    names = [folder(), folder(), folder("search.trials=3"), folder(), folder("search.trials=3")]
    first, third = "compare-digits-001", "compare-digits-003"
    assert names == [first, first, third, first, third]


def test_the_metric_follows_the_objective():
    assert resolve_metric("auto", load_config()) == "test_accuracy"
    assert resolve_metric("auto", load_config({"budget": None})) == "reward"
    assert resolve_metric("auto", load_config({"budget": {"accuracy": "98%"}})) == "reward"
    assert resolve_metric("loss", load_config()) == "loss"
    with pytest.raises(ConfigError, match="metric: 'acc'"):
        resolve_metric("acc", load_config())
