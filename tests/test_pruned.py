"""The pruned students of a run: made once, found again, and refused before anything is computed where they cannot be had."""

import sys
from functools import partial

import numpy as np
import pytest

from raysearch import load_config, prepare
from raysearch.errors import ConfigError, MissingPackageError, WeightsError
from raysearch.models.keep import keep_sets
from raysearch.pruned import PrunedStudents
from raysearch.teaching import labelled_batches

FORMS = ("l2", "taylor", "ours-l1", "ours-taylor")


@pytest.fixture(scope="module")
def problem():
    """An untrained teacher will do."""
    return prepare(load_config({"budget": {"params": 0.1}}))


def students_of(problem, folder):
    return PrunedStudents(problem, folder, partial(labelled_batches, problem))


def test_every_form_is_inside_the_budget_and_says_which_channels_it_keeps(problem, tmp_path):
    pytest.importorskip("torch_pruning")
    students = students_of(problem, tmp_path)
    for proposal, form in zip(students(FORMS), FORMS, strict=True):
        edits = problem.space.parse(proposal.architecture)
        assert problem.space.within_budget(edits)[0]
        assert problem.space.num_params(edits)[0] > 0.85 * problem.space.limits["params"]
        name = proposal.extra["channels"]
        assert name == f"prune-{form}"
        student = problem.space.apply(edits)
        keep = keep_sets(student, problem.architecture, students.rankings[name])
        assert keep.keys() >= {layer.name for layer in student.layers}


def test_a_run_that_is_continued_finds_the_same_students(problem, tmp_path):
    first = students_of(problem, tmp_path)
    proposals = first(["ours-l1", "ours-taylor"])

    def no_batches():
        raise AssertionError("nothing is computed again")

    again = PrunedStudents(problem, tmp_path, no_batches)
    assert again(["ours-l1", "ours-taylor"]) == proposals
    assert again.rankings.keys() == first.rankings.keys()
    for name, scores in first.rankings.items():
        for ours, theirs in zip(again.rankings[name], scores, strict=True):
            assert np.array_equal(ours, theirs)


WANTED = {
    "search.method 'prune'": {"search": {"method": "prune"}},
    "search.first": {"search": {"first": ["uniform", "taylor"]}},
    "baselines": {"baselines": ["prune"]},
}


@pytest.mark.parametrize("field", WANTED)
def test_without_torch_pruning_the_extra_is_named_before_anything_runs(field, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingPackageError, match=rf"{field}: .*pip install 'raysearch\[prune\]'"):
        prepare(load_config(WANTED[field]))


def test_our_own_forms_need_no_torch_pruning(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    options = {"method": "prune", "options": {"forms": ["ours-l1"]}}
    problem = prepare(load_config({"search": options}))
    (proposal,) = students_of(problem, None)(["ours-l1"])
    assert problem.space.within_budget(problem.space.parse(proposal.architecture))[0]


@pytest.mark.parametrize("field", WANTED)
def test_without_a_size_to_prune_to_the_budget_is_asked_for(field):
    for budget in (None, {"accuracy": 0.9}):
        with pytest.raises(ConfigError, match=rf"{field}: pruning needs a size to prune to"):
            prepare(load_config({**WANTED[field], "budget": budget}))


@pytest.mark.filterwarnings("ignore")
def test_a_teacher_that_torch_pruning_does_not_understand_is_refused_before_anything_runs():
    pytest.importorskip("torch_pruning")
    config = {
        "teacher": {"model": "torchvision:shufflenet_v2_x0_5"},
        "data": {"mode": "RGB", "resize": 32},
        "search": {"method": "prune"},
    }
    with pytest.raises(WeightsError, match=r"search.method 'prune': pruning by 'l2' is not"):
        prepare(load_config(config))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.first=[uniform, l3]", r"search\.first"),
        ("search.first=[uniform, uniform]", r"search\.first: .*twice"),
        ("search.options.forms=[l1]", r"search\.options\.forms must list some of l2"),
    ],
)
def test_forms_that_do_not_exist_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        prepare(load_config({"search": {"method": "prune"}}, [override]))
