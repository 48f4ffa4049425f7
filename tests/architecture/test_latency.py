"""Latency limits with meters whose answers are known."""

import math

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.latency import MEASURED, ROUNDS, LatencyModel
from raysearch.architecture.ops import OPS
from raysearch.errors import BudgetError


class Stairs:
    """Times with steps, as real hardware has: channels count in eights, and a layer costs something of its own."""

    def __init__(self):
        self.calls = []

    def __call__(self, architecture):
        self.calls.append(architecture.id)
        ms = 0.005
        for layer in architecture.layers:
            if not OPS[layer.op].is_view:
                wide = -(-layer.shape[0] // 8) * 8
                ms += 0.0005 + 2e-6 * wide * math.prod(layer.shape[1:])
        return ms


class Chaos(Stairs):
    """Times that have nothing to do with the work, except of the smallest student."""

    def __call__(self, architecture):
        self.calls.append(architecture.id)
        return 0.1 if architecture.num_params < 3000 else 0.2 + int(architecture.id[:4], 16) / 65536


def limit(meter, teacher, share):
    return {"latency_ms": share * meter(teacher)}


@pytest.mark.parametrize("share", [0.7, 0.35])
def test_no_student_is_outside_and_repair_is_idempotent(teacher, share):
    meter = Stairs()
    space = SearchSpace(teacher, budget=limit(meter, teacher, share), latency=meter)
    for seed in range(4):
        batch = space.mutate(space.sample(8, seed=seed), seed)
        ms = np.array([meter(space.apply(edits)) for edits in batch])
        assert (ms <= space.limits["latency_ms"]).all()
        assert np.median(ms) >= 0.8 * space.limits["latency_ms"]
        assert space.within_budget(batch).all()
        assert space.latency_ms(batch).tolist() == ms.tolist()
        assert list(space.repair(batch)) == list(batch)


def test_repair_ends_inside_the_limit_whatever_the_meter_says(networks):
    meter = Chaos()
    space = SearchSpace(networks["resnet"](), budget={"latency_ms": 0.25}, latency=meter)
    before = len(meter.calls)
    batch = space.sample(20, seed=0)
    assert space.within_budget(batch).all()
    assert len(meter.calls) - before <= 20 * ROUNDS
    assert list(space.repair(batch)) == list(batch)


def test_latency_holds_together_with_other_limits(teacher):
    meter = Stairs()
    budget = {**limit(meter, teacher, 0.6), "params": 0.3, "memory": 0.5}
    space = SearchSpace(teacher, budget=budget, latency=meter)
    batch = space.sample(16, seed=1)
    assert space.within_budget(batch).all()
    for edits in batch:
        student = space.apply(edits)
        assert student.num_params <= space.limits["params"]
        assert student.memory_bytes <= space.limits["memory"]
        assert meter(student) <= space.limits["latency_ms"]


def test_every_architecture_is_measured_once_and_large_batches_are_not(networks):
    meter = Stairs()
    teacher = networks["vgg"]()
    space = SearchSpace(teacher, budget={"latency_ms": 0.3}, latency=meter)
    space.sample(10, seed=0)
    space.sample(10, seed=0)
    assert len(meter.calls) == len(set(meter.calls))
    before = len(meter.calls)
    space.sample(MEASURED + 1, seed=1)
    space.sample(5, seed=1, measured=False)
    assert len(meter.calls) == before


def test_the_model_is_exact_where_the_time_is_linear(teacher):
    def meter(architecture):
        made = [layer for layer in architecture.layers if not OPS[layer.op].is_view]
        written = 4 * sum(math.prod(layer.shape) for layer in made)
        return 0.1 + 0.01 * len(made) + 3e-7 * architecture.macs + 2e-7 * written

    space = SearchSpace(teacher)
    students = [space.apply(edits) for edits in space.sample(20, seed=0)]
    model = LatencyModel.fit(students, [meter(student) for student in students])
    others = [space.apply(edits) for edits in space.sample(20, seed=1)]
    assert [model.ms(other) for other in others] == pytest.approx([meter(a) for a in others])
    limited = SearchSpace(teacher, budget={"latency_ms": 0.5 * meter(teacher)}, latency=meter)
    batch = limited.sample(MEASURED + 40, seed=2)  # by the model alone
    ms = np.array([meter(limited.apply(edits)) for edits in batch])
    assert ms.max() <= limited.limits["latency_ms"]
    assert np.median(ms) >= 0.8 * limited.limits["latency_ms"]


def test_no_coefficient_of_the_model_is_negative(networks):
    rng = np.random.default_rng(0)
    space = SearchSpace(networks["resnet"]())
    students = [space.apply(edits) for edits in space.sample(8, seed=0)]
    for _ in range(20):
        model = LatencyModel.fit(students, rng.uniform(0.1, 1.0, len(students)))
        assert min(model.base, model.per_layer, model.per_mac, model.per_byte) >= 0


def test_a_latency_that_no_student_reaches_names_the_smallest_one(networks):
    meter = Stairs()
    teacher = networks["resnet"]()
    free = SearchSpace(teacher)
    least = meter(free.apply(free.smallest()))
    with pytest.raises(BudgetError, match=rf"budget\.latency_ms.*{least:.4g} ms"):
        SearchSpace(teacher, budget={"latency_ms": 0.99 * least}, latency=meter)
    space = SearchSpace(teacher, budget={"latency_ms": 1.001 * least}, latency=meter)
    assert space.within_budget(space.sample(5, seed=0)).all()


def test_with_an_accuracy_floor_students_are_not_grown(networks):
    teacher = networks["resnet"]()
    space = SearchSpace(teacher, budget={"accuracy": 0.9, "params": 0.5, "memory": 0.8})
    free = SearchSpace(teacher).sample(200, seed=0)
    batch = space.sample(200, seed=0)
    assert space.within_budget(batch).all()
    small = space.within_budget(free)
    assert 0 < small.sum() < 200
    assert list(batch[small]) == list(free[small])
    assert list(space.repair(batch)) == list(batch)
