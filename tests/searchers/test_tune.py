"""The adapter's rules, without Ray: hooks are called as Tune calls them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from raysearch.architecture.edits import Edits
from raysearch.errors import ConfigError, RunError
from searchers.algorithm import Observation
from searchers.tune import ANSWERS_IN_A_ROW, POLLS, TuneSearcher
from tests.searchers.hooks import finish, result_of


def test_a_suggestion_holds_the_architecture_its_id_and_the_extras(script, toy_space, texts):
    suggestion = TuneSearcher(script).suggest("t0")
    assert suggestion == {
        "architecture": texts[0],
        "architecture_id": toy_space.apply(texts[0]).id,
        "step": 0,
    }
    assert json.loads(json.dumps(suggestion)) == suggestion


def test_suggesting_for_the_same_trial_twice_gives_the_same_student(script):
    searcher = TuneSearcher(script)
    assert searcher.suggest("t0") == searcher.suggest("t0")


def test_a_complete_trial_is_told_as_full_with_its_curve(script, texts):
    searcher = TuneSearcher(script)
    searcher.suggest("t0")
    for epoch, value in [(1, 0.1), (2, 0.3), (3, 0.4)]:
        searcher.on_trial_result("t0", result_of(texts[0], value, done=epoch))
    searcher.on_trial_complete(trial_id="t0", result=result_of(texts[0], 0.5), error=False)
    (observation,) = script.told
    assert observation.status == "full"
    assert observation.fidelity == 1.0
    assert observation.value == 0.5
    assert observation.curve == (0.1, 0.3, 0.4, 0.5)
    assert observation.extra == {"step": 0}
    assert searcher.observations == [observation]


def test_a_result_that_arrives_twice_after_a_recovery_counts_once(script, texts):
    searcher = TuneSearcher(script)
    searcher.suggest("t0")
    for epoch, value in [(1, 0.1), (2, 0.2), (2, 0.2), (3, 0.3)]:
        searcher.on_trial_result("t0", result_of(texts[0], value, done=epoch))
    searcher.on_trial_complete(trial_id="t0", result=result_of(texts[0], 0.4))
    assert script.told[0].curve == (0.1, 0.2, 0.3, 0.4)


def test_an_early_stop_is_told_as_stopped_with_its_fidelity(script):
    finish(TuneSearcher(script), "t0", 0.3, done=1, target=4)
    assert (script.told[0].status, script.told[0].fidelity) == ("stopped", 0.25)
    assert script.told[0].value == 0.3


def test_a_trial_without_epochs_counts_as_full_when_it_ends(script):
    searcher = TuneSearcher(script)
    searcher.suggest("t0")
    searcher.on_trial_complete(trial_id="t0", result={"reward": 0.7, "training_iteration": 1})
    assert script.told[0].status == "full"


def test_a_trial_that_ends_without_a_result_keeps_its_last_value_as_stopped(script, texts):
    searcher = TuneSearcher(script)
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result_of(texts[0], 0.2, done=2))
    searcher.on_trial_complete(trial_id="t0", result=None, error=False)
    assert (script.told[0].status, script.told[0].value) == ("stopped", 0.2)


def test_a_pending_trial_that_is_stopped_is_told_as_failed(script):
    searcher = TuneSearcher(script)
    searcher.suggest("t0")
    searcher.on_trial_complete(trial_id="t0", result=None, error=False)
    assert (script.told[0].status, script.told[0].value) == ("failed", None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "high", True])
def test_a_value_that_is_no_finite_number_is_a_failure(script, value):
    finish(TuneSearcher(script), "t0", value)
    assert (script.told[0].status, script.told[0].value) == ("failed", None)


@pytest.mark.parametrize("status", ["invalid", "diverged"])
def test_a_student_that_the_trial_calls_broken_is_a_failure_whatever_its_reward(script, status):
    finish(TuneSearcher(script), "t0", 0.0, status=status)
    assert (script.told[0].status, script.told[0].value) == ("failed", None)


def test_numpy_values_are_taken_as_numbers(script):
    finish(TuneSearcher(script), "t0", np.float32(0.5), accuracy=np.array(0.25))
    assert script.told[0].value == 0.5
    assert script.told[0].metrics["accuracy"] == 0.25


def test_metrics_leave_out_the_config_and_the_books_of_tune(script):
    finish(TuneSearcher(script), "t0", 0.5, time_total_s=3.0, done=4, num_params=7, status="ok")
    metrics = {"reward": 0.5, "epochs_done": 4, "epochs_target": 4, "num_params": 7}
    assert script.told[0].metrics == metrics


def test_mode_min_turns_the_sign(script):
    searcher = TuneSearcher(script, mode="min", metric="loss")
    searcher.suggest("t0")
    searcher.on_trial_result("t0", {"loss": 3.0, "epochs_done": 1, "epochs_target": 2})
    searcher.on_trial_complete(
        trial_id="t0", result={"loss": 2.0, "epochs_done": 2, "epochs_target": 2}
    )
    assert script.told[0].value == -2.0
    assert script.told[0].curve == (-3.0, -2.0)


def test_metric_and_mode_come_from_tune_where_the_constructor_left_them_open(script):
    searcher = TuneSearcher(script, mode="max")
    assert searcher.metric is None
    assert searcher.set_search_properties("score", "min", {"k": 1})
    assert (searcher.metric, searcher.mode) == ("score", "max")


def test_metric_and_mode_have_defaults_when_nobody_gives_them_and_this_is_said_once(script, caplog):
    searcher = TuneSearcher(script)
    for number in range(2):
        searcher.suggest(f"t{number}")
    assert (searcher.metric, searcher.mode) == ("reward", "max")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'reward' is optimised (max); pass both" in caplog.text
    caplog.clear()
    TuneSearcher(script, metric="reward", mode="max").suggest("t0")
    assert caplog.text == ""


def test_a_param_space_with_open_domains_is_refused(script):
    from ray import tune

    searcher = TuneSearcher(script)
    assert not searcher.set_search_properties("reward", "max", {"lr": tune.uniform(0, 1)})
    assert not searcher.set_search_properties("reward", "max", {"lr": tune.grid_search([1, 2])})
    assert searcher.set_search_properties("reward", "max", {"lr": 0.1})


def test_the_limit_of_concurrency_is_kept_and_paused_trials_do_not_count(script):
    searcher = TuneSearcher(script)
    assert searcher.set_max_concurrency(2)
    assert searcher.suggest("t0")
    assert searcher.suggest("t1")
    assert searcher.suggest("t2") is None
    searcher.on_pause("t0")
    assert searcher.suggest("t2")
    searcher.on_unpause("t0")
    assert searcher.suggest("t3") is None
    searcher.on_pause("unknown")
    searcher.on_unpause("unknown")


def test_finished_comes_only_after_the_last_live_trial(script):
    searcher = TuneSearcher(script, num_trials=2)
    first, second = searcher.suggest("t0"), searcher.suggest("t1")
    assert searcher.suggest("t2") is None
    searcher.on_trial_complete(trial_id="t0", result=result_of(first["architecture"], 1.0))
    assert searcher.suggest("t2") is None
    searcher.on_trial_complete(trial_id="t1", result=result_of(second["architecture"], 1.0))
    assert searcher.suggest("t2") == "FINISHED"


def test_an_exhausted_algorithm_ends_the_search(make_script, texts):
    searcher = TuneSearcher(make_script(texts[:1]))
    suggestion = searcher.suggest("t0")
    assert searcher.suggest("t1") is None
    searcher.on_trial_complete(trial_id="t0", result=result_of(suggestion["architecture"], 1.0))
    assert searcher.suggest("t1") == "FINISHED"


def test_a_crashed_student_is_tried_again_without_a_new_proposal(script, texts):
    searcher = TuneSearcher(script, num_trials=1, max_retries=2)
    for attempt in range(3):
        assert searcher.suggest(f"t{attempt}")["architecture"] == texts[0]
        searcher.on_trial_complete(trial_id=f"t{attempt}", result=None, error=True)
    assert [observation.status for observation in script.told] == ["failed"]
    assert searcher.suggest("t3") == "FINISHED"


def test_an_unknown_trial_is_adopted_from_its_config(script, texts):
    searcher = TuneSearcher(script)
    searcher.on_trial_complete(trial_id="other", result=result_of(texts[5], 0.9), error=False)
    nested = {"reward": 0.8, "config": {"architecture": texts[6]}}
    searcher.on_trial_complete(trial_id="another", result=nested, error=False)
    assert [(one.architecture, one.value) for one in script.told] == [
        (texts[5], 0.9),
        (texts[6], 0.8),
    ]


def test_an_unknown_trial_without_an_architecture_is_left_alone(script):
    searcher = TuneSearcher(script)
    searcher.on_trial_result("x", {"reward": 1.0})
    searcher.on_trial_complete(trial_id="x", result={"reward": 1.0, "config/architecture": "no"})
    searcher.on_trial_complete(trial_id="y", result=None, error=True)
    assert script.told == []
    assert searcher.error is None


def test_a_failed_trial_that_the_user_resumes_is_told_again_and_not_retried(script, texts):
    searcher = TuneSearcher(script, max_retries=1)
    searcher.suggest("t0")
    searcher.on_trial_complete(trial_id="t0", result=None, error=True)  # queued
    searcher.on_trial_result("t0", result_of(texts[0], 0.3, done=1))  # resume_errored: the same id
    assert searcher.suggest("t1")["architecture"] == texts[1]
    searcher.on_trial_complete(trial_id="t0", result=result_of(texts[0], 0.6), error=False)
    assert [(one.architecture, one.value) for one in script.told] == [(texts[0], 0.6)]


def test_an_outcome_of_the_cache_answers_without_a_trial(script, toy_space, texts):
    known = Observation(texts[0], 0.4, 1.0, "full")
    searcher = TuneSearcher(script, num_trials=1, cache={toy_space.apply(texts[0]).id: known})
    assert searcher.suggest("t0")["architecture"] == texts[1]
    assert script.told == [replace(known, extra={"step": 0})]
    assert searcher.observations == []
    assert searcher.suggest("t1") is None  # the budget counts trials


def test_a_student_evaluated_in_this_search_is_not_trained_again(make_script, texts):
    script = make_script([texts[0], texts[0], texts[1]])
    searcher = TuneSearcher(script)
    finish(searcher, "t0", 0.5)
    assert searcher.suggest("t1")["architecture"] == texts[1]
    assert [one.value for one in script.told] == [0.5, 0.5]


def test_two_texts_of_one_network_share_their_outcome(make_script):
    twins = [str(Edits((0,), (1, 2, 3))), str(Edits((0,), (5, 2, 3)))]
    script = make_script(twins)
    finish(TuneSearcher(script), "t0", 0.5)
    searcher = TuneSearcher(script := make_script(twins))
    finish(searcher, "t0", 0.5)
    assert searcher.suggest("t1") == "FINISHED"
    assert [one.architecture for one in script.told] == twins


def test_a_duplicate_of_a_running_student_waits_for_its_outcome(make_script, texts):
    script = make_script([texts[0], texts[0], texts[1]])
    searcher = TuneSearcher(script)
    first = searcher.suggest("t0")
    assert searcher.suggest("t1")["architecture"] == texts[1]
    searcher.on_trial_complete(trial_id="t0", result=result_of(first["architecture"], 0.5))
    assert [one.value for one in script.told] == [0.5, 0.5]
    assert len(searcher.observations) == 1


def test_an_algorithm_that_only_repeats_itself_comes_to_an_end(make_script, texts):
    searcher = TuneSearcher(make_script(texts[:1] * (ANSWERS_IN_A_ROW + 50)))
    finish(searcher, "t0", 0.5)
    calls = 0
    while (answer := searcher.suggest("t1")) is None:
        calls += 1
    assert answer == "FINISHED"
    assert calls < ANSWERS_IN_A_ROW


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr("searchers.tune.time.monotonic", lambda: now[0])
    return now


def test_trials_that_tune_lost_are_started_again(script, texts, clock):
    searcher = TuneSearcher(script, num_trials=1)
    searcher.suggest("t0")
    answers = []
    for _ in range(POLLS + 1):
        clock[0] += 1.0
        answers.append(searcher.suggest("t1"))
    assert answers[:-2] == [None] * (POLLS - 1)
    assert answers[-2]["architecture"] == texts[0]


def test_a_running_trial_is_not_taken_for_lost_while_results_come(script, texts, clock):
    searcher = TuneSearcher(script, num_trials=1)
    searcher.suggest("t0")
    for epoch in range(3 * POLLS):
        clock[0] += 1.0
        assert searcher.suggest("t1") is None
        if epoch % 20 == 0:
            searcher.on_trial_result("t0", result_of(texts[0], 0.1, done=epoch + 1, target=999))


def test_frequent_calls_are_not_taken_for_an_idle_tune(script, clock):
    searcher = TuneSearcher(script, num_trials=1)
    searcher.suggest("t0")
    for _ in range(20 * POLLS):
        clock[0] += 0.1
        assert searcher.suggest("t1") is None


def test_an_algorithm_that_waits_for_nothing_does_not_hang_the_run(script, clock, monkeypatch):
    monkeypatch.setattr(script, "ask", lambda: None)
    searcher = TuneSearcher(script)
    for _ in range(POLLS + 1):
        clock[0] += 1.0
        answer = searcher.suggest("t0")
    assert answer == "FINISHED"
    assert isinstance(searcher.error, RunError)


@pytest.mark.parametrize("method", ["ask", "tell"])
def test_an_error_of_the_algorithm_ends_the_search_but_leaves_no_hook(script, monkeypatch, method):
    def fail(*_args):
        raise ZeroDivisionError("in the algorithm")

    searcher = TuneSearcher(script)
    first, second = searcher.suggest("t0"), searcher.suggest("t1")
    monkeypatch.setattr(script, method, fail)
    searcher.on_trial_complete(trial_id="t0", result=result_of(first["architecture"], 0.5))
    assert searcher.suggest("t2") is None
    searcher.on_trial_complete(trial_id="t1", result=result_of(second["architecture"], 0.6))
    assert searcher.suggest("t2") == "FINISHED"
    assert isinstance(searcher.error, ZeroDivisionError)
    assert [one.value for one in searcher.observations] == [0.5, 0.6]


def test_a_proposal_outside_the_space_ends_the_search(make_script):
    searcher = TuneSearcher(make_script(["nonsense"]))
    assert searcher.suggest("t0") == "FINISHED"
    assert "nonsense" in str(searcher.error)


def test_a_metric_that_no_result_has_is_named(script):
    searcher = TuneSearcher(script)
    searcher.suggest("t0")
    searcher.on_trial_complete(trial_id="t0", result={"score": 1.0, "training_iteration": 1})
    assert searcher.suggest("t1") == "FINISHED"
    assert "metric is 'reward', but a trial reported score" in str(searcher.error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "mode must be 'max' or 'min'"),
        ({"num_trials": 0}, "num_trials must be an integer of at least 1, got 0"),
        ({"max_retries": -1}, "max_retries"),
    ],
)
def test_wrong_arguments_are_named(script, options, message):
    with pytest.raises(ConfigError, match=message):
        TuneSearcher(script, **options)
