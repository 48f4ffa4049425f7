"""The weights that a student begins with: the teacher's, an earlier training's, or none."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
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
from tests.trainables.untrained import make_untrained, trial


def valid(rows):
    """Whether a sequence is a network for the digits."""
    return bool(valid_chains(rows[None], (1, 8, 8), 10)[0])


def with_inherit(problem, ranking):
    """The problem's configuration with another choice of inherited channels."""
    distill = problem.config.distill.model_copy(update={"inherit": ranking})
    finish = problem.config.finish.model_copy(update={"init": "inherit"})
    return problem.config.model_copy(update={"distill": distill, "finish": finish})


@pytest.mark.usefixtures("ray_cluster")
class TestTrial:
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

    def test_fresh_repeats_begin_with_other_weights(self, context, architectures):
        shared = dataclasses.replace(context, repeats={"search": 2})
        for init, differ in (("inherit", False), ("fresh", True)):
            started = dataclasses.replace(shared, init={"search": init})
            trainable = trial(started, architectures[0])
            trainable._begin()
            one, other = (t.module.state_dict() for t in trainable._training.trainings)
            assert all(torch.equal(one[name], other[name]) for name in one) != differ


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
