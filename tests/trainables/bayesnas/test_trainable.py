"""A run as a Tune trial: what it reports and leaves, how it is saved, and PBT and ASHA over lambda on a real Ray."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict

import pytest
import torch
from ray import tune
from ray.tune.logger import CSVLoggerCallback, TBXLoggerCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, PopulationBasedTraining
from safetensors.torch import load_file
from torch import nn

from raysearch import load_config, prepare
from raysearch.errors import ConfigError
from raysearch.models import build
from raysearch.objective import Measurement, f_reward
from tests.trainables.bayesnas.tiny import TinyRun, TinyTrainable
from tests.trainables.untrained import make_problem, make_untrained
from tests.tuning import fit
from trainables import DistillationTrainable
from trainables.reports import REPORTED
from trainables.training import evaluate_batches, recalibrate

REPORTED_RUN = REPORTED | {"active_groups", "entropy", "lam", "num_students", "students"}
FOUND = {"architecture", "architecture_id", "epoch", "num_params", "macs", "accuracy", "loss"}


@pytest.fixture(scope="module")
def problem():
    # its runs train on few batches of any data, and validate on all
    config = {"distill": {"epochs": 2}, "data": {"validation": 100}, "budget": None}
    return make_problem(config)


@pytest.fixture(scope="module")
def context(problem):
    return make_untrained(problem)


def trial(context, kind=TinyTrainable, **config):
    """A trial in this process, without Ray."""

    class Bound(kind):
        def setup(self, config):
            super().setup(config, context=context)

    return Bound(config)


def students(result):
    """What a result says of the run's students."""
    return json.loads(result["students"])


def told(results):
    """What must be the same, whoever continued."""
    keep = ("reward", "accuracy", "loss", "num_params", "active_groups", "students", "epochs_done")
    return [{key: result[key] for key in keep} for result in results]


@pytest.fixture(scope="module")
def whole(context):
    """The results of an undisturbed run."""
    trainable = trial(context, lam=0.05)
    return [trainable.train() for _ in range(4)]


def test_each_result_holds_what_schedulers_loggers_and_the_method_need(context, problem, whole):
    for epoch, result in enumerate(whole, 1):
        assert set(result) >= REPORTED_RUN
        assert (result["epochs_done"], result["epochs_target"]) == (epoch, 4)
        assert result["done"] == (epoch == 4)
        assert (result["status"], result["lam"]) == ("ok", 0.05)
        assert result["num_students"] == len(students(result)) == epoch // 2
        measured = Measurement(
            result["accuracy"],
            result["loss"],
            result["num_params"],
            0.9,
            problem.architecture.num_params,
        )
        assert result["reward"] == pytest.approx(f_reward(measured))
    for number, student in enumerate(students(whole[-1]), 1):
        assert set(student) == FOUND | {"reward"}
        architecture = problem.space.apply(student["architecture"])
        assert architecture.id == student["architecture_id"]
        assert (architecture.num_params, architecture.macs) == (
            student["num_params"],
            student["macs"],
        )
        assert student["epoch"] == 2 * number


def test_a_student_that_its_run_did_not_measure_is_measured(context, problem, monkeypatch):
    """Its accuracy is that of the network which its weights make, BatchNorm re-calibrated."""
    train = TinyRun.train_epoch

    def silent(self):
        found = train(self)
        self.students = [dataclasses.replace(one, metrics={}) for one in self.students]
        return found

    monkeypatch.setattr(TinyRun, "train_epoch", silent)
    run = trial(context, lam=0.05)
    run.train()
    found = students(run.train())[0]
    student = run._run.students[0]
    module = build(student.architecture, inherit_from=student.weights)
    recalibrate(module, context.device_data.train, seed=context.seed)
    measured = evaluate_batches(module, context.device_data.validation)
    assert (found["accuracy"], found["loss"]) == (measured["accuracy"], measured["loss"])
    assert found["reward"] < 1


def test_lambda_alone_is_enough_and_settings_come_from_the_trial_before_the_context(context):
    shared = dataclasses.replace(context, run_settings={"epochs": 3, "lr": 0.01})
    result = trial(shared, lam=0.02, settings={"epochs": 1}).train()
    assert (result["done"], result["epochs_target"], result["lam"]) == (True, 1, 0.02)
    assert trial(shared).train()["lam"] == 0.01


def test_a_saved_and_loaded_run_continues_exactly(context, whole, tmp_path):
    first = trial(context, lam=0.05)
    assert told([first.train(), first.train()]) == told(whole[:2])
    first.save_checkpoint(str(tmp_path))
    second = trial(context, lam=0.3)
    second.train()
    assert second.reset({"lam": 0.05})
    second.load_checkpoint(str(tmp_path))
    assert told([second.train(), second.train()]) == told(whole[2:])


def test_a_run_that_never_began_can_be_saved(context, whole, tmp_path):
    trial(context, lam=0.05).save_checkpoint(str(tmp_path))
    again = trial(context, lam=0.05)
    again.load_checkpoint(str(tmp_path))
    assert told([again.train()]) == told(whole[:1])


def test_another_lambda_continues_the_same_weights(context, whole, tmp_path):
    first = trial(context, lam=0.05)
    first.train()
    first.save_checkpoint(str(tmp_path))
    before = {key: value.clone() for key, value in first._run.module.state_dict().items()}
    other = trial(context, lam=0.5)
    other.load_checkpoint(str(tmp_path))
    after = other._run.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    result = other.train()
    assert (result["epochs_done"], result["lam"], other._run.lam) == (2, 0.5, 0.5)
    assert result["num_params"] < whole[1]["num_params"]


def test_a_reused_actor_gives_what_a_fresh_one_gives(context, whole):
    reused = trial(context, lam=0.4)
    reused.train()
    assert reused.reset({"lam": 0.05})
    assert told([reused.train() for _ in range(4)]) == told(whole)


def test_an_unfinished_run_of_a_killed_process_is_continued(context, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.distillation.PARTIAL_EVERY_S", 0.0)
    kept = dataclasses.replace(context, weights_folder=str(tmp_path))
    first = trial(kept, lam=0.05, run=2)
    first.train()
    first.train()
    assert (tmp_path / "run-002.partial").exists()
    for config in ({"lam": 0.06, "run": 2}, {"lam": 0.05, "run": 2, "settings": {"lr": 0.01}}):
        assert trial(kept, **config).train()["epochs_done"] == 1  # another run
    # that wrote over it: again
    first = trial(kept, lam=0.05, run=3)
    first.train()
    first.train()
    again = trial(kept, lam=0.05, run=3)
    assert told([again.train(), again.train()]) == told(whole[2:])
    assert not (tmp_path / "run-003.partial").exists()


def test_students_and_history_are_left_in_the_folder_and_a_student_begins_there(
    context, whole, tmp_path
):
    kept = dataclasses.replace(
        context, weights_folder=str(tmp_path / "weights"), history_folder=str(tmp_path / "bayesnas")
    )
    (tmp_path / "weights").mkdir()
    run = trial(kept, lam=0.05, run=7)
    results = [run.train() for _ in range(4)]
    assert told(results) == told(whole)
    history = json.loads((tmp_path / "bayesnas" / "run-007.json").read_text())
    assert (history["kind"], history["run"], history["lam"]) == ("compression", 7, 0.05)
    assert [one["epoch"] for one in history["epochs"]] == [1, 2, 3, 4]
    assert history["students"] == students(results[-1])

    found = students(results[-1])[-1]
    key = found["architecture_id"]
    weights = load_file(tmp_path / "weights" / f"start-{key}-007.safetensors")
    config = {"architecture": found["architecture"], "architecture_id": key}
    for begins, kind, extra in (
        (True, TinyTrainable, {"start": "run", "from_run": 7}),
        (True, DistillationTrainable, {"start": "run", "from_run": 7}),
        (False, TinyTrainable, {}),
        (False, TinyTrainable, {"start": "run", "from_run": 8}),  # which may have found it, too
    ):
        student = trial(kept, kind, stage="search", **config, **extra)
        student._begin()
        state = student._training.trainings[0].module.state_dict()
        assert all(torch.equal(state[name], weights[name]) for name in weights) is begins
    result = student.train()  # of the stage search: an ordinary student
    assert (result["epochs_target"], result["num_params"]) == (2, found["num_params"])
    assert "students" not in result


def test_a_student_without_weights_of_its_run_begins_from_the_teacher(context, problem, tmp_path):
    kept = dataclasses.replace(context, weights_folder=str(tmp_path))
    text = str(problem.space.sample(1, seed=0)[0])
    states = []
    for extra in ({}, {"start": "run"}):
        student = trial(kept, architecture=text, architecture_id="a", stage="search", **extra)
        student._begin()
        states.append(student._training.trainings[0].module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_fresh_weights_stay_fresh(context, whole, tmp_path):
    kept = dataclasses.replace(context, weights_folder=str(tmp_path), init={"search": "fresh"})
    run = trial(kept, lam=0.05)
    run.train()
    found = students(run.train())[0]
    config = {key: found[key] for key in ("architecture", "architecture_id")}
    student = trial(kept, stage="search", start="run", **config)
    student._begin()
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        fresh = build(context.search_space.apply(found["architecture"])).state_dict()
    state = student._training.trainings[0].module.state_dict()
    assert all(torch.equal(state[name], fresh[name]) for name in fresh)


def test_a_run_that_diverges_is_a_result_with_what_it_found(context):
    run = trial(context, lam=0.05, settings={"breaks_at": 3})
    results = [run.train() for _ in range(3)]
    assert set(results[-1]) >= REPORTED_RUN - {"active_groups", "entropy"}
    assert (results[-1]["status"], results[-1]["done"]) == ("diverged", True)
    assert (results[-1]["num_students"], results[-1]["epochs_done"]) == (1, 3)
    assert results[-1]["reward"] == -1.0
    assert math.isinf(results[-1]["loss"])


def test_settings_that_are_refused_are_a_result(context):
    result = trial(context, lam=0.05, settings={"lr": 7}).train()
    assert (result["status"], result["done"]) == ("invalid", True)
    assert "search.options.lr" in result["reason"]


def test_what_an_engine_does_not_know_in_a_teacher_is_a_result(context, monkeypatch):
    def refuse(run):
        raise ConfigError("search.options.hessian is 'odd'")

    monkeypatch.setattr(TinyRun, "train_epoch", refuse)
    result = trial(context, lam=0.05).train()
    assert (result["status"], result["done"]) == ("invalid", True)
    assert "search.options.hessian" in result["reason"]


class Gated(nn.Module):
    """Multiplies, which the thesis's recursion does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head((x * x.sigmoid()).mean((2, 3)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hessian": "recursive"}, ["search.options.hessian", "'mul'", "ggn"]),
        (
            {"conv_groups": [], "linear_groups": ["row"]},
            ["search.options.conv_groups", "no group"],
        ),
    ],
)
def test_what_a_compression_cannot_do_with_a_teacher_is_said_before_any_trial(options, words):
    search = {"method": "bayes_compression", "options": options}
    with pytest.raises(ConfigError) as error:
        prepare(load_config({"search": search, "budget": None}), teacher=Gated())
    assert all(word in str(error.value) for word in words)
    search["options"] = {}
    prepare(load_config({"search": search, "budget": None}), teacher=Gated())


@pytest.mark.parametrize("lam", [0, -0.1, math.inf, math.nan])
def test_a_lambda_that_is_none_is_a_result(context, lam):
    result = trial(context, lam=lam).train()
    assert (result["status"], result["done"]) == ("invalid", True)
    assert f"lam is {float(lam)!r}" in result["reason"]


def test_a_budget_holds_for_every_student(context):
    limit = context.search_space.teacher.num_params // 20
    run = trial(dataclasses.replace(context, limits={"params": limit}), lam=0.001)
    results = [run.train() for _ in range(4)]
    assert all(student["num_params"] <= limit for student in students(results[-1]))


def test_a_run_that_takes_too_long_ends_with_what_it_has(context):
    result = trial(dataclasses.replace(context, timeout_s=1e-9), lam=0.1).train()
    assert (result["done"], result["status"], result["epochs_done"]) == (True, "ok", 1)


def tuned(trainable, folder, space, slots=2, **options):
    options = {"metric": "reward", "mode": "max", "max_concurrent_trials": slots, **options}
    return fit(trainable, folder, param_space=space, **options)


class _Told(tune.Callback):
    """What the trials report. Tune's own files may lose lines where a trial is taken up again before they were copied."""

    def __init__(self) -> None:
        self.of_trial = defaultdict(list)

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.of_trial[trial.trial_id].append(dict(result))


@pytest.mark.usefixtures("ray_cluster")
class TestTuner:
    def test_population_based_training_changes_lambda_on_the_way(self, context, tmp_path):
        """Two runs; whoever is poorer takes the other one's weights and a lambda near that one's, and goes on from there."""
        scheduler = PopulationBasedTraining(
            time_attr="epochs_done",
            perturbation_interval=2,
            hyperparam_mutations={"lam": tune.loguniform(1e-3, 1.0)},
            quantile_fraction=0.5,
            resample_probability=0.0,
            synch=True,
        )
        space = {"lam": tune.grid_search([0.01, 0.9]), "settings": {"epochs": 4}}
        trainable, told = TinyTrainable.bound(context), _Told()
        grid = tuned(trainable, tmp_path, space, scheduler=scheduler, callbacks=[told])
        assert not grid.errors
        lambdas = []
        for result in grid:
            reports = told.of_trial[result.metrics["trial_id"]]
            assert [report["epochs_done"] for report in reports] == [1, 2, 3, 4]
            lambdas.append([report["lam"] for report in reports])
            assert result.metrics["lam"] == result.config["lam"] == lambdas[-1][-1]
            # what was found before the weights were taken over is the other one's
            assert [student["epoch"] for student in students(result.metrics)] == [2, 4]
        assert max(len(set(own)) for own in lambdas) > 1

    def test_asha_stops_poor_lambdas_on_reused_actors_and_no_logger_complains(
        self, context, tmp_path, caplog
    ):
        scheduler = AsyncHyperBandScheduler(
            time_attr="epochs_done", grace_period=1, reduction_factor=2, max_t=4
        )
        # one after the other, the best first: f counts the size, and accuracies differ little
        space = {"lam": tune.grid_search([0.9, 0.1, 0.03])}
        trainable = TinyTrainable.bound(context)
        loggers = [TBXLoggerCallback(), CSVLoggerCallback()]
        grid = tuned(trainable, tmp_path, space, slots=1, scheduler=scheduler, callbacks=loggers)
        assert not grid.errors
        assert "invalid value" not in caplog.text
        epochs = [result.metrics["epochs_done"] for result in grid]
        assert epochs[0] == 4
        assert min(epochs) == 1
        best = grid.get_best_result().metrics
        assert best["num_students"] == len(students(best)) == 2
