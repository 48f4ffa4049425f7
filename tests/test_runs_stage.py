"""The stage of runs before a search: order, logs, effort, and what a killed process finds again. Ray is not needed."""

from __future__ import annotations

import json

import pytest

from raysearch.effort import Effort
from raysearch.observations import ObservationLog
from raysearch.pipeline import Pipeline
from raysearch.runs_stage import RunsStage
from raysearch.stages import Candidate, FinishStage, SearchStage
from searchers.algorithm import Exhausted, Observation
from searchers.testing import make_chain_space
from tests.trainables.bayesnas.tiny import TinyAlgorithm


@pytest.fixture(scope="module")
def space():
    return make_chain_space((8, 8, 8))


def make(folder, space, num_trials=4, effort=None, **options):
    """A pipeline of runs and search, as a plan makes it."""
    method = TinyAlgorithm(space, num_trials=num_trials, **{"lambdas": [0.1, 0.2, 0.3], **options})
    runs = RunsStage(
        method, log=ObservationLog(folder / "runs.jsonl"), architecture_id=space.teacher.id
    )
    search = SearchStage(
        "search",
        method,
        num_trials=num_trials,
        log=ObservationLog(folder / "observations.jsonl"),
        identify=space.architecture_id,
        beside=runs.log.records,
        **({} if effort is None else {"effort": effort}),
    )
    return Pipeline([runs, search]), runs, search


def outcome(space, proposal, found=3):
    """What a trial would have told: a run finds students, a student has a value."""
    stage = proposal.extra["stage"]
    details = {"status": "ok"}
    if stage == "runs":
        texts = map(str, space.sample(found, seed=proposal.extra["run"]))
        students = [
            {"architecture": text, "reward": 0.1 * place} for place, text in enumerate(texts)
        ]
        details["students"] = json.dumps(students)  # as trials report them
    return Observation(
        proposal.architecture,
        0.5,
        1.0,
        "full",
        (0.5,),
        metrics={"epochs_done": 4.0, "lam": proposal.extra.get("lam", 0.0)},
        extra=proposal.extra,
        details=details,
    )


def test_runs_come_first_and_students_fill_the_slots_that_they_leave(tmp_path, space):
    pipeline, runs, search = make(tmp_path, space)
    going = [pipeline.ask() for _ in range(3)]
    assert [one.extra["stage"] for one in going] == ["runs"] * 3
    assert [one.extra["run"] for one in going] == [0, 1, 2]
    assert pipeline.ask() is None
    pipeline.tell(outcome(space, going[1]))
    student = pipeline.ask()  # while two runs are going
    assert student.extra["stage"] == "search"
    assert (student.extra["start"], student.extra["from_run"]) == ("run", 1)
    assert [one.extra["run"] for one in runs.unfinished] == [0, 2]
    pipeline.tell(outcome(space, going[0]))
    pipeline.tell(outcome(space, going[2]))
    assert (runs.done, runs.num_finished, runs.num_total) == (True, 3, 3)
    pipeline.tell(outcome(space, student))
    while not pipeline.done:
        pipeline.tell(outcome(space, pipeline.ask()))
    with pytest.raises(Exhausted):
        pipeline.ask()
    assert search.num_finished == 4
    assert [record["stage"] for record in search.log.records] == ["search"] * 4
    assert {record["start"] for record in search.log.records} == {"run"}
    assert runs.counts() == {"full": 3}
    assert [len(record["students"]) for record in runs.log.records] == [3, 3, 3]


def test_a_killed_process_repeats_what_was_going_and_nothing_else(tmp_path, space):
    pipeline, runs, search = make(tmp_path, space)
    going = [pipeline.ask() for _ in range(3)]
    pipeline.tell(outcome(space, going[1]))
    student = pipeline.ask()
    pending = [*runs.unfinished, *search.unfinished]

    pipeline, runs, search = make(tmp_path, space)
    runs.requeue(one for one in pending if one.extra["stage"] == "runs")
    search.requeue(one for one in pending if one.extra["stage"] == "search")
    assert not runs.done
    again = [pipeline.ask() for _ in range(3)]
    assert again[:2] == [going[0], going[2]]
    assert again[2] == student
    for one in again:
        pipeline.tell(outcome(space, one))
    pipeline.tell(outcome(space, going[0]))  # a second time
    assert sorted(record["run"] for record in runs.log.records) == [0, 1, 2]
    assert {record["run"]: record["lam"] for record in runs.log.records} == {0: 0.1, 1: 0.2, 2: 0.3}


def test_all_runs_known_is_done_and_a_longer_list_is_not(tmp_path, space):
    pipeline, runs, _ = make(tmp_path, space)
    for _ in range(3):
        pipeline.tell(outcome(space, pipeline.ask()))
    assert make(tmp_path, space)[1].done
    pipeline, runs, _ = make(tmp_path, space, lambdas=[0.3, 0.1, 0.2, 0.4])
    assert not runs.done
    assert runs.num_total == 4
    run = pipeline.ask()
    assert (run.extra["run"], run.extra["lam"]) == (3, 0.4)


def test_runs_that_find_nothing_end_the_search(tmp_path, space):
    pipeline, _, search = make(tmp_path, space)
    for _ in range(3):
        pipeline.tell(outcome(space, pipeline.ask(), found=0))
    with pytest.raises(Exhausted):
        pipeline.ask()
    assert search.done
    assert search.num_finished == 0


def test_the_epochs_of_runs_count_as_the_search_s_effort(tmp_path, space):
    """Three runs of four epochs leave eight of twenty, two students of four."""
    effort = Effort(epochs=20, epochs_of_trial=4)
    pipeline, _, search = make(tmp_path, space, num_trials=9, effort=effort)
    while not pipeline.done:
        pipeline.tell(outcome(space, pipeline.ask()))
    assert search.num_finished == 2


def test_the_full_training_may_begin_with_the_weights_of_the_run(tmp_path):
    record = {"architecture": "s1", "architecture_id": "id-s1", "start": "run", "from_run": 4}
    candidate = Candidate.of_record(record, "search")
    stage = FinishStage(
        "finish",
        choose=lambda: [candidate],
        ready=lambda: True,
        log=ObservationLog(tmp_path / "finished.jsonl"),
        asked=set(),
        expected=1,
        epochs=20,
        extra={},
    )
    asked = stage.ask().extra
    assert (asked["start"], asked["from_run"]) == ("run", 4)


def test_another_stage_s_result_is_not_taken_where_the_weights_differ(tmp_path, space):
    """The random baseline trains a student anew that the search trained from the weights of a run."""
    pipeline, _, search = make(tmp_path, space)
    for _ in range(3):
        pipeline.tell(outcome(space, pipeline.ask()))
    pipeline.tell(outcome(space, pipeline.ask()))
    text = search.log.records[0]["architecture"]

    class One:
        def ask(self):
            from searchers.algorithm import Proposal

            return Proposal(text)

        def tell(self, observation): ...
        def state_dict(self): ...
        def load_state_dict(self, state): ...

    random = SearchStage(
        "random",
        One(),
        num_trials=1,
        log=ObservationLog(tmp_path / "random.jsonl"),
        identify=space.architecture_id,
        cache=search.record,
    )
    assert random.ask().architecture == text
