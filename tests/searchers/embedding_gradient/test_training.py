"""Fits: what they reach, what they depend on, what they leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysearch.architecture.sequences import sample_chains, valid_chains
from searchers.embedding_gradient.domain import EditsDomain
from searchers.embedding_gradient.fitting import Fitter
from searchers.embedding_gradient.inputs import Coding
from searchers.embedding_gradient.model import SizeScale
from searchers.embedding_gradient.training import (
    Examples,
    FitDiverged,
    History,
    make_networks,
    refit,
)
from searchers.insight import spearman
from searchers.testing import make_chain_space
from tests.searchers.embedding_gradient.conftest import (
    SMALL,
    fit_options,
    learned_of,
    options_of,
)
from tests.searchers.embedding_gradient.test_autoencoder import shape_of

BRIEF = {**SMALL, "pretrain_steps": 15, "fit_steps": 10}
"""For what a fit depends on, not what it reaches."""


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float32)


def examples_of(space, count):
    _, learned = learned_of(space, count)
    coding = Coding.of(learned.rows, raw=False, aligned=True)
    sizes = np.log(learned.sizes)
    sizes = (sizes - sizes.mean()) / sizes.std()
    return learned, coding, Examples(coding(learned.rows), tensor(sizes), tensor(learned.values))


def test_sixteen_architectures_are_learned_by_heart():
    """decode(encode(x)) is x after rounding, and the regressors know their values."""
    learned, coding, examples = examples_of(make_chain_space((8, 8, 8, 8)), 16)
    shape = shape_of(coding.num_rows, embedding=16, channels=16, hidden=32)
    fitted, history = refit(
        make_networks(shape, 0),
        examples,
        None,
        fit_options(num_steps=400, lr=5e-3),
        0,
        lambda: False,
    )
    sequences = examples.sequences
    Y = fitted.encode(sequences.x, sequences.mask)
    assert np.array_equal(np.rint(coding.read(fitted.decode(Y))), learned.rows)
    assert (fitted.f_a(Y) - examples.values).abs().max() < 0.05
    assert (fitted.f_p(Y)[0] - examples.sizes).abs().max() < 0.1
    assert history.L[-1] < 0.05 * history.L[0]
    assert history.L[5] == pytest.approx(history.L_d[5] + history.L_a[5] + history.L_p[5])


def test_predicted_sizes_rank_unseen_students_as_their_true_sizes_do(space, trained):
    domain, model = trained
    texts, held_out = learned_of(space, 200, seed=99)
    with torch.no_grad():
        p_hat = model.networks.f_p(model.embed(domain.rows(texts)))[0].numpy()
    assert spearman(p_hat, np.log(held_out.sizes)) > 0.95


def test_predicted_accuracies_rank_unseen_students(space, trained):
    domain, model = trained
    texts, held_out = learned_of(space, 200, seed=99)
    predicted, deviation = model.predict(model.embed(domain.rows(texts)))
    assert spearman(predicted, held_out.values) > 0.7
    assert (deviation > 0).all()


def test_a_fit_depends_on_seed_and_observations_alone(space):
    _, learned = learned_of(space, 12)
    _, other = learned_of(space, 12, seed=5)

    def weights(*fits):
        fitter = Fitter(EditsDomain(space), options_of(space, **BRIEF))
        for seen, seed in fits:
            model = fitter.fit(seen, seed, lambda: False)
        return model.networks.state_dict()

    fresh, after, changed = (
        weights((learned, 0)),
        weights((other, 0), (learned, 0)),
        weights((learned, 1)),
    )
    assert all(torch.equal(fresh[name], after[name]) for name in fresh)
    assert not all(torch.equal(fresh[name], changed[name]) for name in fresh)


def test_a_cancelled_fit_is_forgotten(space):
    fitter = Fitter(EditsDomain(space), options_of(space, **BRIEF))
    _, learned = learned_of(space, 8)
    fitter.fit(learned, 0, lambda: True)
    assert not fitter.histories
    whole = fitter.fit(learned, 0, lambda: False)
    again = Fitter(EditsDomain(space), options_of(space, **BRIEF)).fit(learned, 0, lambda: False)
    assert torch.equal(whole.embed(learned.rows), again.embed(learned.rows))
    assert list(fitter.histories) == [8]


def test_cross_validation_never_shows_a_student_to_its_own_model(space):
    """A value that is changed alone moves all other predictions, not its own."""
    fitter = Fitter(EditsDomain(space), options_of(space, **BRIEF))
    _, learned = learned_of(space, 15)
    mean, sd = fitter.cross_validate(learned, 0)
    assert np.isfinite(mean).all()
    assert (sd >= 0).all()
    spread = learned.values.copy()
    inner = int(np.argsort(spread)[7])  # no extreme, which would move the others' unit
    spread[inner] += 1e-3
    moved, _ = fitter.cross_validate(type(learned)(learned.rows, spread, learned.sizes), 0)
    assert moved[inner] == mean[inner]
    assert (moved != mean).sum() > 5
    assert not fitter.histories


def test_a_loss_that_is_not_finite_is_named(space):
    _, coding, examples = examples_of(space, 8)
    spoilt = Examples(examples.sequences, examples.sizes, examples.values * torch.nan)
    with pytest.raises(FitDiverged, match="after 0 steps"):
        refit(
            make_networks(shape_of(coding.num_rows), 0),
            spoilt,
            None,
            fit_options(),
            0,
            lambda: False,
        )


@pytest.mark.parametrize(
    ("length", "expected"), [(3, [0, 1, 2]), (7, [0, 2, 4, 6]), (8, [1, 3, 5, 7])]
)
def test_a_history_is_thinned_and_keeps_its_end(length, expected):
    losses = [float(step) for step in range(length)]
    thin = History(5, losses, losses, losses, losses).thinned(4)
    assert thin["steps"] == expected
    assert thin["L"] == [float(step) for step in expected]
    assert thin["num_observations"] == 5


def test_the_papers_optimiser_lowers_its_loss(space):
    """SGD with Nesterov's momentum on raw numbers, of small widths here."""
    _, learned = learned_of(space, 16)
    coding = Coding.of(learned.rows, raw=True, aligned=False)
    sizes = tensor(learned.sizes / learned.sizes.std())
    examples = Examples(coding(learned.rows), sizes, tensor(learned.values))
    shape = shape_of(
        coding.num_rows, num_features=5, num_regressors=1, relu_head=True, by_position=False
    )
    options = fit_options(faithful=True, num_steps=300)
    _, history = refit(make_networks(shape, 0), examples, None, options, 0, lambda: False)
    assert history.L[-1] < 0.7 * history.L[0]


def test_the_papers_optimiser_bears_the_widths_of_its_literal_sampler():
    """Up to 4096; a mean squared error is infinite after two steps."""
    rows = sample_chains(3000, 0, (3, 32, 32), 10, sampler="paper")
    rows = rows[valid_chains(rows, (3, 32, 32), 10)]
    coding = Coding.of(rows, raw=True, aligned=False)
    examples = Examples(coding(rows), None, torch.full((len(rows),), 0.5))
    shape = shape_of(50, num_features=5, num_regressors=1, relu_head=True, by_position=False)
    options = fit_options(faithful=True, num_steps=30)
    _, history = refit(make_networks(shape, 0), examples, None, options, 0, lambda: False)
    assert max(history.L) < 5 * history.L[0]


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_the_papers_sizes_are_standardised_in_any_unit(unit):
    """Milliseconds deviate by less than one."""
    sizes = np.array([0.2, 0.5, 0.9, 1.4]) * unit
    for centred in (True, False):
        scale = SizeScale.of(sizes, log=False, centred=centred)
        expected = (sizes - (sizes.mean() if centred else 0.0)) / sizes.std()
        assert np.allclose(scale(sizes), expected)
    assert np.allclose(SizeScale.of(np.full(3, 7.0), log=False, centred=True)(7.0), 0.0)
