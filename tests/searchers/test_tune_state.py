"""What the adapter saves, restores and carries into another process."""

from __future__ import annotations

import pickle

import pytest

from raysearch.errors import RunError
from searchers.methods import EvolutionSearch, RandomSearch
from searchers.tune import TuneSearcher
from tests.searchers.hooks import finish, result_of


def test_a_saved_search_continues_identically(script, make_script, texts, tmp_path):
    searcher = TuneSearcher(script, num_trials=5, max_retries=1)
    finish(searcher, "t0", 0.5)
    searcher.suggest("t1")
    searcher.on_trial_result("t1", result_of(texts[1], 0.2, done=1))
    searcher.suggest("t2")
    searcher.on_trial_complete(trial_id="t2", result=None, error=True)
    path = str(tmp_path / "state.pkl")
    searcher.save(path)
    restored = TuneSearcher(make_script([]), num_trials=5, max_retries=1)
    restored.restore(path)
    assert restored.observations == searcher.observations
    for one in (searcher, restored):
        one.on_trial_complete(trial_id="t1", result=result_of(texts[1], 0.4))
        answers = [one.suggest(f"n{i}") for i in range(4)]
        assert [answer and answer["architecture"] for answer in answers] == [*texts[2:5], None]
        assert one.algorithm.told[-1].curve == (0.2, 0.4)


def test_a_finished_search_can_be_extended(script, make_script, texts, tmp_path):
    searcher = TuneSearcher(script, num_trials=1)
    finish(searcher, "t0", 0.5)
    assert searcher.suggest("t1") == "FINISHED"
    searcher.save(str(tmp_path / "searcher-state-a.pkl"))
    longer = TuneSearcher(make_script([]), num_trials=2)
    longer.restore_from_dir(str(tmp_path))
    assert longer.suggest("t1")["architecture"] == texts[1]


def test_live_trials_of_another_life_can_be_queued_again(script, make_script, texts, tmp_path):
    searcher = TuneSearcher(script, num_trials=2)
    searcher.suggest("t0")
    searcher.save(str(tmp_path / "state"))
    restored = TuneSearcher(make_script([]), num_trials=2)
    restored.restore(str(tmp_path / "state"))
    restored.requeue_lost()
    assert [restored.suggest(f"n{i}")["architecture"] for i in range(2)] == texts[:2]


def test_a_state_that_cannot_be_read_is_raised_by_suggest_and_not_by_restore(script, tmp_path):
    path = tmp_path / "state.pkl"
    path.write_text("{torn")
    searcher = TuneSearcher(script)
    searcher.restore(str(path))
    with pytest.raises(RunError, match=r"state\.pkl cannot be restored"):
        searcher.suggest("t0")


def test_a_state_of_another_version_or_algorithm_is_refused(script, toy_space, tmp_path):
    TuneSearcher(script).save(str(tmp_path / "state"))
    other = RandomSearch(space=toy_space)
    other.restore(str(tmp_path / "state"))
    assert "Script" in str(other.restore_error)
    text = (tmp_path / "state").read_text().replace('"version":1', '"version":99')
    (tmp_path / "state").write_text(text)
    again = TuneSearcher(script)
    again.restore(str(tmp_path / "state"))
    assert "99" in str(again.restore_error)


def test_a_missing_state_is_raised_by_suggest_and_not_by_restore(script, tmp_path):
    searcher = TuneSearcher(script)
    searcher.restore_from_dir(str(tmp_path))
    with pytest.raises(RunError, match="cannot be restored"):
        searcher.suggest("t0")


def test_a_state_that_cannot_be_saved_leaves_the_old_file(script, tmp_path, monkeypatch):
    searcher = TuneSearcher(script)
    path = tmp_path / "state.pkl"
    searcher.save(str(path))
    before = path.read_text()
    searcher.suggest("t0")
    monkeypatch.setattr(script, "state_dict", lambda: {"version": 1, "bad": object()})
    searcher.save(str(path))
    searcher.save(str(tmp_path / "missing" / "state.pkl"))
    assert path.read_text() == before
    assert searcher.num_failed_saves == 2
    assert [child.name for child in tmp_path.iterdir()] == ["state.pkl"]


def test_a_searcher_pickles_small_and_continues(toy_space):
    searcher = EvolutionSearch(space=toy_space, seed=3, num_trials=20)
    finish(searcher, "t0", 0.5)
    copy = pickle.loads(pickle.dumps(searcher))
    assert len(pickle.dumps(searcher)) < 20_000
    assert [copy.suggest(f"n{i}") for i in range(5)] == [
        searcher.suggest(f"n{i}") for i in range(5)
    ]


def test_a_searcher_of_a_thousand_trials_saves_a_small_state(toy_space, tmp_path):
    searcher = RandomSearch(space=toy_space)
    for index in range(300):
        suggestion = finish(searcher, f"t{index}", 0.5, accuracy=0.5)
        if suggestion == "FINISHED":
            break
    searcher.save(str(tmp_path / "state"))
    assert (tmp_path / "state").stat().st_size < 300 * 2000
