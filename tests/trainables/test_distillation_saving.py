"""What a trial saves: it continues exactly, and finished weights are kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from tests.trainables.untrained import results, trial


class Cut:
    """Does something so many times, then is interrupted."""

    def __init__(self, action, *, after):
        self.action, self.left = action, after

    def __call__(self):
        self.action()
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("ray_cluster")
class TestTrial:
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
