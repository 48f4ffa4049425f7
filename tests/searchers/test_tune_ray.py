"""The adapter inside real Ray Tune runs, on an objective that costs nothing."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandForBOHB

from searchers import EvolutionSearch, GPSearch, OptunaSearch, RandomSearch, make_algorithm
from searchers.snapshot import read_trials
from searchers.state import load_state
from searchers.testing import make_chain_space
from tests import tuning

pytestmark = pytest.mark.usefixtures("ray_cluster")

EPOCHS = 4


@pytest.fixture(scope="module")
def space():
    return make_chain_space((8, 8, 8))


@pytest.fixture
def trainable(tmp_path):
    """An analytic student: the share of kept channels, approached epoch by epoch. Defined here, so that it travels by value."""
    marks = tmp_path / "marks"
    marks.mkdir()

    class Analytic(tune.Trainable):
        def setup(self, config):
            self.reset_config(config)

        def reset_config(self, new_config):
            self.config, self.epoch = new_config, 0
            return True

        def step(self):
            from raysearch.architecture import Edits

            text = self.config["architecture"]
            widths = Edits.from_text(text).widths
            self.epoch += 1
            mark = marks / f"{self.config['architecture_id']}-{self.trial_id}"
            if self.epoch == 1:
                mark.touch()
            crashes = {1: 1, 3: 9}.get(sum(widths) % 4, 0) * self.config.get("fragile", 0)
            if len(list(marks.glob(f"{mark.name[:12]}*"))) <= crashes:
                raise RuntimeError("this student crashes")
            value = sum(widths) / 24 * self.epoch / EPOCHS
            return {
                "reward": value,
                "score": -value,
                "accuracy": value,
                "epochs_done": self.epoch,
                "epochs_target": EPOCHS,
                "done": self.epoch >= EPOCHS,
            }

        def save_checkpoint(self, checkpoint_dir):
            (Path(checkpoint_dir) / "epoch").write_text(str(self.epoch))

        def load_checkpoint(self, checkpoint_dir):
            self.epoch = int((Path(checkpoint_dir) / "epoch").read_text())

    Analytic.marks = marks
    return Analytic


def fit(trainable, searcher, folder, *, config=None, **more):
    """Runs a search to its end."""
    options = {"num_samples": -1, **(config or {})}
    return tuning.fit(trainable, folder, search_alg=searcher, **options, **more)


def told(results):
    """The architecture of every trial that ended well."""
    return [result.config["architecture"] for result in results if result.error is None]


def test_students_that_asha_stops_are_told_with_their_fidelity(trainable, space, tmp_path):
    scheduler = AsyncHyperBandScheduler(
        time_attr="epochs_done", max_t=EPOCHS, grace_period=1, reduction_factor=2
    )
    searcher = EvolutionSearch(space=space, num_trials=10, seed=0, population=4)
    # one at a time: the order of results decides whom ASHA stops
    config = {"scheduler": scheduler, "metric": "reward", "mode": "max", "max_concurrent_trials": 1}
    fit(trainable, searcher, tmp_path, config=config, param_space={"constant": 1})
    fidelities = Counter((one.status, one.fidelity) for one in searcher.observations)
    assert sum(fidelities.values()) == 10
    assert fidelities["full", 1.0] >= 1
    stopped = [one for one in searcher.observations if one.status == "stopped"]
    assert stopped
    assert all(one.fidelity == len(one.curve) / EPOCHS < 1 for one in stopped)


def test_a_scheduler_that_pauses_trials_brings_them_all_to_an_outcome(trainable, space, tmp_path):
    scheduler = HyperBandForBOHB(time_attr="training_iteration", max_t=EPOCHS, reduction_factor=2)
    searcher = RandomSearch(space=space, num_trials=3, seed=0)
    config = {"scheduler": scheduler, "metric": "reward", "mode": "max"}
    fit(trainable, searcher, tmp_path, config=config | {"max_concurrent_trials": None})
    assert len(searcher.observations) == 3
    assert all(one.status in ("full", "stopped") for one in searcher.observations)


def test_metric_and_mode_of_the_tune_config_arrive_through_the_limiter(trainable, space, tmp_path):
    searcher = GPSearch(space=space, seed=0, num_initial=3, num_candidates=32)
    config = {"metric": "score", "mode": "min", "num_samples": 5, "max_concurrent_trials": 1}
    results = fit(trainable, searcher, tmp_path, config=config, param_space={"constant": 1})
    assert len(results) == 5
    best = results.get_best_result().metrics["score"]
    assert best == pytest.approx(-max(one.value for one in searcher.observations))


def test_an_empty_param_space_needs_only_the_searchers_own_metric(trainable, space, tmp_path):
    searcher = OptunaSearch(space=space, metric="score", mode="min", num_initial=3)
    fit(trainable, searcher, tmp_path, config={"num_samples": 5, "max_concurrent_trials": 1})
    assert len(searcher.observations) == 5
    assert all(one.value > 0 for one in searcher.observations)


def test_crashed_students_are_retried_and_each_is_told_once(trainable, space, tmp_path):
    """Widths that sum to 1 modulo 4 crash once, those that sum to 3 always."""
    searcher = RandomSearch(space=space, num_trials=3, seed=16, max_retries=1)
    results = fit(trainable, searcher, tmp_path, param_space={"fragile": 1})
    sums = [sum(space.parse(one.architecture).widths) % 4 for one in searcher.observations]
    statuses = [one.status for one in searcher.observations]
    assert len({one.architecture for one in searcher.observations}) == 3
    assert {1, 3} < set(sums)
    assert statuses == ["failed" if rest == 3 else "full" for rest in sums]
    assert len(results) == 3 + sum(rest % 2 for rest in sums)


def test_one_at_a_time_gives_the_proposals_of_the_bare_algorithm(trainable, space, tmp_path):
    """And as many students as the budget says, each trained once and to its end."""
    options = {"population": 4, "tournament": 2}
    searcher = EvolutionSearch(space=space, num_trials=8, seed=5, **options)
    results = fit(trainable, searcher, tmp_path, config={"max_concurrent_trials": 1})
    assert len(results) == 8
    assert len(set(told(results))) == 8
    assert [one.status for one in searcher.observations] == ["full"] * 8
    assert {len(one.curve) for one in searcher.observations} == {EPOCHS}
    assert sorted(told(results)) == sorted(one.architecture for one in searcher.observations)
    algorithm = make_algorithm("evolution", space, 5, options)
    for observation in searcher.observations:
        assert algorithm.ask().architecture == observation.architecture
        algorithm.tell(observation)


def has_whole_snapshot(folder):
    """Whether the storage holds a snapshot that can be read, and no thread of Tune's is copying: from a torn file Tune itself cannot resume."""
    for thread in threading.enumerate():
        if "(entrypoint)" in thread.name:
            thread.join()
    saved = max(folder.glob("searcher-state-*"), default=None)
    if saved is None or read_trials(folder) is None:
        return False
    try:
        load_state(saved.read_text())
    except ValueError:
        return False
    return True


class Crash(tune.Callback):
    """Kills the run once, when its third trial has ended."""

    def __init__(self, flag):
        self.flag = flag

    def on_step_end(self, iteration, trials, **info):  # Tune passes them by name
        ended = sum(trial.status == "TERMINATED" for trial in trials)
        if ended >= 3 and not self.flag.exists() and has_whole_snapshot(self.flag.parent / "run"):
            self.flag.touch()
            raise RuntimeError("the driver dies")


def test_a_run_that_died_is_continued_without_repeating_anything(
    trainable, space, tmp_path, monkeypatch
):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    searcher = RandomSearch(space=space, num_trials=7, seed=2)
    with pytest.raises(RuntimeError, match="the driver dies"):
        fit(trainable, searcher, tmp_path, callbacks=[Crash(tmp_path / "died")])
    assert 0 < len(searcher.observations) < 7
    # Tune writes its snapshots when it can: only what the newest one holds is promised
    snapshot = RandomSearch(space=space, num_trials=7, seed=2)
    snapshot.restore_from_dir(str(tmp_path / "run"))
    assert snapshot.restore_error is None
    tuner = tune.Tuner.restore(str(tmp_path / "run"), trainable, param_space={})
    results = tuner.fit()
    # a trial that was about to start when the driver died may stay behind without a result: its student got another one
    trained = [result.config["architecture_id"] for result in results if result.metrics]
    assert len(trained) == len(set(trained)) == 7
    starts = Counter(mark.name[:12] for mark in trainable.marks.iterdir())
    assert len(starts) == 7
    finished = {space.apply(one.architecture).id for one in snapshot.observations}
    assert all(starts[identity] == 1 for identity in finished)


class Tear(Crash):
    """Keeps the snapshot's files of an early moment, and kills the run once a later snapshot has arrived."""

    def __init__(self, flag):
        super().__init__(flag)
        self.folder = flag.parent / "run"
        self.early = {}

    def on_step_end(self, iteration, trials, **info):  # Tune passes them by name
        if self.flag.exists() or not has_whole_snapshot(self.folder):
            return
        ended = sum(trial.status == "TERMINATED" for trial in read_trials(self.folder))
        if ended and not self.early:
            self.early = {
                name: max(self.folder.glob(f"{name}-*")).read_bytes()
                for name in ("experiment_state", "searcher-state")
            }
            self.ended = ended
        if self.early and ended >= self.ended + 2:
            self.flag.touch()
            raise RuntimeError("the driver dies")


@pytest.mark.parametrize("early", ["experiment_state", "searcher-state"])
def test_a_snapshot_of_two_moments_repeats_no_finished_student(
    early, trainable, space, tmp_path, monkeypatch
):
    """Tune copies the files one by one while it writes the next snapshot."""
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    folder = tmp_path / "run"
    options = {"space": space, "num_trials": 12, "seed": 2}
    searcher = RandomSearch(**options)
    tear = Tear(tmp_path / "died")
    config, constant = {"metric": "score", "mode": "min"}, {"constant": 1}
    with pytest.raises(RuntimeError, match="the driver dies"):
        fit(trainable, searcher, tmp_path, config=config, callbacks=[tear], param_space=constant)
    max(folder.glob(f"{early}-*")).write_bytes(tear.early[early])
    results = tune.Tuner.restore(str(folder), trainable, param_space=constant).fit()
    restored = RandomSearch(**options, metric="score", mode="min")
    restored.restore_from_dir(str(folder))
    assert len({one.architecture for one in restored.observations}) == 12
    assert len(restored.observations) == 12
    assert all(one.status == "full" and one.value > 0 for one in restored.observations)
    trained = [result.config["architecture_id"] for result in results]
    assert len(trained) == len(set(trained))
    if early == "searcher-state":
        starts = Counter(mark.name[:12] for mark in trainable.marks.iterdir())
        assert sorted(starts) == sorted(trained)
        assert len(trained) == starts.total() == 12
