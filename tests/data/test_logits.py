"""The teacher's cached answers."""

from __future__ import annotations

import pickle

import numpy as np
import torch
from torch import nn

from raysearch.data import DataSet, distillation_data, from_arrays, make_views, teacher_logits
from raysearch.data.batches import DeviceBatches


def _teacher() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(3, 64, generator=generator))
        linear.bias.zero_()
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), linear)


def _data(augment: str = "crop") -> DataSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return from_arrays((images, np.arange(60) % 3), augment=augment)


def test_logits_are_the_teachers_answers_to_what_the_students_see() -> None:
    data, teacher = _data(), _teacher()
    found = distillation_data(data, teacher, num_views=4, batch_size=7)
    resident = found.to("cpu")
    assert found.logits is not None
    assert found.logits.dtype == np.float16
    assert found.logits.shape == (4, len(data.train), 3)
    indices, view = torch.tensor([5, 0, 9]), torch.tensor([3, 0, 2])
    with torch.no_grad():
        expected = teacher.eval()(resident.train.take(indices, view))
    assert resident.logits is not None
    assert torch.allclose(resident.logits[view, indices].float(), expected, rtol=2e-3, atol=2e-3)


def test_the_teacher_is_asked_in_evaluation_mode_and_given_back_as_it_was() -> None:
    data, teacher = _data(), _teacher().train()
    views = make_views(len(data.train), num_views=2, augment="crop", shape=data.shape, seed=0)
    first, second = (
        teacher_logits(teacher, data.train.images, views, data.preprocessing) for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert teacher.training


def test_large_answers_stay_finite_in_half_precision() -> None:
    data, teacher = _data("none"), _teacher()
    with torch.no_grad():
        teacher[2].weight.mul_(1e6)
    logits = distillation_data(data, teacher).logits
    assert logits is not None
    assert np.isfinite(logits).all()


def test_without_teacher_there_are_no_logits() -> None:
    assert distillation_data(_data()).logits is None


def test_trial_data_travel_by_pickle_and_hold_no_test_part() -> None:
    data = _data()
    found = pickle.loads(pickle.dumps(distillation_data(data, _teacher())))
    assert np.array_equal(found.train.images, data.train.images)
    assert not hasattr(found, "test")
    assert isinstance(found.to("cpu").validation, DeviceBatches)
