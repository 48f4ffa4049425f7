"""Compression: the sign of equation 18, the trust region, and what descents do to true sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from searchers.embedding_gradient.descent import (
    Cloud,
    DescentOptions,
    Goal,
    descend,
    loss_at,
    one_step,
    walk,
)
from tests.searchers.embedding_gradient.conftest import learned_of

PAPERS = Goal(1.0, -3.0, below_is_fine=False)


@pytest.fixture
def starts(space, trained):
    """Embeddings of students that the model has not seen."""
    domain, model = trained
    texts, _ = learned_of(space, 40, seed=7)
    return texts, model.embed(domain.rows(texts))


def test_a_small_step_lowers_the_loss_and_equation_18_as_printed_raises_it(trained, starts):
    _, model = trained
    _, Y = starts
    lam = torch.full((len(Y),), 0.3)
    before = loss_at(model.networks, Y, lam, PAPERS)
    eta = torch.full((len(Y),), 1e-3)
    down = loss_at(model.networks, one_step(model.networks, Y, lam, PAPERS, eta), lam, PAPERS)
    printed = loss_at(model.networks, one_step(model.networks, Y, lam, PAPERS, -eta), lam, PAPERS)
    assert (down < before).all()
    assert (printed > before).all()


def test_one_step_is_the_gradient_by_finite_differences(trained, starts):
    _, model = trained
    Y = starts[1][:2].double()
    networks = model.networks
    try:
        networks.double()
        lam, eta = torch.full((2,), 0.3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        step = one_step(networks, Y, lam, PAPERS, eta) - Y
        shift = torch.zeros_like(Y)
        shift[:, 1] = 1e-6
        slope = loss_at(networks, Y + shift, lam, PAPERS) - loss_at(
            networks, Y - shift, lam, PAPERS
        )
    finally:
        networks.float()
    assert torch.allclose(step[:, 1], -slope / 2e-6, rtol=1e-3, atol=1e-6)


def test_descents_lower_the_true_size_of_decoded_students(space, trained, starts):
    """On students that no network has seen: nearly every end is smaller than its start, and far smaller on the whole."""
    domain, model = trained
    texts, Y = starts
    path = descend(
        model.networks, model.cloud, Y, torch.full((len(Y),), 1.0), PAPERS, DescentOptions()
    )
    rows = domain.nearest(model.read(path[-1]))
    ends = [domain.decode(one[None], [None])[0] for one in rows]
    before, after = domain.sizes(texts, "params"), domain.sizes(ends, "params")
    large = before > np.median(before)
    assert (after < before)[large].mean() > 0.9
    assert np.exp(np.log(after / before)[large].mean()) < 0.5


def test_descents_in_one_batch_are_those_of_each_alone(trained, starts):
    _, model = trained
    Y, lam = starts[1][:3], torch.tensor([0.1, 0.3, 1.0])
    how = DescentOptions(num_steps=5)
    together = descend(model.networks, model.cloud, Y, lam, PAPERS, how)
    for place in range(3):
        part = slice(place, place + 1)
        alone = descend(model.networks, model.cloud, Y[part], lam[part], PAPERS, how)
        assert torch.allclose(together[:, part], alone, atol=1e-4)


def test_the_trust_region_keeps_descents_near_what_is_known(trained, starts):
    _, model = trained
    lam = torch.full((len(starts[1]),), 1.0)
    distance = {}
    for radius in (1.2, float("inf")):
        how = DescentOptions(num_steps=150, radius=radius)
        path = descend(model.networks, model.cloud, starts[1], lam, PAPERS, how)
        distance[radius] = model.cloud.whiten(path[-1]).square().mean(1).sqrt().mean().item()
    assert distance[1.2] < 1.6 < distance[float("inf")]


def test_a_cancelled_descent_is_short(trained, starts):
    _, model = trained
    lam = torch.full((len(starts[1]),), 1.0)
    path = descend(
        model.networks, model.cloud, starts[1], lam, PAPERS, DescentOptions(), lambda: True
    )
    assert path.shape == (0, *starts[1].shape)


def test_a_lower_confidence_bound_is_below_the_mean(trained, starts):
    _, model = trained
    lam = torch.zeros(len(starts[1]))
    mean, bound = (
        loss_at(model.networks, starts[1], lam, Goal(1.0, 0.0, below_is_fine=True, kappa=kappa))
        for kappa in (0.0, 1.0)
    )
    deviation = model.networks.f_a(starts[1]).std(0)
    assert torch.allclose(bound - mean, deviation, atol=1e-5)


def test_a_descent_that_believes_one_regressor_is_that_of_a_model_with_it_alone(trained, starts):
    _, model = trained
    Y = starts[1]
    lam, num = torch.zeros(len(Y)), len(model.networks.f_a.weights[0])
    which = torch.arange(len(Y)) % num
    goal = Goal(1.0, 0.0, below_is_fine=True, kappa=2.0)
    loss = loss_at(model.networks, Y, lam, goal, which)
    a_hat = model.networks.f_a(Y)
    expected = torch.stack([1 - a_hat[int(one), place] for place, one in enumerate(which)])
    assert torch.allclose(loss, expected, atol=1e-6)


def test_a_walk_goes_down_by_steps_of_the_given_length(trained, starts):
    _, model = trained
    Y = starts[1][:3]
    lam, which = torch.full((3,), 0.3), torch.tensor([0, 1, 2])
    length = torch.tensor([0.0, 0.005, 0.01])
    path = walk(model.networks, model.cloud, Y, lam, PAPERS, which, length, 4)
    points = torch.cat([Y[None], path])
    moved = model.cloud.whiten(points).diff(dim=0).norm(dim=2)
    assert torch.allclose(moved, length.expand(4, 3), atol=1e-3)
    before, *_, after = (loss_at(model.networks, one, lam, PAPERS, which) for one in points)
    assert (after < before)[1:].all()


def test_whitened_points_of_the_cloud_are_round_and_come_back():
    generator = torch.Generator().manual_seed(0)
    Y = torch.randn(500, 3, generator=generator) @ torch.tensor(
        [[2.0, 0, 0], [1, 0.5, 0], [0, 0, 3]]
    )
    cloud = Cloud.of(Y)
    Z = cloud.whiten(Y)
    assert torch.allclose(Z.T.cov(), torch.eye(3), atol=0.05)
    assert torch.allclose(cloud.place(Z), Y, atol=1e-4)
