"""A student as a Tune trial: what it reports, what it survives, and that nothing of an earlier trial is left in it."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from safetensors.torch import load_file

from raysearch import load_config
from raysearch.objective import Measurement, f_reward
from searchers import RandomSearch
from tests.trainables.untrained import make_untrained, results, trial
from trainables import DistillationTrainable
from trainables.reports import REPORTED
from trainables.training import Training


@pytest.mark.usefixtures("ray_cluster")
class TestTrial:
    def test_each_result_holds_what_schedulers_and_loggers_need(self, context, architectures):
        student = context.search_space.apply(architectures[0])
        trainable = trial(context, architectures[0])
        for epoch in (1, 2, 3):
            result = trainable.train()
            assert set(result) >= REPORTED
            assert (result["epochs_done"], result["epochs_target"]) == (epoch, 3)
            assert result["done"] == (epoch == 3)
            assert result["status"] == "ok"
            assert (result["num_params"], result["macs"]) == (student.num_params, student.macs)

    def test_the_reward_is_the_objective_of_what_is_reported(self, context, architectures, problem):
        without_budget = dataclasses.replace(context, objective="f")
        result = trial(without_budget, architectures[0]).train()
        measured = Measurement(
            accuracy=result["accuracy"],
            loss=result["loss"],
            num_params=result["num_params"],
            teacher_accuracy=0.9,
            teacher_num_params=problem.architecture.num_params,
        )
        assert result["reward"] == pytest.approx(f_reward(measured))
        within = trial(context, architectures[0]).train()
        assert within["reward"] == pytest.approx(torch.tensor(-within["loss"]).exp().item())

    def test_the_best_epoch_can_be_the_one_that_counts(
        self, context, architectures, tmp_path, monkeypatch
    ):
        """Rewards so far never fall; the weights are the last epoch's, as where the last one counts."""
        measured = [(0.5, 2.0), (0.8, 1.0), (0.6, 1.5)]
        monkeypatch.setattr(
            Training,
            "validate",
            lambda self, num_classes=None: dict(
                zip(("accuracy", "loss"), measured[self.epochs_done - 1], strict=True)
            ),
        )
        found = {}
        for which in ("last", "best"):
            (tmp_path / which).mkdir()
            shared = dataclasses.replace(
                context, value_epochs={"search": which}, weights_folder=str(tmp_path / which)
            )
            trainable = trial(shared, architectures[0], architecture_id="a")
            found[which] = [trainable.train() for _ in range(3)]
        for which, epochs in (("last", [1, 2, 3]), ("best", [1, 2, 2])):
            for number, (epoch, result) in enumerate(zip(epochs, found[which], strict=True), 1):
                accuracy, loss = measured[epoch - 1]
                assert (result["accuracy"], result["loss"]) == (accuracy, loss)
                assert result["reward"] == pytest.approx(math.exp(-loss))
                assert result["epochs_done"] == number
            rewards = [result["reward"] for result in found[which]]
            assert found[which][-1]["reward_curve"] == rewards
            assert found[which][-1]["accuracy_curve"] == [0.5, 0.8, 0.6]
        assert [result["value_epoch"] for result in found["best"]] == [1, 2, 2]
        weights = [load_file(folder / "search-a.safetensors") for folder in tmp_path.iterdir()]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_a_reused_actor_gives_what_a_fresh_one_gives(self, context, architectures):
        fresh = [results(trial(context, text)) for text in architectures[:2]]
        reused = trial(context, architectures[0])
        assert results(reused) == fresh[0]
        assert reused.reset({"architecture": architectures[1]})
        assert results(reused) == fresh[1]

    def test_a_student_that_cannot_be_built_is_a_result(self, context):
        result = trial(context, "e1.garbage").train()
        assert (result["status"], result["done"], result["reward"]) == ("invalid", True, 0.0)
        assert set(result) >= REPORTED
        assert "InvalidArchitecture" in result["reason"]

    def test_a_student_that_diverges_is_a_result(self, context, architectures):
        wild = {"search": {**context.recipes["search"], "optimizer": "sgd", "lr": 1e30}}
        result = trial(dataclasses.replace(context, recipes=wild), architectures[0]).train()
        assert (result["status"], result["done"], result["reward"]) == ("diverged", True, 0.0)

    def test_a_training_that_takes_too_long_ends_with_what_it_has(self, context, architectures):
        result = trial(dataclasses.replace(context, timeout_s=1e-6), architectures[0]).train()
        assert (result["done"], result["status"], result["epochs_done"]) == (True, "ok", 1)

    def test_a_repeated_training_reports_means_epoch_by_epoch(self, context, architectures):
        shared = dataclasses.replace(context, repeats={"search": 3})
        trainable = trial(shared, architectures[0])
        for epoch in (1, 2, 3):
            result = trainable.train()
            assert (result["epochs_done"], result["epochs_target"]) == (epoch, 3)
            assert result["epochs_trained"] == 3 * epoch
            assert result["done"] == (epoch == 3)
            for name in ("accuracy", "loss"):
                single = result[f"{name}_repeats"]
                assert len(single) == 3
                assert result[name] == pytest.approx(sum(single) / 3)
            assert len(set(result["loss_repeats"])) == 3
            assert result["reward"] == pytest.approx(math.exp(-result["loss"]))
        once = results(trial(context, architectures[0]))
        assert result["accuracy_repeats"][0] == once[-1]["accuracy"]
        assert len(result["accuracy_curve"]) == 3

    def test_a_student_of_which_one_repeat_diverges_is_diverged(self, context, architectures):
        wild = {"search": {**context.recipes["search"], "optimizer": "sgd", "lr": 1e30}}
        shared = dataclasses.replace(context, recipes=wild, repeats={"search": 2})
        result = trial(shared, architectures[0]).train()
        assert (result["status"], result["epochs_done"], result["epochs_trained"]) == (
            "diverged", 1, 1,
        )  # fmt: skip


def test_only_trials_of_the_search_are_repeated(problem):
    distill = problem.config.distill.model_copy(update={"repeats": 5})
    config = problem.config.model_copy(update={"distill": distill})
    shared = make_untrained(dataclasses.replace(problem, config=config))
    assert shared.repeats == {"search": 5, "random": 5, "prune": 5}


def test_students_on_labels_alone_need_no_answers_of_the_teacher(problem, architectures):
    """The teacher is not even asked: one that cannot answer does not matter."""
    config = load_config({"distill": {"loss": "ce"}, "finish": {"loss": "ce"}})

    def no_answer(module, inputs):
        raise AssertionError("the teacher was asked")

    teacher = copy.deepcopy(problem.teacher)
    teacher.register_forward_pre_hook(no_answer)
    shared = make_untrained(dataclasses.replace(problem, config=config, teacher=teacher))
    assert shared.data.logits is None
    trainable = trial(shared, architectures[0])
    assert trainable.train()["status"] == "ok"


def test_only_trials_of_the_search_are_judged_by_their_best_epoch(problem):
    """A finalist's accuracy is that of the weights that are exported."""
    distill = problem.config.distill.model_copy(update={"value_epoch": "best"})
    config = problem.config.model_copy(update={"distill": distill})
    shared = make_untrained(dataclasses.replace(problem, config=config))
    assert shared.value_epochs == {"search": "best", "random": "best", "prune": "best"}


def test_the_teacher_answers_only_the_views_that_are_distilled(problem):
    config = load_config(
        {"distill": {"views": 2}, "finish": {"loss": "ce", "views": 7}, "data": {"augment": "crop"}}
    )
    crops = dataclasses.replace(problem.data, augment="crop")
    shared = make_untrained(dataclasses.replace(problem, config=config, data=crops))
    assert (len(shared.data.views), len(shared.data.logits)) == (7, 2)


def test_trials_get_the_buffers_that_the_teacher_does_not_save(problem):
    teacher = copy.deepcopy(problem.teacher)
    teacher.register_buffer("mean", torch.full((3,), 0.5), persistent=False)
    shared = make_untrained(dataclasses.replace(problem, teacher=teacher))
    assert shared.teacher_weights["mean"].tolist() == [0.5] * 3


@pytest.mark.usefixtures("ray_cluster")
def test_it_runs_in_anybodys_tuner_with_their_scheduler(context, problem, tmp_path):
    """Nothing of ours but the trainable and the searcher: Tune's own limit, scheduler and storage."""
    found = tune.Tuner(
        DistillationTrainable.bound(context),
        tune_config=tune.TuneConfig(
            metric="reward",
            mode="max",
            num_samples=4,
            max_concurrent_trials=2,
            reuse_actors=True,
            search_alg=RandomSearch(space=problem.space, metric="reward", mode="max", seed=1),
            scheduler=AsyncHyperBandScheduler(time_attr="epochs_done", max_t=3, grace_period=1),
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert len(found) == 4
    assert not found.errors
    best = found.get_best_result()
    assert problem.space.apply(best.config["architecture"]).num_params == best.metrics["num_params"]
    assert best.checkpoint is not None
