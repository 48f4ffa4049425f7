"""The stages of a run: budgets, order, logs, and what a killed run finds again. Ray is not needed."""

import itertools
import json
from dataclasses import replace

import pytest

from raysearch.observations import ObservationLog, from_record, to_record
from raysearch.pipeline import Pipeline
from raysearch.stages import Candidate, FinishStage, SearchStage
from searchers.algorithm import Exhausted, Observation, Proposal


class Counting:
    """Proposes "s0", "s1", ...; ends after `limit`."""

    def __init__(self, limit=1000):
        self.told = []
        self._numbers = iter(range(limit))

    def ask(self):
        number = next(self._numbers, None)
        if number is None:
            raise Exhausted
        return Proposal(f"s{number}", {})

    def tell(self, observation):
        self.told.append(observation)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def observed(proposal, value, status="full"):
    return Observation(
        architecture=proposal.architecture,
        value=None if status == "failed" else value,
        fidelity=1.0 if status == "full" else 0.5,
        status=status,
        curve=(0.1, value),
        metrics={"accuracy": value, "loss": 1.0, "num_params": 10.0, "epochs_done": 4.0},
        extra=proposal.extra,
        details={"trial_id": "t", "status": "ok", "accuracy_curve": [0.1, value]},
    )


def search_stage(folder, algorithm=None, num_trials=4, name="search", **options):
    return SearchStage(
        name,
        algorithm or Counting(),
        num_trials=num_trials,
        log=ObservationLog(folder / f"{name}.jsonl"),
        identify=lambda text: f"id-{text}",
        **options,
    )


def run_to_end(pipeline, value=lambda text: float(text[1:]) / 100):
    """Evaluates one student after the other; returns what was trained, with its stage."""
    trained = []
    for _ in range(1000):
        try:
            proposal = pipeline.ask()
        except Exhausted:
            return trained
        assert proposal is not None, "nothing is running, so something must be proposed"
        trained.append((proposal.extra["stage"], proposal.architecture))
        pipeline.tell(observed(proposal, value(proposal.architecture)))
    raise AssertionError("the pipeline never ends")


def make_pipeline(folder, num_trials=4, students=2, limit=1000):
    search = search_stage(folder, Counting(limit), num_trials, first=[Proposal("u99")])
    log, asked = ObservationLog(folder / "finished.jsonl"), set()
    common = {"log": log, "asked": asked, "epochs": 20, "extra": {"epochs_per_step": 2}}
    uniform = FinishStage(
        "uniform",
        choose=lambda: [Candidate("u99", "id-u99", "uniform")],
        ready=lambda: "id-u99" in search.known,
        expected=1,
        **common,
    )
    finish = FinishStage(
        "finish",
        choose=lambda: [
            Candidate(r["architecture"], r["architecture_id"], "search", r)
            for r in search.best(students, without=["id-u99"])
        ],
        ready=lambda: search.done,
        expected=students,
        **common,
    )
    return Pipeline([search, uniform, finish])


def test_a_pipeline_searches_then_finishes_the_best_and_the_uniform_student(tmp_path):
    trained = run_to_end(make_pipeline(tmp_path))
    assert trained == [
        ("search", "u99"),
        ("search", "s0"),
        ("search", "s1"),
        ("search", "s2"),
        ("uniform", "u99"),
        ("finish", "s2"),
        ("finish", "s1"),
    ]


def test_slots_that_the_search_cannot_fill_work_on_the_next_stage(tmp_path):
    pipeline = make_pipeline(tmp_path, num_trials=2)
    first, second = pipeline.ask(), pipeline.ask()
    assert (first.architecture, second.architecture) == ("u99", "s0")
    assert pipeline.ask() is None  # the uniform student's short training is not known yet
    pipeline.tell(observed(first, 0.5))
    third = pipeline.ask()
    assert (third.extra["stage"], third.architecture) == ("uniform", "u99")
    assert pipeline.ask() is None  # s0 is still in training
    pipeline.tell(observed(second, 0.6))
    assert pipeline.ask().extra["stage"] == "finish"


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_pipeline_that_is_cut_anywhere_trains_only_what_is_left(tmp_path, cut):
    whole = run_to_end(make_pipeline(tmp_path / "whole"))
    pipeline = make_pipeline(tmp_path / "cut")
    before = []
    for _ in range(cut):
        proposal = pipeline.ask()
        before.append((proposal.extra["stage"], proposal.architecture))
        pipeline.tell(observed(proposal, float(proposal.architecture[1:]) / 100))
    lost = pipeline.ask()  # in training when the process dies

    again = make_pipeline(tmp_path / "cut")
    after = run_to_end(again)
    assert before + after == whole
    assert (lost.extra["stage"], lost.architecture) == after[0]
    assert again.done


def test_students_in_training_when_a_run_was_cut_come_first(tmp_path):
    stage = search_stage(tmp_path)
    stage.requeue([Proposal("s7", {"channels": "own"}), Proposal("s8")])
    asked = [stage.ask() for _ in range(3)]
    assert [proposal.architecture for proposal in asked] == ["s7", "s8", "s0"]
    assert asked[0].extra["channels"] == "own"
    assert stage.in_flight == asked


def test_a_result_is_shared_between_stages_only_for_the_same_channels(tmp_path):
    search = search_stage(tmp_path, first=[Proposal("s0", {"channels": "own"})])
    run_to_end(Pipeline([search]))
    for channels, trained in (("own", 0), ("other", 1), (None, 1)):
        extra = {} if channels is None else {"channels": channels}
        other = search_stage(
            tmp_path,
            name=f"stage-{channels}",
            num_trials=1,
            first=[Proposal("s0", extra)],
            cache=search.record,
        )
        assert len(run_to_end(Pipeline([other]))) == trained, channels


def test_a_student_that_another_stage_is_training_is_waited_for(tmp_path):
    search = search_stage(tmp_path, num_trials=1, first=[Proposal("s0")])
    other = search_stage(
        tmp_path,
        name="other",
        num_trials=1,
        first=[Proposal("s0")],
        cache=search.record,
        busy=search.trains,
    )
    proposal = search.ask()
    assert other.ask() is None
    assert not other.done
    search.tell(observed(proposal, 0.5))
    assert other.ask() is None
    assert other.done
    assert other.log.records[0]["cached"]


def test_the_full_training_keeps_the_channels_of_the_short_one(tmp_path):
    stage = FinishStage(
        "finish",
        choose=lambda: [
            Candidate("s1", "id-s1", "search", None, {"channels": "own"}),
            Candidate("s2", "id-s2", "search"),
        ],
        ready=lambda: True,
        log=ObservationLog(tmp_path / "finished.jsonl"),
        asked=set(),
        expected=2,
        epochs=20,
        extra={},
    )
    assert [stage.ask().extra.get("channels") for _ in range(2)] == ["own", None]


def test_a_longer_budget_extends_a_finished_search(tmp_path):
    run_to_end(make_pipeline(tmp_path, num_trials=4))
    trained = run_to_end(make_pipeline(tmp_path, num_trials=6))
    assert trained == [("search", "s3"), ("search", "s4"), ("finish", "s4"), ("finish", "s3")]


def test_a_space_without_new_students_ends_the_search(tmp_path):
    pipeline = make_pipeline(tmp_path, num_trials=50, limit=2)
    assert (pipeline.num_finished, pipeline.num_total) == (0, 53)
    trained = run_to_end(pipeline)
    assert [text for stage, text in trained if stage == "search"] == ["u99", "s0", "s1"]
    # the uniform student and two others are finished
    assert pipeline.num_finished == pipeline.num_total == len(trained) == 6


def test_what_is_left_is_counted_in_epochs_as_many_as_earlier_students_were_trained(tmp_path):
    pipeline = make_pipeline(tmp_path)  # 4 students, then 3 of 20 epochs
    search, *finishing = pipeline.stages
    assert [stage.epochs_left for stage in finishing] == [20, 40]
    pipeline.tell(observed(pipeline.ask(), 0.9))  # 4 epochs
    assert search.epochs_left == 3 * 4
    stopped = observed(pipeline.ask(), 0.1, "stopped")
    pipeline.tell(replace(stopped, metrics=stopped.metrics | {"epochs_done": 2}))
    assert search.epochs_left == 2 * 3
    pipeline.ask()  # in training, but not finished
    assert pipeline.epochs_left == 2 * 3 + 20 + 40


def test_known_students_are_never_trained_twice(tmp_path):
    class Repeating(Counting):
        def ask(self):
            return Proposal("s1", {})

    stage = search_stage(tmp_path, Repeating())
    stage.tell(observed(stage.ask(), 0.5))
    assert stage.ask() is None
    assert stage.done


def test_results_of_another_stage_are_taken_from_its_log(tmp_path):
    search = search_stage(tmp_path, num_trials=2)
    for _ in range(2):
        search.tell(observed(search.ask(), 0.4))
    algorithm = Counting()
    random = search_stage(tmp_path, algorithm, 3, name="random", cache=search.record)
    proposal = random.ask()
    assert proposal.architecture == "s2"  # s0 and s1 were answered
    assert [(o.architecture, o.value) for o in algorithm.told] == [("s0", 0.4), ("s1", 0.4)]
    assert [record.get("cached") for record in random.log.records] == [True, True]


def test_only_full_observations_can_be_the_best(tmp_path):
    stage = search_stage(tmp_path)
    for value, status in [(0.2, "full"), (0.9, "stopped"), (0.8, "failed"), (0.3, "full")]:
        stage.tell(observed(stage.ask(), value, status))
    assert [record["value"] for record in stage.best(5)] == [0.3, 0.2]


def test_students_that_are_not_admitted_are_the_best_only_after_all_others(tmp_path):
    stage = search_stage(tmp_path, admits=lambda observation: observation.metrics["accuracy"] < 0.5)
    for value in (0.2, 0.9, 0.4, 0.6):
        stage.tell(observed(stage.ask(), value))
    assert [record["value"] for record in stage.best(5)] == [0.4, 0.2, 0.9, 0.6]


def test_a_student_of_two_finishing_stages_is_trained_once(tmp_path):
    log, asked = ObservationLog(tmp_path / "finished.jsonl"), set()
    stages = [
        FinishStage(
            name,
            choose=lambda: [Candidate("s1", "id-s1", "search")],
            ready=lambda: True,
            log=log,
            asked=asked,
            expected=1,
            epochs=20,
            extra={},
        )
        for name in ("finish", "random_finish")
    ]
    pipeline = Pipeline(stages)
    assert run_to_end(pipeline) == [("finish", "s1")]
    assert pipeline.num_finished == pipeline.num_total == 2  # with one trial
    assert stages[1].record(Candidate("s1", "id-s1", "random"))["value"] == 0.01


def test_a_torn_last_line_is_dropped_and_the_log_goes_on(tmp_path):
    file = tmp_path / "log.jsonl"
    log = ObservationLog(file)
    log.append({"a": 1})
    with file.open("a") as stream:
        stream.write('{"a": 2, "b')
    again = ObservationLog(file)
    again.append({"a": 3})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"a": 1}, {"a": 3}]
    assert again.records == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize(
    ("value", "status"), itertools.product([0.25], ["full", "stopped", "failed"])
)
def test_an_observation_survives_its_line_in_the_log(value, status):
    proposal = Proposal("s1", {"stage": "search", "architecture_id": "id-s1", "iteration": 3})
    record = json.loads(json.dumps(to_record(observed(proposal, value, status))))
    assert record["result_status"] == "ok"
    assert record["status"] == status
    assert (record["num_params"], type(record["num_params"])) == (10, int)
    back = from_record(record)
    again = to_record(back)
    again["finished_at"] = record["finished_at"]
    assert again == record


def test_what_is_known_of_a_students_costs_before_its_training_is_in_the_log(tmp_path):
    stage = search_stage(tmp_path, costs=lambda text: {"latency_ms": float(text[1:])})
    run_to_end(Pipeline([stage]))
    records = stage.log.records
    assert [r["latency_ms"] for r in records] == [float(r["architecture"][1:]) for r in records]
