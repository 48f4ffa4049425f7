"""Who is trained fully."""

import itertools

import numpy as np
import pytest

from raysearch import load_config, prepare
from raysearch.architecture.sequences import decode_chain
from raysearch.files import RunFiles
from raysearch.plan import first_candidates, make_plan, with_near_misses
from searchers.algorithm import Exhausted, Observation, Proposal


def record(name, value, num_params):
    return {"architecture_id": name, "value": value, "num_params": num_params}


FULL = [
    record("a", 1.9, 100),
    record("b", 1.8, 200),
    record("c", 1.7, 300),
    record("small", 0.99, 90),
    record("large", 0.98, 400),
    record("smaller", 0.9, 20),
]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["a"]),
        (2, ["a", "b"]),
        (3, ["a", "b", "small"]),
        (6, ["a", "b", "c", "large", "small", "smaller"]),
    ],
)
def test_a_third_of_the_finalists_are_smaller_ones_that_nearly_reached_the_floor(count, expected):
    chosen = with_near_misses(FULL[:count], FULL, "params")
    assert [one["architecture_id"] for one in chosen] == expected


def test_where_none_reached_the_floor_the_most_accurate_are_trained():
    missed = FULL[3:]
    assert with_near_misses(missed[:3], missed, "params") == missed
    assert with_near_misses([], [], "params") == []


def trained_by(config, folder):
    """What a run of a configuration trains, as (stage, channels or None, architecture), with made-up results and pruned students."""
    problem = prepare(load_config(config))

    def pruned(forms):
        made = problem.space.sample(4, seed=5)
        places = {"l2": 0, "taylor": 1, "ours-l1": 2, "ours-taylor": 3}
        return [Proposal(str(made[places[form]]), {"channels": f"prune-{form}"}) for form in forms]

    plan = make_plan(problem, RunFiles(folder), on_change=lambda: None, pending=[], pruned=pruned)
    trained, values = [], itertools.count(1)
    for _ in range(100):
        try:
            proposal = plan.pipeline.ask()
        except Exhausted:
            return problem, trained
        assert proposal is not None, "nothing is running, so something must be proposed"
        extra = proposal.extra
        trained.append((extra["stage"], extra.get("channels"), proposal.architecture))
        value = 1 / next(values)
        size = float(problem.space.apply(proposal.architecture).num_params)
        numbers = {"num_params": size, "accuracy": value, "loss": 1.0}
        plan.pipeline.tell(
            Observation(proposal.architecture, value, 1.0, "full", metrics=numbers, extra=extra)
        )
    raise AssertionError("the run never ends")


def test_first_candidates_are_evaluated_in_their_order_and_keep_their_channels(tmp_path):
    search = {"method": "evolution", "trials": 4, "first": ["ours-l1", "uniform", "ours-taylor"]}
    config = {"search": search, "baselines": [], "finish": {"students": 2}}
    problem, trained = trained_by(config, tmp_path)
    assert [channels for stage, channels, _ in trained if stage == "search"] == [
        "prune-ours-l1",
        None,
        "prune-ours-taylor",
        None,
    ]
    assert trained[1][2] == str(problem.space.uniform())
    finished = {(channels, text) for stage, channels, text in trained if stage == "finish"}
    assert finished == {trained[0][1:], trained[2][1:]}
    assert [text for stage, _, text in trained if stage == "uniform"] == [trained[1][2]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [None, "prune-ours-l1", "prune-ours-taylor"]),
        ({"budget": None}, [None] * 3),  # nothing to prune to
        ({"budget": {"accuracy": "90%"}}, [None] * 3),
    ],
)
def test_auto_begins_with_a_pruned_student_where_there_is_a_size_to_prune_to(
    tmp_path, changes, expected
):
    search = {"method": "evolution", "trials": 3}
    config = {"search": search, "baselines": [], "finish": {"students": 1}, **changes}
    _, trained = trained_by(config, tmp_path)
    assert [channels for stage, channels, _ in trained if stage == "search"] == expected


def test_the_uniform_student_is_trained_where_the_search_ended_before_it(tmp_path):
    search = {"method": "evolution", "trials": 1, "first": ["ours-l1", "uniform"]}
    config = {"search": search, "baselines": [], "finish": {"students": 1}}
    _, trained = trained_by(config, tmp_path)
    assert sorted(stage for stage, _, _ in trained) == ["finish", "search", "uniform"]


@pytest.mark.parametrize("budget", [{"params": 0.05}, {"accuracy": "90%"}])
def test_the_scaled_students_that_a_search_begins_with_say_their_origin(budget):
    search = {"trials": 16, "first": ["uniform"]}
    problem = prepare(load_config({"search": search, "budget": budget}))
    found = first_candidates(problem.config, problem.space, floor=problem.floor, size="params")
    assert found
    assert {proposal.extra["origin"] for proposal in found} == {"uniform"}


def test_an_empty_list_of_first_candidates_leaves_all_trials_to_the_method(tmp_path):
    search = {"method": "evolution", "trials": 3, "first": []}
    config = {"search": search, "baselines": ["random"], "finish": {"students": 1}}
    problem, trained = trained_by(config, tmp_path)
    stages = [stage for stage, _, _ in trained]
    assert sorted(set(stages)) == ["finish", "random", "random_finish", "search"]
    assert stages.count("search") == 3
    first = first_candidates(problem.config, problem.space, floor=None, size="params")
    assert first == []


@pytest.mark.parametrize("changes", [{"baselines": ["uniform"]}, {"search": {"trials": 2}}])
def test_the_uniform_student_is_left_out_only_where_both_lists_do(tmp_path, changes):
    search = {"method": "random", "trials": 2, "first": []}
    config = {"search": search, "baselines": [], "finish": {"students": 1}, **changes}
    _, trained = trained_by(config, tmp_path)
    assert "uniform" in [stage for stage, _, _ in trained]


def test_random_search_gets_no_first_candidates(tmp_path):
    search = {"method": "random", "trials": 3, "first": ["ours-l1", "uniform"]}
    config = {"search": search, "baselines": [], "finish": {"students": 1}}
    problem, trained = trained_by(config, tmp_path)
    searched = [one for one in trained if one[0] == "search"]
    assert [channels for _, channels, _ in searched] == [None] * 3
    assert str(problem.space.uniform()) not in [text for _, _, text in searched]


def test_the_pruned_baseline_is_searched_and_finished_beside_the_search(tmp_path):
    pytest.importorskip("torch_pruning")
    search = {"method": "random", "trials": 2}
    config = {"search": search, "baselines": ["prune"], "finish": {"students": 1}}
    _, trained = trained_by(config, tmp_path)
    for stage in ("prune", "prune_finish"):
        found = [channels for name, channels, _ in trained if name == stage]
        assert found == ["prune-l2", "prune-taylor"]


class Tiny:
    """A method that proposes networks of its own, smaller than any edit of the teacher."""

    def __init__(self, space):
        self.space = space
        self.kernels = iter((8, 7, 6))

    def ask(self):
        rows = [(1, next(self.kernels), 1, 1, 0), (8, 0, 10, 0, 0)]  # a convolution, a linear layer
        return Proposal(decode_chain(np.array(rows), (1, 8, 8), 10).to_compact())

    def tell(self, observation):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_networks_of_their_own_go_through_all_stages_beside_the_smallest_uniform_student(tmp_path):
    search = {"method": "tests.test_plan:Tiny", "trials": 3, "first": []}
    config = {
        "budget": None,
        "space": {"min_channels": 4},
        "search": search,
        "baselines": ["uniform", "random"],
        "finish": {"students": 2},
        "distill": {"report": ["latency_ms"]},
    }
    problem, trained = trained_by(config, tmp_path)
    by_stage = {
        stage: [text for name, _, text in trained if name == stage] for stage, *_ in trained
    }
    assert set(by_stage) == {"search", "random", "uniform", "finish", "random_finish"}
    sizes = [problem.space.apply(text).num_params for text in by_stage["search"]]
    smallest = problem.space.smallest()
    assert max(sizes) < problem.space.num_params(smallest)[0]
    assert by_stage["uniform"] == [str(smallest)]
    assert set(by_stage["finish"]) < set(by_stage["search"])
