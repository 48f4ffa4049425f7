"""Teachers are trained once and kept by content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raysearch.data import DataSet, cache_folder
from raysearch.errors import RunError
from trainables.recipe import Recipe
from trainables.teacher import cached_teacher, teacher_key, teacher_recipe, train_teacher
from trainables.training import evaluate

from .conftest import Network


def _entry() -> Path:
    (folder,) = (cache_folder() / "teachers").iterdir()
    return folder


def test_a_teacher_learns_and_reports(data: DataSet, network: Network) -> None:
    events: list[dict[str, Any]] = []
    module = network()
    card = train_teacher(module, data, epochs=12, progress=events.append)
    assert card["accuracy"] > 0.9
    assert card["history"] == events
    assert events[-1]["epoch"] == events[-1]["epochs"] == 12
    assert {"train_loss", "accuracy", "loss"} <= set(events[0])
    assert len(events) <= 12
    found = evaluate(module, data.validation.images, data.validation.labels, data.preprocessing)
    assert found["accuracy"] == card["accuracy"]
    json.dumps(card)


def test_the_weights_keep_their_layout(data: DataSet, network: Network) -> None:
    module = network()
    train_teacher(module, data, epochs=1, channels_last=True)
    assert all(parameter.is_contiguous() for parameter in module.parameters())


def test_a_teacher_that_diverges_is_an_error(data: DataSet, network: Network) -> None:
    recipe = Recipe(loss="ce", optimizer="sgd", lr=1e30, epochs=3, schedule="constant")
    with pytest.raises(RunError, match="diverged in epoch 1"):
        train_teacher(network(), data, epochs=3, recipe=recipe)


def test_the_second_time_comes_from_the_cache(data: DataSet, network: Network) -> None:
    first, second = network(), network(seed=1)
    card = cached_teacher(first, data, identity="small", epochs=2)
    again = cached_teacher(second, data, identity="small", epochs=2)
    assert (card["cached"], again["cached"]) == (False, True)
    assert again["accuracy"] == card["accuracy"]
    for one, two in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert not second.training
    assert sorted(file.name for file in _entry().iterdir()) == ["card.json", "weights.safetensors"]


def test_everything_that_matters_is_in_the_key() -> None:
    recipe = teacher_recipe(3)
    keys = {
        teacher_key("a", "hash", recipe, 0),
        teacher_key("b", "hash", recipe, 0),
        teacher_key("a", "other", recipe, 0),
        teacher_key("a", "hash", teacher_recipe(4), 0),
        teacher_key("a", "hash", recipe, 1),
    }
    assert len(keys) == 5
    assert teacher_key("a", "hash", recipe, 0) in keys


def test_teachers_cached_before_recipes_had_more_keys_are_found() -> None:
    """A key that version 0.1 gave."""
    recipe = teacher_recipe(20)
    assert teacher_key("a", "hash", recipe, 0) == "e0112efb642ee2640bf58b63c1e588d2"
    assert (
        teacher_key("a", "hash", replace(recipe, nesterov=False), 0)
        != "e0112efb642ee2640bf58b63c1e588d2"
    )


@pytest.mark.parametrize("damage", ["torn weights", "flipped bit", "no card", "torn card", "empty"])
def test_a_damaged_entry_is_trained_again_and_mended(
    damage: str, data: DataSet, network: Network
) -> None:
    card = cached_teacher(network(), data, identity="small", epochs=1)
    weights, text = _entry() / "weights.safetensors", _entry() / "card.json"
    content = bytearray(weights.read_bytes())
    if damage == "torn weights":
        weights.write_bytes(content[:100])
    elif damage == "flipped bit":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "no card":
        text.unlink()
    elif damage == "torn card":
        text.write_text(text.read_text()[:20])
    else:
        weights.unlink()
        text.unlink()
    again = cached_teacher(network(), data, identity="small", epochs=1)
    assert not again["cached"]
    assert again["accuracy"] == card["accuracy"]
    assert cached_teacher(network(), data, identity="small", epochs=1)["cached"]


def test_weights_of_another_shape_are_not_taken(data: DataSet, network: Network) -> None:
    cached_teacher(network(width=4), data, identity="same name", epochs=1)
    assert not cached_teacher(network(width=5), data, identity="same name", epochs=1)["cached"]


def test_a_cache_that_cannot_be_written_costs_only_the_cache(
    data: DataSet, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "file"))
    assert not cached_teacher(network(), data, identity="small", epochs=1)["cached"]
