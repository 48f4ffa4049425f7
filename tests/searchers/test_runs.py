"""Methods whose students come out of runs: both faces, their order, and what a log brings back."""

import json
from dataclasses import replace

import pytest

from raysearch.errors import ConfigError, InvalidArchitecture
from raysearch.observations import from_record, to_record
from searchers.algorithm import Exhausted, Observation
from searchers.registry import make_algorithm
from searchers.runs import MakesRuns
from searchers.state import dump_state, load_state
from searchers.testing import make_chain_space
from searchers.tracking import LiveTrial
from searchers.tune import TuneSearcher
from tests.trainables.bayesnas.tiny import TinyAlgorithm

METHOD = "tests.trainables.bayesnas.tiny:TinyAlgorithm"


@pytest.fixture(scope="module")
def space():
    return make_chain_space((8, 8, 8))


def texts_of(space, count, seed=0):
    return [str(edits) for edits in space.sample(count, seed=seed)]


def outcome(proposal, texts, value=0.5, status="full"):
    """A run that found students, the later the better."""
    students = [
        {"architecture": text, "epoch": place, "reward": 0.1 * place}
        for place, text in enumerate(texts)
    ]
    return Observation(
        proposal.architecture,
        None if status == "failed" else value,
        1.0,
        status,
        (0.1, value),
        extra=proposal.extra,
        details={"students": students, "status": "ok"},
    )


def asked(algorithm, limit=100):
    """Everything that can be asked for now."""
    found = []
    for _ in range(limit):
        try:
            proposal = algorithm.ask()
        except Exhausted:
            return found, "end"
        if proposal is None:
            return found, "wait"
        found.append(proposal)
    raise AssertionError("no end")


def test_runs_are_of_the_teacher_with_number_lambda_and_settings(space):
    algorithm = TinyAlgorithm(space, lambdas=[0.1, 0.01], epochs=7)
    runs = [algorithm.ask_run(), algorithm.ask_run()]
    with pytest.raises(Exhausted):
        algorithm.ask_run()
    assert [run.architecture for run in runs] == [str(space.largest())] * 2
    assert [(run.extra["run"], run.extra["lam"]) for run in runs] == [(0, 0.1), (1, 0.01)]
    assert runs[0].extra["settings"] == {"epochs": 7, "lr": 0.02, "breaks_at": None}
    assert algorithm.num_runs == 2
    assert algorithm.run_epochs == 7
    assert isinstance(algorithm, MakesRuns)


def test_students_come_in_turn_the_best_of_the_best_run_first(space):
    algorithm = TinyAlgorithm(space, lambdas=[0.1, 0.2, 0.3])
    a, b, c, d, e, f = texts_of(space, 6)
    runs = [algorithm.ask_run() for _ in range(3)]
    assert asked(algorithm) == ([], "wait")
    algorithm.tell_run(outcome(runs[0], [a, b], 0.4))
    algorithm.tell_run(outcome(runs[1], [c, b, d], 0.6))
    algorithm.tell_run(outcome(runs[2], [e, f], 0.9, "stopped"))
    found, end = asked(algorithm)
    # run 1 is the best whole one, run 2 was stopped; b is found twice and asked for once
    assert [one.architecture for one in found] == [d, b, f, a, e, c]
    assert [one.extra["from_run"] for one in found] == [1, 0, 2, 0, 2, 1]
    assert {one.extra["start"] for one in found} == {"run"}
    assert found[0].extra["found_epoch"] == 2
    assert end == "end"


def test_the_first_run_to_end_takes_no_more_than_its_share(space):
    algorithm = TinyAlgorithm(space, lambdas=[0.1, 0.2], num_trials=4)
    texts = texts_of(space, 8)
    runs = [algorithm.ask_run() for _ in range(2)]
    algorithm.tell_run(outcome(runs[1], texts[:4]))
    first, end = asked(algorithm)
    assert [one.architecture for one in first] == [texts[3], texts[2]]
    assert end == "wait"
    algorithm.tell_run(outcome(runs[0], texts[4:]))
    rest, end = asked(algorithm)
    assert len(rest) == 6
    assert end == "end"


def test_a_student_of_several_runs_begins_with_the_run_that_valued_it_most(space):
    """The runs' own measurements count: not their order, nor how good the runs are as a whole."""
    algorithm = TinyAlgorithm(space, lambdas=[0.1, 0.2, 0.3])
    runs = [algorithm.ask_run() for _ in range(3)]
    same, other = texts_of(space, 2)
    for run, value, found in (
        (0, 0.9, [(same, 0.3), (other, 0.1)]),
        (1, 0.2, [(same, 0.5)]),
        (2, 0.8, [(same, None), (other, 0.1)]),
    ):
        students = [
            {"architecture": text, "epoch": 10 * run, "reward": reward} for text, reward in found
        ]
        told = outcome(runs[run], [], value)
        algorithm.tell_run(replace(told, details={"students": students}))
    proposals = {one.architecture: one.extra for one in asked(algorithm)[0]}
    assert (proposals[same]["from_run"], proposals[same]["found_epoch"]) == (1, 10)
    assert proposals[other]["from_run"] == 2  # equals: whose turn it is


def test_a_student_that_was_told_is_not_asked_for(space):
    algorithm = TinyAlgorithm(space, lambdas=[0.1])
    a, b = texts_of(space, 2)
    algorithm.tell(Observation(b, 0.5, 1.0, "full"))
    algorithm.tell_run(outcome(algorithm.ask_run(), [a, b]))
    assert [one.architecture for one in asked(algorithm)[0]] == [a]


def test_a_failed_run_gives_what_it_found_and_is_not_repeated(space):
    algorithm = TinyAlgorithm(space, lambdas=[0.1])
    run = algorithm.ask_run()
    algorithm.tell_run(outcome(run, texts_of(space, 2), status="failed"))
    algorithm.repeat_run(run)
    with pytest.raises(Exhausted):
        algorithm.ask_run()
    assert len(asked(algorithm)[0]) == 2


@pytest.mark.parametrize("search", ["grid", "tpe"])
def test_logs_and_the_runs_that_were_going_give_back_the_same(space, search):
    """As if the process had died with one run told and one going."""

    def make():
        return TinyAlgorithm(space, seed=3, lambda_search=search, num_runs=6, num_trials=12)

    algorithm = make()
    first, going = algorithm.ask_run(), algorithm.ask_run()
    told = outcome(first, texts_of(space, 3), 0.5)
    algorithm.tell_run(told)
    student = algorithm.ask()
    algorithm.tell(Observation(student.architecture, 0.7, 1.0, "full", extra=student.extra))

    record = json.loads(json.dumps(to_record(told)))
    again = make()
    again.tell_run(from_record(record))
    again.repeat_run(going)
    again.repeat_run(first)  # is known
    again.tell(Observation(student.architecture, 0.7, 1.0, "full", extra=student.extra))
    assert again.ask_run() == going
    assert again.ask_run() == algorithm.ask_run()
    assert asked(again) == asked(algorithm)
    assert dump_state(again.state_dict()["ledger"]) == dump_state(algorithm.state_dict()["ledger"])


def test_the_state_continues_identically(space):
    algorithm = TinyAlgorithm(space, seed=3, lambda_search="tpe", num_runs=7)
    for value in (0.1, 0.5, 0.3, 0.2):
        algorithm.tell_run(outcome(algorithm.ask_run(), texts_of(space, 2, seed=7), value))
    algorithm.ask_run()
    algorithm.ask()
    text = dump_state(algorithm.state_dict())
    restored = TinyAlgorithm(space, seed=3, lambda_search="tpe", num_runs=7)
    restored.load_state_dict(load_state(text))
    assert dump_state(restored.state_dict()) == text
    assert restored.ask_run() == algorithm.ask_run()
    assert asked(restored) == asked(algorithm)


def test_runs_of_one_architecture_are_different_trials(space):
    algorithm = TinyAlgorithm(space, lambdas=[0.1, 0.2])
    keys = []
    for _ in range(2):
        run = algorithm.ask_run()
        staged = type(run)(run.architecture, {**run.extra, "stage": "runs"})
        keys.append(LiveTrial(staged, "abc").key)
    assert keys == ["runs/abc/0", "runs/abc/1"]
    student = outcome(run, texts_of(space, 1))
    algorithm.tell_run(student)
    assert LiveTrial(algorithm.ask(), "abc").key == "abc"


def test_without_runs_asking_says_what_is_missing(space):
    with pytest.raises(ConfigError, match=r"only a run makes; use `raysearch run`"):
        TinyAlgorithm(space).ask()
    searcher = TuneSearcher(TinyAlgorithm(space))
    assert searcher.suggest("t") == "FINISHED"
    assert isinstance(searcher.error, ConfigError)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epohcs": 3}, ["search.options.epohcs", "lambda_search", "epochs", "lr"]),
        ({"lr": 3}, ["search.options.lr", "3"]),
        ({"num_runs": 0}, ["search.options.num_runs", "0"]),
        ({"num_runs": 3, "lambdas": [0.1]}, ["num_runs", "lambdas"]),
        ({"lambda_range": [0.1, 1], "lambdas": [0.1]}, ["lambda_range", "lambdas"]),
        ({"lambda_search": "tpe", "lambdas": 0.1}, ["lambdas is 0.1", "tpe"]),
        ({"lambda_search": "random"}, ["lambda_search", "grid, tpe"]),
    ],
)
def test_bad_options_are_one_sentence(space, options, words):
    with pytest.raises(ConfigError) as error:
        make_algorithm(METHOD, space, 0, options)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_another_search_cannot_be_begun_with(space):
    with pytest.raises(ConfigError, match=r"search\.warm_start is 'runs/a'"):
        make_algorithm(METHOD, space, 0, {}, warm_start="runs/a")


def test_a_limit_on_latency_is_refused(space, monkeypatch):
    monkeypatch.setitem(space.limits, "latency_ms", 3.0)
    with pytest.raises(ConfigError, match=r"budget\.latency_ms"):
        TinyAlgorithm(space)


def test_students_of_another_space_are_refused_by_name(space):
    algorithm = TinyAlgorithm(space, lambdas=[0.1])
    algorithm.tell_run(outcome(algorithm.ask_run(), ["nonsense"]))
    with pytest.raises(InvalidArchitecture):
        algorithm.ask()
