"""What a configuration accepts, and the sentences that it refuses with."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from raysearch.api import compress
from raysearch.config import Config, load_config
from raysearch.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_file_is_the_default_run_written_out():
    assert load_config(ROOT / "configs" / "digits.yaml") == Config()


def test_a_resolved_configuration_reads_back_as_itself(tmp_path):
    config = load_config({"budget": {"macs": "60%"}}, ["search.trials=7", "distill.lr=3e-3"])
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file) == config


def test_setting_a_budget_key_replaces_the_default_budget():
    assert load_config(None, ["budget.macs=0.5"]).limits == {"macs": 0.5}


def test_every_kind_of_budget_is_read_as_it_stands(tmp_path):
    budget = {"params": 0.5, "memory": "20%", "latency_ms": 2.0, "accuracy": "98%"}
    config = load_config({"budget": budget})
    assert config.limits == budget
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file) == config
    assert load_config(None, ["budget.accuracy=0.95"]).limits == {"accuracy": 0.95}


def test_no_budget_is_a_choice():
    assert load_config(None, ["budget=null"]).limits == {}


def test_overrides_win_over_the_file_and_keep_its_other_keys(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("search: {trials: 5, method: random}\n")
    config = load_config(file, ["search.trials=9"])
    assert (config.search.trials, config.search.method) == (9, "random")


def test_an_override_by_an_empty_mapping_removes_what_the_file_has():
    base = {"search": {"method": "evolution", "trials": 5, "options": {"population": 3}}}
    config = load_config(base, ["search.method=gp", "search.options={}"])
    assert (config.search.method, config.search.trials, config.search.options) == ("gp", 5, {})


@pytest.mark.parametrize("ranking", ["none", "first", "l1", "taylor", "pruning"])
def test_which_channels_are_inherited_is_a_choice(ranking):
    assert load_config(None, [f"distill.inherit={ranking}"]).distill.inherit == ranking


def test_numbers_in_scientific_notation_are_numbers():
    assert load_config(None, ["distill.lr=1e-3"]).distill.lr == 0.001


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.trails=3", ["search.trails", "unknown key", "'trials'"]),
        ("serch.trials=3", ["serch", "unknown key", "'search'"]),
        ("search.trials=0", ["search.trials", "0", "at least 1"]),
        ("search.trials=many", ["search.trials", "'many'", "whole number"]),
        ("search.trials=1.5", ["search.trials", "1.5", "whole number"]),
        ("search.trials=true", ["search.trials", "True"]),
        ("search=3", ["search", "3", "keys below it"]),
        ("finish.students=0", ["finish.students", "0", "at least 1"]),
        ("distill.lr=.nan", ["distill.lr", "nan"]),
        ("distill.loss=magic", ["distill.loss", "'magic'", "'kd'"]),
        ("baselines=[uniform,none]", ["baselines[1]", "'none'", "'random'"]),
        ("baselines=[uniform,uniform]", ["baselines", "twice"]),
        ("budget.params=[1]", ["budget.params", "fraction"]),
        ("budget={}", ["budget", "no key"]),
        ("budget.latency_ms=0", ["budget.latency_ms", "above 0"]),
        ("budget.latency_ms=fast", ["budget.latency_ms", "'fast'"]),
        ("budget.accuracy=[1]", ["budget.accuracy", "'98%'"]),
        ("budget.accuracy=true", ["budget.accuracy", "True"]),
        ("run.name=a/b", ["run.name", "'a/b'"]),
        ("run.seed=-1", ["run.seed", "-1", "at least 0"]),
        ("data.resize=[1,2,3]", ["data.resize", "[height, width]"]),
        ("distill.schedule=step", ["distill.milestones", "empty"]),
        ("distill.inherit=best", ["distill.inherit", "'best'", "'taylor'"]),
        ("distill.repeats=0", ["distill.repeats", "0"]),
        ("search.trials", ["search.trials", "key.path=value"]),
        ("search.options={", ["search.options={", "YAML"]),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_remedy(override, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("search: [1, 2\n", ["YAML", "line"]),
        ("- a\n- b\n", ["list", "sections"]),
        ("search: {trials: 3}\nsearch: {trials: 4}\n", ["'search'", "twice"]),
        ("3: 4\n", ["3", "not a string"]),
        ("run: !!python/object/apply:os.system ['true']\n", ["YAML"]),
    ],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path, content, words):
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    for word in ["broken.yaml", *words]:
        assert word in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file"):
        load_config("nowhere.yaml")


def test_every_ready_configuration_is_valid():
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert files
    for file in files:
        assert set(yaml.safe_load(file.read_text())) <= set(Config.model_fields)
        load_config(file)


def test_numpy_numbers_are_numbers():
    config = load_config({"run": {"seed": np.int64(3)}, "budget": {"params": np.float32(0.5)}})
    assert type(config.run.seed) is int
    assert (config.run.seed, config.limits) == (3, {"params": 0.5})


def test_one_override_needs_no_list():
    assert load_config(None, "search.trials=2").search.trials == 2


def test_a_configuration_is_taken_again_and_knows_what_was_set():
    first = load_config({"search": {"trials": 2}})
    again = load_config(first, ["run.seed=4"])
    assert (again.search.trials, again.run.seed) == (2, 4)
    assert "data" not in again.model_fields_set


def test_what_is_no_configuration_is_one_sentence():
    with pytest.raises(ConfigError, match=r"^config: it is of type int; give"):
        load_config(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("budget", [0.5, "50%"])
def test_a_budget_of_nothing_named_says_how_to_name_it(budget):
    with pytest.raises(ConfigError, match="budget: ") as caught:
        compress(budget=budget)
    assert f"{{'params': {budget!r}}}" in str(caught.value)


def test_objectives_that_are_offered_are_there():
    with pytest.raises(ConfigError, match=r"choose one of 'auto', 'f', 'naive' or 'accuracy'$"):
        load_config({"objective": "foo"})
