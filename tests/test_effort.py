"""What ends a search besides its trials: epochs that were really trained, and seconds."""

import itertools
from dataclasses import replace

import pytest

from raysearch.config import load_config
from raysearch.effort import Effort
from raysearch.observations import ObservationLog
from raysearch.plan import effort_of
from raysearch.stages import SearchStage
from searchers.algorithm import Observation, Proposal


class Counting:
    """Proposes "s0", "s1", ... without an end."""

    def __init__(self):
        self._numbers = itertools.count()

    def ask(self):
        return Proposal(f"s{next(self._numbers)}", {})

    def tell(self, observation):
        pass


def stage(folder, effort):
    log = ObservationLog(folder / "observations.jsonl")
    algorithm = Counting()
    return SearchStage("search", algorithm, num_trials=100, log=log, identify=str, effort=effort)


def ended(proposal, epochs, seconds=1.0):
    status = "full" if epochs == 4 else "stopped"
    metrics = {"epochs_done": float(epochs), "seconds": seconds}
    return Observation(
        proposal.architecture, 0.5, epochs / 4, status, metrics=metrics, extra=proposal.extra
    )


def run(search, trained):
    """One student after the other; `trained` are the epochs that each gets in turn."""
    for epochs in trained:
        proposal = search.ask()
        if proposal is None:
            break
        search.tell(ended(proposal, epochs))
    return [record["epochs_done"] for record in search.log.records]


def test_the_same_epochs_are_more_students_where_some_are_stopped_early(tmp_path):
    effort = Effort(epochs=16, epochs_of_trial=4)
    assert stage(tmp_path / "new", effort).num_total == 4
    assert run(stage(tmp_path / "a", effort), itertools.repeat(4)) == [4, 4, 4, 4]
    early = run(stage(tmp_path / "b", effort), itertools.cycle([4, 2, 2]))
    assert early == [4, 2, 2, 4, 2]  # 14: what is left holds no whole training
    assert sum(early) <= 16


def test_students_in_training_are_counted_as_whole_ones(tmp_path):
    search = stage(tmp_path, Effort(epochs=9, epochs_of_trial=4))
    first, second = search.ask(), search.ask()
    assert search.ask() is None
    assert not search.done
    search.tell(ended(first, 1))
    third = search.ask()  # 1 + 4 running + 4
    assert third is not None
    search.tell(ended(second, 4))
    search.tell(ended(third, 4))
    assert search.done
    assert search.ask() is None


def test_a_search_that_is_continued_goes_on_counting(tmp_path):
    effort = Effort(epochs=12, epochs_of_trial=4)
    run(stage(tmp_path, effort), [4, 4])
    assert run(stage(tmp_path, effort), itertools.repeat(4)) == [4, 4, 4]


def test_seconds_end_a_search_and_those_of_proposing_count(tmp_path):
    search = stage(tmp_path, Effort(seconds=2.5))
    assert len(run(search, itertools.repeat(4))) == 3
    assert Effort(seconds=2.0).allows_another([{"seconds": 1.5, "propose_s": 0.4}], 0)
    assert not Effort(seconds=2.0).allows_another([{"seconds": 1.5, "propose_s": 0.6}], 0)
    busy = {"seconds": 9.0, "cpu_seconds": 1.5, "device": "cpu", "propose_s": 0.4}
    assert Effort(seconds=2.0).allows_another([busy], 0)
    # one running student counts as the average of those before
    assert not Effort(seconds=2.0).allows_another([{"seconds": 1.0}], 1)


def test_the_time_that_a_method_takes_is_in_the_log(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("raysearch.stages.time.perf_counter", lambda: float(next(clock)))
    search = stage(tmp_path, Effort())
    run(search, [4, 4])
    # each ask and each tell takes one tick; a tell is booked on the next student
    assert [record["propose_s"] for record in search.log.records] == [1.0, 2.0]


@pytest.mark.parametrize("effort", [Effort(), Effort(epochs=10**6), Effort(seconds=1e6)])
def test_the_trials_still_end_it(tmp_path, effort):
    log = ObservationLog(tmp_path / "log.jsonl")
    search = SearchStage("search", Counting(), num_trials=2, log=log, identify=str, effort=effort)
    assert len(run(search, itertools.repeat(4))) == 2
    assert search.done


def test_the_epochs_of_all_initialisations_count(tmp_path):
    """5 initialisations of 4 epochs are 20 epochs of a search, however far a student is on its own scale."""
    search = stage(tmp_path, Effort(epochs=60, epochs_of_trial=20))
    assert search.num_total == 3
    for _ in range(2):
        told = ended(search.ask(), 4)
        search.tell(replace(told, metrics={**told.metrics, "epochs_trained": 20.0}))
    assert search.log.records[-1]["epochs_trained"] == 20
    assert search.ask() is not None
    assert search.ask() is None  # 40 spent, 20 running
    assert effort_of(load_config({"distill": {"epochs": 5, "repeats": 5}})).epochs_of_trial == 25
