"""The K learned kernels: their weights and which students each of them sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from searchers.multi_kernel_bo.members import MemberOptions, make_embeddings, make_members, subsets


def vectors(embeddings):
    return [torch.nn.utils.parameters_to_vector(one.parameters()) for one in embeddings]


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_weights_are_those_that_pytorch_itself_draws(inputs, encoder):
    """With the global generator at the same seed, which is left alone here."""
    seed = int(np.random.default_rng([3]).integers(2**62))
    before = torch.get_rng_state()
    drawn = vectors(make_embeddings(inputs, MemberOptions(2, encoder), [3]))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        from searchers.multi_kernel_bo.encoders import ENCODERS

        own = vectors(ENCODERS[encoder](len(inputs.columns.kept)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(drawn, own, strict=True))


def test_every_kernel_begins_anew_in_every_step(inputs):
    options = MemberOptions(3)
    first, again, other = (vectors(make_embeddings(inputs, options, [n])) for n in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    different = [*first, *other]
    for i, a in enumerate(different):
        assert not any(torch.equal(a, b) for b in different[:i])


def test_a_kernel_sees_each_student_with_probability_one_half():
    rows = subsets(1000, MemberOptions(8, max_students=1000), [0])
    sizes = [len(seen) for seen in rows]
    assert all(420 < size < 580 for size in sizes), "five standard deviations"
    assert len(set(map(tuple, rows))) == 8


def test_more_students_leave_what_was_drawn_for_the_first_ones():
    few, many = (subsets(count, MemberOptions(4), [0]) for count in (30, 100))
    for before, after in zip(few, many, strict=True):
        np.testing.assert_array_equal(before, after[after < 30])


def test_beyond_the_limit_a_kernel_sees_the_newest_of_its_own():
    everything = subsets(400, MemberOptions(2, max_students=1000), [0])
    limited = subsets(400, MemberOptions(2, max_students=50), [0])
    for full, kept in zip(everything, limited, strict=True):
        np.testing.assert_array_equal(kept, full[-50:])


def test_a_kernel_knows_the_teacher_and_its_own_students(space, inputs):
    X, y = inputs(space.sample(6, 0)), np.linspace(0, 1, 6)
    options, rows = MemberOptions(2, anchor=0.25), [np.array([0, 3, 5]), np.array([], int)]
    embeddings = make_embeddings(inputs, options, [0])
    made = make_members(X, y, inputs.teacher(), embeddings, rows, options)
    (train_X,) = made[0].train_inputs
    assert torch.equal(train_X, torch.cat([inputs.teacher(), X[[0, 3, 5]]]))
    assert made[0].train_targets.tolist() == [0.25, y[0], y[3], y[5]]
    assert made[1].train_targets.tolist() == [0.25]
