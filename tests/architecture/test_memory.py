"""Activation memory against hand counts and a brute-force simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.edits import Edits
from raysearch.architecture.ops import OPS
from raysearch.errors import BudgetError


def test_a_chain_holds_two_tensors_at_once(builder):
    b = builder(1, 4, 4)
    b.conv("a", 2)
    b.conv("b", 3)
    b.conv("c", 1)
    assert b.done().peak_memory_bytes == 4 * 16 * (2 + 3)


def test_views_own_nothing_but_keep_their_source(builder):
    b = builder(1, 4, 4)
    b.conv("a", 2)
    b.add("drop", "dropout", fn="dropout", p=0.5)
    b.flatten()
    b.linear("fc", 8)
    assert b.done().peak_memory_bytes == 4 * (2 * 16 + 8)


def test_a_residual_block_holds_its_shortcut(builder):
    b = builder(1, 4, 4)
    start = b.conv("a", 2)
    b.conv("b", 2)
    b.conv("c", 2)
    b.add("add", "add", "c", start)
    # a lives until the addition, which reads a and c and makes its own: three at once
    assert b.done().peak_memory_bytes == 4 * 16 * 2 * 3


def test_a_slot_of_three_producers_is_two_additions(builder):
    b = builder(1, 4, 4)
    for name in "abc":
        b.conv(name, 2, source="x")
    b.add("relu", "unary", ("a", "b", "c"), fn="relu", args=[], kwargs={})
    # a, b, c live when a + b is made: four tensors; (a + b) + c: three; relu: two
    assert b.done().peak_memory_bytes == 4 * 16 * 2 * 4


def simulate(architecture):
    """Runs the operations one by one with explicit reference counts."""
    program = []
    for layer in architecture.layers:
        slots = []
        for first, *rest in layer.inputs:
            total = first
            for k, name in enumerate(rest):
                temporary = f"{layer.name}/{len(slots)}/{k}"
                size = math.prod(architecture[first].shape)
                program.append((temporary, [total, name], size, False))
                total = temporary
            slots.append(total)
        program.append((layer.name, slots, math.prod(layer.shape), OPS[layer.op].is_view))
    owners, sizes, peak = {}, {}, 0
    for step, (name, reads, size, is_view) in enumerate(program):
        owners[name] = owners[reads[0]] if is_view and reads else name
        sizes[name] = 0 if is_view else size
        needed = {owners[r] for _, later, _, _ in program[step:] for r in later if r in owners}
        needed |= {owners[name]} | {owners[r] for r in reads}
        peak = max(peak, sum(sizes[owner] for owner in needed))
    return 4 * peak


def test_students_peak_as_a_simulation_says(teacher):
    space = SearchSpace(teacher, grouping="by_size", budget={"params": 0.3})
    for edits in space.sample(12, seed=1):
        student = space.apply(edits)
        assert student.peak_memory_bytes == simulate(student)


def test_weights_are_parameters_and_buffers_and_count_once_where_shared(builder):
    b = builder(1, 4, 4)
    b.conv("a", 2)
    b.bn("bn")
    network = b.done()
    # 18 weights; scale, shift, mean and variance of two channels; one 8-byte counter
    assert network.memory_bytes == network.peak_memory_bytes + 4 * (18 + 8) + 8


@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
def test_a_batch_counts_memory_as_each_student_does(teacher, grouping):
    space = SearchSpace(teacher, grouping=grouping)
    batch = space.mutate(space.sample(60, seed=1), 2)
    assert len(batch.skip_rows) > 20
    expected = [space.apply(edits).memory_bytes for edits in batch]
    assert space.memory(batch).tolist() == expected
    assert space.memory(space.largest()).tolist() == [teacher.memory_bytes]


def test_a_slot_of_several_producers_in_the_teacher_counts_in_batches(builder):
    b = builder(1, 4, 4)
    for name in "abc":
        b.conv(name, 2, source="x")
    b.add("relu", "unary", ("a", "b", "c"), fn="relu", args=[], kwargs={})
    b.add("drop", "dropout", ("relu", "a"), fn="dropout", p=0.5)
    b.conv("d", 2)
    b.add("last", "add", "d", "relu")
    b.conv("logits", 3)
    space = SearchSpace(b.done())
    batch = space.mutate(space.sample(50, seed=0), 1)
    assert space.memory(batch).tolist() == [space.apply(e).memory_bytes for e in batch]


def test_weights_that_are_not_trained_count_as_what_they_are(builder):
    b = builder(3, 8, 8)
    b.conv("a", 12)
    b.conv("blur", 12, groups=12)
    b.conv("fixed", 10, bias=True)
    b.conv("b", 6)
    b.mean()
    b.linear("fc", 4)
    network = b.done()
    layers = tuple(
        replace(layer, attrs={**layer.attrs, "untrained": ["weight"]})
        if layer.name in ("blur", "fixed")
        else layer
        for layer in network.layers
    )
    frozen = replace(network, layers=layers)
    assert frozen.memory_bytes == network.memory_bytes
    space = SearchSpace(frozen)
    batch = space.sample(30, seed=0)
    assert space.memory(batch).tolist() == [space.apply(e).memory_bytes for e in batch]


BUDGETS = (
    {"memory": 0.3},
    {"memory": 0.9},
    {"memory": 0.4, "params": 0.1},
    {"memory": 0.2, "params": 0.5, "macs": 0.3},
)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_no_student_is_outside_a_memory_budget_and_repair_is_idempotent(teacher, budget):
    space = SearchSpace(teacher, grouping="by_size", budget=budget)
    batch = space.mutate(space.sample(60, seed=0), 0)
    assert space.within_budget(batch).all()
    assert list(space.repair(batch)) == list(batch)
    for edits in batch[:15]:
        assert space.apply(edits).memory_bytes <= space.limits["memory"]


def test_a_memory_budget_is_filled(teacher):
    for share in (0.1, 0.3, 0.8):
        space = SearchSpace(teacher, budget={"memory": share})
        used = space.memory(space.sample(40, seed=0)) / space.limits["memory"]
        assert used.min() >= 0.9


def test_skips_go_where_the_smallest_widths_do_not_fit_with_them(networks):
    teacher = networks["resnet"]()
    free = SearchSpace(teacher)
    least = int(free.memory(free.smallest())[0])
    space = SearchSpace(teacher, budget={"memory": least})
    every = Edits((), free.largest().widths, tuple(range(len(free.skip_pairs))))
    batch = space.repair(space.batch([every, free.largest()]))
    assert space.within_budget(batch).all()
    wider = SearchSpace(teacher, ["shrink", "skip"], budget={"memory": int(1.5 * least)})
    kept = wider.repair(wider.batch([every]))
    assert 0 < len(kept.skip_pairs) < len(free.skip_pairs)


def test_memory_never_grows_where_a_layer_or_a_skip_goes(teacher):
    space = SearchSpace(teacher, grouping="by_size")
    rng = np.random.default_rng(0)
    for edits in space.sample(10, seed=3):
        before = space.memory(edits)[0]
        kept = tuple(s for s in edits.skips if rng.random() < 0.5)
        assert space.memory(Edits(edits.remove, edits.widths, kept))[0] <= before
        more = {*edits.remove, *rng.choice(space.removable, 2).tolist()}
        assert space.memory(Edits(tuple(more), edits.widths, edits.skips))[0] <= before


def test_a_memory_budget_that_no_student_meets_names_the_smallest_one(networks):
    teacher = networks["vgg"]()
    free = SearchSpace(teacher)
    least = free.apply(free.smallest()).memory_bytes
    with pytest.raises(BudgetError, match=rf"budget\.memory.*{least:,}"):
        SearchSpace(teacher, budget={"memory": least - 1})
