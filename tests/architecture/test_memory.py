"""Activation memory against hand counts and a brute-force simulation."""

import math

from raysearch.architecture import SearchSpace
from raysearch.architecture.ops import OPS


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
