"""A student as a Tune trial: what it reports, what it survives, and that nothing of an earlier trial is left in it."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from safetensors.torch import load_file

from raysearch import load_config, prepare
from raysearch.architecture.refit import remove_layers
from raysearch.architecture.sequences import decode_chain, sample_chains, valid_chains
from raysearch.errors import MissingPackageError
from raysearch.models import build
from raysearch.models.importance import l1_importance
from raysearch.models.keep import keep_sets
from raysearch.models.scores import load_scores, save_scores
from raysearch.models.states import state_of
from raysearch.objective import Measurement, f_reward
from searchers import RandomSearch
from tests.trainables.untrained import REPORTED, make_problem, make_untrained
from trainables import DistillationTrainable
from trainables.training import Training


@pytest.fixture(scope="module")
def problem():
    return make_problem({"distill": {"epochs": 3}})


@pytest.fixture(scope="module")
def context(problem):
    return make_untrained(problem)


@pytest.fixture(scope="module")
def architectures(problem):
    return [str(edits) for edits in problem.space.sample(4, seed=0)]


def trial(context, architecture, **config):
    """A trial in this process, as Tune would make it."""
    return DistillationTrainable.bound(context)({"architecture": architecture, **config})


def valid(rows):
    """Whether a sequence is a network for the digits."""
    return bool(valid_chains(rows[None], (1, 8, 8), 10)[0])


def results(trainable, steps=3):
    keep = ("reward", "accuracy", "loss", "epochs_done")
    reported = [trainable.train() for _ in range(steps)]
    return [{key: result[key] for key in keep} for result in reported]


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

    def test_a_refitted_network_inherits_and_one_of_its_own_layers_starts_afresh(
        self, context, problem
    ):
        teacher = problem.architecture
        remove = np.zeros(len(teacher.layers), bool)
        remove[teacher.index[next(x.name for x in teacher.layers if x.op == "batch_norm")]] = True
        refitted = remove_layers(teacher, remove).student
        rows = next(r for r in sample_chains(200, 0, (1, 8, 8), 10) if valid(r))
        chain = decode_chain(rows, (1, 8, 8), 10)
        for student, stem in ((refitted, teacher.layers[1].name), (chain, None)):
            trainable = trial(context, student.to_compact(), architecture_id=student.id)
            trainable._begin()
            module = trainable._training.trainings[0].module
            with torch.random.fork_rng():
                torch.manual_seed(context.seed)
                fresh = build(student)
            same = [
                torch.equal(*pair)
                for pair in zip(module.parameters(), fresh.parameters(), strict=True)
            ]
            assert all(same) is (stem is None)
            if stem is not None:
                theirs = context.teacher_state[f"{stem}.weight"]
                assert torch.equal(module.state_dict()[f"{stem}.weight"], theirs)
            result = trainable.train()
            assert (result["status"], result["num_params"]) == ("ok", student.num_params)

    @pytest.mark.parametrize("init", ["fresh", "search"])
    def test_without_inheritance_the_full_training_inherits_nothing_either(
        self, context, architectures, tmp_path, init
    ):
        """`search`: from the short training's weights; where there are none, as the short trainings begin."""
        shared = dataclasses.replace(
            context,
            init={"search": "fresh", "finish": init, "uniform": init},
            weights_folder=str(tmp_path),
        )
        text = architectures[0]
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            fresh = build(context.search_space.apply(text)).state_dict()
        short = trial(shared, text, architecture_id="a")
        for _ in range(3):
            short.train()
        searched = load_file(tmp_path / "search-a.safetensors")
        for stage, key, expected in (
            ("search", "b", fresh),
            ("finish", "a", searched if init == "search" else fresh),
            ("uniform", "b", fresh),
        ):
            trainable = trial(shared, text, architecture_id=key, stage=stage)
            trainable._begin()
            state = trainable._training.trainings[0].module.state_dict()
            assert all(torch.equal(state[name], expected[name]) for name in expected)

    def test_a_reused_actor_gives_what_a_fresh_one_gives(self, context, architectures):
        fresh = [results(trial(context, text)) for text in architectures[:2]]
        reused = trial(context, architectures[0])
        assert results(reused) == fresh[0]
        assert reused.reset({"architecture": architectures[1]})
        assert results(reused) == fresh[1]

    def test_a_saved_and_loaded_training_continues_exactly(self, context, architectures, tmp_path):
        whole = results(trial(context, architectures[0]))
        first = trial(context, architectures[0])
        assert results(first, 2) == whole[:2]
        first.save_checkpoint(str(tmp_path))
        second = trial(context, architectures[1])
        second.reset({"architecture": architectures[0]})
        second.load_checkpoint(str(tmp_path))
        last = second.train()
        assert {key: last[key] for key in whole[2]} == whole[2]
        assert last["done"]

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

    def test_finished_weights_are_kept_and_a_full_training_starts_from_them(
        self, context, architectures, tmp_path
    ):
        kept = dataclasses.replace(
            context, weights_folder=str(tmp_path), init={"search": "inherit", "finish": "search"}
        )
        key = "abc"
        search = trial(kept, architectures[0], architecture_id=key)
        results(search)
        assert [path.name for path in tmp_path.iterdir()] == [f"search-{key}.safetensors"]
        trained = search._training.trainings[0].module.state_dict()
        finish = trial(kept, architectures[0], architecture_id=key, stage="finish")
        finish._begin()
        started = finish._training.trainings[0].module.state_dict()
        assert all(torch.equal(trained[name], started[name]) for name in trained)

    def test_an_unfinished_training_of_a_killed_run_is_continued(
        self, context, architectures, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("trainables.distillation.PARTIAL_EVERY_S", 0.0)
        kept = dataclasses.replace(context, weights_folder=str(tmp_path))
        whole = results(trial(context, architectures[0]))
        results(trial(kept, architectures[0], architecture_id="abc"), 2)
        last = trial(kept, architectures[0], architecture_id="abc").train()
        assert {name: last[name] for name in whole[2]} == whole[2]
        assert [path.name for path in tmp_path.iterdir()] == ["search-abc.safetensors"]

    def test_inherited_weights_are_slices_of_the_teacher(self, context, architectures, problem):
        first = dataclasses.replace(problem, config=with_inherit(problem, "first"))
        trainable = trial(make_untrained(first), architectures[0])
        trainable._begin()
        student = context.search_space.apply(architectures[0])
        expected = build(student, inherit_from=problem.teacher).state_dict()
        found = trainable._training.trainings[0].module.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)

    @pytest.mark.parametrize("stage", ["search", "uniform", "finish"])
    def test_the_channels_that_a_ranking_prefers_are_inherited(
        self, problem, context, architectures, stage, tmp_path
    ):
        ranked = dataclasses.replace(problem, config=with_inherit(problem, "taylor"))
        shared = make_untrained(ranked, scores_folder=tmp_path)
        trainable = trial(shared, architectures[0], stage=stage)
        trainable._begin()
        student = context.search_space.apply(architectures[0])
        scores = load_scores(tmp_path / "importance-taylor.safetensors", problem.architecture)
        keep = keep_sets(student, problem.architecture, scores)
        expected = build(student, inherit_from=problem.teacher, keep=keep).state_dict()
        found = trainable._training.trainings[0].module.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        first = build(student, inherit_from=problem.teacher).state_dict()
        assert not all(torch.equal(found[name], first[name]) for name in first)

    def test_a_trial_may_name_the_channels_that_its_student_keeps(
        self, problem, context, architectures
    ):
        rng = np.random.default_rng(0)
        sizes = [len(v) for v in l1_importance(problem.architecture, state_of(problem.teacher))]
        named = {name: [rng.random(size) for size in sizes] for name in ("one", "other")}
        shared = dataclasses.replace(context, rankings=named)
        student = context.search_space.apply(architectures[0])
        found = {}
        for name, scores in named.items():
            trainable = trial(shared, architectures[0], channels=name)
            trainable._begin()
            keep = keep_sets(student, problem.architecture, scores)
            expected = build(student, inherit_from=problem.teacher, keep=keep).state_dict()
            found[name] = trainable._training.trainings[0].module.state_dict()
            assert all(torch.equal(found[name][key], expected[key]) for key in expected)
        assert not all(torch.equal(found["one"][key], found["other"][key]) for key in found["one"])

    def test_channels_that_nobody_knows_make_an_invalid_student(self, context, architectures):
        result = trial(context, architectures[0], channels="mine").train()
        assert result["status"] == "invalid"
        assert "channels: 'mine' is not known" in result["reason"]

    def test_inheriting_nothing_initialises_afresh(self, problem, architectures):
        alone = dataclasses.replace(problem, config=with_inherit(problem, "none"))
        shared = make_untrained(alone)
        trainable = trial(shared, architectures[0])
        trainable._begin()
        theirs = problem.teacher.state_dict()
        for name, weight in trainable._training.trainings[0].module.named_parameters():
            if weight.ndim > 1:
                assert torch.isin(weight, theirs[name]).float().mean() < 0.01, name

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

    def test_the_weights_of_the_best_repeat_are_kept(self, context, architectures, tmp_path):
        shared = dataclasses.replace(
            context, repeats={"search": 3}, weights_folder=str(tmp_path), init={"finish": "search"}
        )
        trainable = trial(shared, architectures[0], architecture_id="a")
        last = [trainable.train() for _ in range(3)][-1]
        best = last["loss_repeats"].index(min(last["loss_repeats"]))
        wanted = trainable._training.trainings[best].module.state_dict()
        kept = load_file(tmp_path / "search-a.safetensors")
        assert all(torch.equal(kept[name], wanted[name]) for name in wanted)
        others = (number for number in range(3) if number != best)
        for other in others:
            state = trainable._training.trainings[other].module.state_dict()
            assert not all(torch.equal(kept[name], state[name]) for name in state)
        assert "accuracy_repeats" not in trial(shared, architectures[0], stage="finish").train()

    def test_a_run_killed_between_two_repeats_continues_exactly(
        self, context, architectures, tmp_path, monkeypatch
    ):
        shared = dataclasses.replace(context, repeats={"search": 3})
        whole = [trial(shared, architectures[0]).train()]
        monkeypatch.setattr("trainables.distillation.PARTIAL_EVERY_S", 0.0)
        kept = dataclasses.replace(shared, weights_folder=str(tmp_path))
        killed = trial(kept, architectures[0], architecture_id="a")
        killed._begin()
        with pytest.raises(KeyboardInterrupt):
            killed._training.train_epoch(Cut(killed._keep_unfinished, after=2))
        assert [one.epochs_done for one in killed._training.trainings] == [1, 1, 0]
        again = trial(kept, architectures[0], architecture_id="a")
        result = again.train()
        for name in ("accuracy_repeats", "loss_repeats", "reward", "epochs_trained"):
            assert result[name] == whole[0][name]
        again.save_checkpoint(str(tmp_path))
        other = trial(shared, architectures[1])
        other.reset({"architecture": architectures[0]})
        other.load_checkpoint(str(tmp_path))
        for _ in range(2):
            here, there = again.train(), other.train()
            assert here["loss_repeats"] == there["loss_repeats"]

    def test_fresh_repeats_begin_with_other_weights(self, context, architectures):
        shared = dataclasses.replace(context, repeats={"search": 2})
        for init, differ in (("inherit", False), ("fresh", True)):
            started = dataclasses.replace(shared, init={"search": init})
            trainable = trial(started, architectures[0])
            trainable._begin()
            one, other = (t.module.state_dict() for t in trainable._training.trainings)
            assert all(torch.equal(one[name], other[name]) for name in one) != differ

    def test_a_student_of_which_one_repeat_diverges_is_diverged(self, context, architectures):
        wild = {"search": {**context.recipes["search"], "optimizer": "sgd", "lr": 1e30}}
        shared = dataclasses.replace(context, recipes=wild, repeats={"search": 2})
        result = trial(shared, architectures[0]).train()
        assert (result["status"], result["epochs_done"], result["epochs_trained"]) == (
            "diverged", 1, 1,
        )  # fmt: skip


class Cut:
    """Does something so many times, then is interrupted."""

    def __init__(self, action, *, after):
        self.action, self.left = action, after

    def __call__(self):
        self.action()
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


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


def with_inherit(problem, ranking):
    """The problem's configuration with another choice of inherited channels."""
    distill = problem.config.distill.model_copy(update={"inherit": ranking})
    finish = problem.config.finish.model_copy(update={"init": "inherit"})
    return problem.config.model_copy(update={"distill": distill, "finish": finish})


def test_a_ranking_that_is_not_possible_is_refused_before_any_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingPackageError, match=r"distill.inherit: 'pruning' needs"):
        prepare(load_config({"distill": {"inherit": "pruning"}}))


def test_scores_that_a_run_has_left_are_used_again(problem, tmp_path):
    """A resumed run continues with the channels that it began with."""
    ranked = dataclasses.replace(problem, config=with_inherit(problem, "l1"))
    first = make_untrained(ranked, scores_folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["importance-l1.safetensors"]
    turned = [values[::-1].copy() for values in first.channel_scores]
    save_scores(tmp_path / "importance-l1.safetensors", problem.architecture, turned)
    again = make_untrained(ranked, scores_folder=tmp_path)
    for ours, stored in zip(again.channel_scores, turned, strict=True):
        assert np.array_equal(ours, stored)


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
