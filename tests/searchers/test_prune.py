"""Pruning as a method: what is proposed, and what it needs."""

import pytest

from raysearch.errors import ConfigError
from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.registry import make_algorithm


def given(space):
    """Students as a run would give them, and the forms that were asked for."""
    asked = []

    def pruned(forms):
        asked.extend(forms)
        students = space.sample(len(forms), seed=1)
        return [
            Proposal(str(student), {"channels": f"prune-{form}"})
            for student, form in zip(students, forms, strict=True)
        ]

    return pruned, asked


def test_each_form_gives_one_student_with_its_channels(toy_space):
    pruned, asked = given(toy_space)
    algorithm = make_algorithm("prune", toy_space, pruned=pruned)
    assert asked == ["l2", "taylor"]
    found = [algorithm.ask() for _ in range(2)]
    assert [one.extra["channels"] for one in found] == ["prune-l2", "prune-taylor"]
    with pytest.raises(Exhausted):
        algorithm.ask()


def test_students_that_were_told_are_not_proposed_again(toy_space):
    pruned, _ = given(toy_space)
    first = make_algorithm("prune", toy_space, pruned=pruned).ask()
    again = make_algorithm("prune", toy_space, pruned=pruned)
    again.tell(Observation(first.architecture, 0.5, 1.0, "full"))
    assert again.ask().extra["channels"] == "prune-taylor"


def test_the_forms_are_an_option(toy_space):
    pruned, asked = given(toy_space)
    make_algorithm("prune", toy_space, 0, {"forms": ["ours-l1"]}, pruned=pruned)
    assert asked == ["ours-l1"]
    with pytest.raises(ConfigError, match=r"search\.options\.forms must list some of l2, taylor"):
        make_algorithm("prune", toy_space, 0, {"forms": ["l1"]}, pruned=pruned)


def test_without_a_teacher_asking_says_what_is_missing(toy_space):
    algorithm = make_algorithm("prune", toy_space)
    with pytest.raises(ConfigError, match="needs the teacher's weights"):
        algorithm.ask()
