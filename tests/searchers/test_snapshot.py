"""A restored search is compared with Tune's own snapshot of the trials, also where the two are of different moments."""

from __future__ import annotations

import json

import pytest
from ray import tune
from ray.tune.experiment import Trial

from searchers.snapshot import read_trials
from searchers.tune import TuneSearcher
from tests.searchers.hooks import result_of


@pytest.fixture
def write_snapshot(tmp_path):
    """Writes trials (id, architecture, status, last value or None) the way Tune does."""

    def write(*trials):
        stored = []
        for trial_id, text, status, value in trials:
            trial = Trial(
                "student",
                stub=True,
                trial_id=trial_id,
                config={"architecture": text},
                _setup_default_resource=False,
            )
            trial.placement_group_factory = tune.PlacementGroupFactory([{"CPU": 1}])
            trial.set_status(status)
            if value is not None:
                result = {"reward": value, "epochs_done": 4, "epochs_target": 4}
                trial.update_last_result({**result, "training_iteration": 4})
            stored.append(trial.get_json_state())
        path = tmp_path / "experiment_state-2026-01-01_00-00-00.json"
        path.write_text(json.dumps({"trial_data": stored}))

    return write


@pytest.fixture
def restore(script, make_script, tmp_path):
    """Suggests some students, saves, and restores into another searcher."""

    def restore(num_live, **options):
        searcher = TuneSearcher(script, **options)
        for index in range(num_live):
            searcher.suggest(f"t{index}")
        searcher.save(str(tmp_path / "searcher-state-a.pkl"))
        restored = TuneSearcher(make_script([]), **options)
        restored.restore_from_dir(str(tmp_path))
        return restored

    return restore


def proposed(searcher, count):
    answers = [searcher.suggest(f"n{index}") for index in range(count)]
    return [answer["architecture"] if isinstance(answer, dict) else answer for answer in answers]


def test_a_trial_is_read_as_tune_hands_it_to_a_searcher(write_snapshot, texts, tmp_path):
    write_snapshot(("t0", texts[0], "TERMINATED", 0.5), ("t1", texts[1], "PENDING", None))
    ended, waiting = read_trials(tmp_path)
    assert (ended.trial_id, ended.status, ended.reported) == ("t0", "TERMINATED", True)
    assert ended.result["reward"] == 0.5
    assert ended.result["config/architecture"] == texts[0]
    assert (waiting.status, waiting.reported) == ("PENDING", False)


def test_without_a_snapshot_or_with_a_torn_one_nothing_is_compared(tmp_path):
    assert read_trials(tmp_path) is None
    (tmp_path / "experiment_state-2026-01-01_00-00-00.json").write_text('{"trial_data": [')
    assert read_trials(tmp_path) is None


def test_an_outcome_that_only_tune_has_is_told(write_snapshot, restore, texts):
    write_snapshot(("t0", texts[0], "TERMINATED", 0.5), ("t1", texts[1], "RUNNING", None))
    searcher = restore(2, num_trials=3, metric="reward", mode="min")
    assert proposed(searcher, 2) == [texts[2], None]
    (outcome,) = searcher.observations
    assert (outcome.architecture, outcome.value, outcome.status) == (texts[0], -0.5, "full")
    searcher.on_trial_complete("t1", result_of(texts[1], 0.1))
    assert [one.architecture for one in searcher.algorithm.told] == texts[:2]


def test_trials_that_began_after_the_save_count_and_are_not_proposed_again(
    write_snapshot, restore, texts
):
    """The algorithm, which is of the earlier moment, proposes the first again: it is answered."""
    write_snapshot(("t0", texts[0], "TERMINATED", 0.5), ("t1", texts[1], "RUNNING", None))
    searcher = restore(0, num_trials=3)
    assert proposed(searcher, 1) == [texts[2]]
    assert [one.value for one in searcher.observations] == [0.5]
    searcher.on_trial_complete("t1", result_of(texts[1], 0.1))
    searcher.on_trial_complete("n0", result_of(texts[2], 0.2))
    assert len(searcher.observations) == 3
    assert searcher.suggest("n1") == "FINISHED"


def test_live_trials_that_tune_does_not_know_start_again_at_once(write_snapshot, restore, texts):
    write_snapshot(("t1", texts[1], "RUNNING", None))
    searcher = restore(2, num_trials=3)
    assert proposed(searcher, 2) == [texts[0], texts[2]]


def test_a_crash_that_only_tune_saw_is_a_crash(write_snapshot, restore, texts):
    write_snapshot(("t0", texts[0], "ERROR", 0.5))
    searcher = restore(1, num_trials=1, max_retries=1)
    assert proposed(searcher, 1) == [texts[0]]
    assert searcher.observations == []


def test_what_both_know_is_told_once(write_snapshot, script, make_script, texts, tmp_path):
    write_snapshot(("t0", texts[0], "TERMINATED", 0.5), ("t1", texts[9], "TERMINATED", None))
    searcher = TuneSearcher(script, num_trials=2)
    searcher.suggest("t0")
    searcher.on_trial_complete("t0", result_of(texts[0], 0.5))
    searcher.save(str(tmp_path / "searcher-state-a.pkl"))
    restored = TuneSearcher(make_script([]), num_trials=2)
    restored.restore_from_dir(str(tmp_path))
    assert proposed(restored, 1) == [texts[1]]
    assert len(restored.observations) == 1
