"""The averaged model against its definition, and inside BoTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement, qLogExpectedImprovement
from botorch.sampling import SobolQMCNormalSampler

from benchmarks.tabular import TABLES
from raysearch.tables import Table
from searchers.insight import spearman
from searchers.multi_kernel_bo.acquisition import log_expected_improvement
from searchers.multi_kernel_bo.ensemble import AveragedModel, FeatureGP, stacking_weight
from searchers.multi_kernel_bo.fit import FitOptions, fit_all
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.multi_kernel_bo.members import MemberOptions, make_embeddings, make_members, subsets
from searchers.surrogate import Surrogate

NUM = 12


@pytest.fixture(scope="module")
def data(space, inputs):
    """X and y of twelve students."""
    students = space.sample(NUM, 0)
    return inputs(students), 0.5 + 0.01 * students.widths.mean(axis=1)


@pytest.fixture
def model(space, inputs, data):
    X, y = data
    blocks = list(space.feature_blocks.values())
    features = FeatureGP(X, torch.from_numpy(y)[:, None], blocks)
    options = MemberOptions(3)
    embeddings = make_embeddings(inputs, options, [0])
    rows = subsets(NUM, options, [0])
    learned = make_members(X, y, inputs.teacher(), embeddings, rows, options)
    return AveragedModel(features, [one.eval() for one in learned])


@pytest.fixture(scope="module")
def new(space, inputs):
    return inputs(space.sample(8, 1))


@pytest.mark.parametrize("shape", [(8, 1), (8,), (4, 2), (2, 2, 2)])
@pytest.mark.parametrize("weight", [0.5, 0.8])
def test_the_mean_is_weighted_and_the_deviation_is_that_of_the_features(model, new, shape, weight):
    model.weight = weight
    X = new.reshape(*shape, -1)
    with torch.no_grad():
        posterior = model.posterior(X)
        features = model.features.posterior(X)
        learned = torch.stack([one.posterior(new).mean[:, 0] for one in model.learned]).mean(0)
    expected = weight * features.mean[..., 0] + (1 - weight) * learned.reshape(shape)
    assert torch.allclose(posterior.mean[..., 0], expected, atol=1e-9)
    assert torch.allclose(
        posterior.distribution.covariance_matrix, features.distribution.covariance_matrix
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_stacked_weight_errs_the_least_of_all(seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=30)
    first, second = y + rng.normal(0, 0.5, 30), y + rng.normal(0.3, 1.5 * rng.random(), 30)
    weights = np.linspace(0, 1, 1001)
    errors = [np.square(w * first + (1 - w) * second - y).sum() for w in weights]
    found = stacking_weight(y, first, second)
    assert found == pytest.approx(weights[int(np.argmin(errors))], abs=1e-3)


def test_the_stacked_weight_stays_within_bounds():
    y = np.array([0.0, 1.0, 2.0])
    assert stacking_weight(y, y, y + 1) == 1
    assert stacking_weight(y, y + 1, y) == 0
    assert stacking_weight(y, y + 1, y + 2) == 1  # 2 without the bound
    assert stacking_weight(y, y, y) == 0.5


def test_the_process_on_features_is_that_of_the_method_gp(model, space, data, new):
    X, y = data
    num = model.features.num_features
    plain = Surrogate(X[:, -num:].numpy(), y, list(space.feature_blocks.values()))
    mean, sd = plain.predict(new[:, -num:].numpy())
    with torch.no_grad():
        posterior = model.features.posterior(new)
    np.testing.assert_allclose(posterior.mean[:, 0], mean, rtol=1e-9)
    np.testing.assert_allclose(posterior.variance[:, 0].sqrt(), sd, rtol=1e-6)
    np.testing.assert_allclose(model.features.predict(new[:, -num:].numpy()), (mean, sd))


def test_without_learned_kernels_the_features_stand_alone(model, new):
    with torch.no_grad():
        alone = AveragedModel(model.features, []).posterior(new).distribution
        features = model.features.posterior(new).distribution
    assert torch.equal(alone.mean, features.mean)
    assert torch.equal(alone.covariance_matrix, features.covariance_matrix)


def test_a_believed_student_keeps_every_mean_and_shrinks_deviations(model, new):
    features = new[:, -model.features.num_features :].numpy()
    mean, sd = model.features.predict(features)
    model.features.believe(features[:2])
    believed_mean, believed_sd = model.features.predict(features)
    np.testing.assert_allclose(believed_mean, mean, atol=1e-9)
    assert (believed_sd <= sd + 1e-12).all()
    assert (believed_sd[:2] < 0.9 * sd[:2]).all()
    model.features.forget_beliefs()
    np.testing.assert_allclose(model.features.predict(features)[1], sd, rtol=1e-9)


def test_botorchs_acquisition_functions_take_it_as_it_is(model, new):
    with torch.no_grad():
        posterior = model.posterior(new)
        best_f = float(posterior.mean.max())
        mu, sigma = posterior.mean[:, 0], posterior.variance[:, 0].sqrt()
        own = log_expected_improvement(mu, sigma, torch.full((8,), best_f, dtype=torch.float64))
        botorch = LogExpectedImprovement(model, best_f=best_f)(new[:, None])
        sampler = SobolQMCNormalSampler(torch.Size([64]), seed=0)
        batch = qLogExpectedImprovement(model, best_f=best_f, sampler=sampler)(new[None, :3])
    assert torch.allclose(own, botorch, atol=1e-4)
    assert batch.shape == (1,)
    assert batch >= own[:3].max() - 0.5, "three students improve on the best at least as one does"


def test_the_average_ranks_really_trained_students_better_than_its_members():
    """On 101 students of the digits table within 3 % of the parameters: learned from 32 of them, asked about the others."""
    table = Table.read(TABLES / "digits_resnet14.parquet")
    space = table.space({"params": 0.03})
    texts = table.rows.query("budget == 0.03").architecture.drop_duplicates().tolist()
    values = np.array([np.exp(-table.evaluate(text).loss[-1]) for text in texts])
    inputs = Inputs.of(space)
    options = MemberOptions(num_kernels=4, encoder="mlp")
    ranks: dict[str, list[float]] = {"average": [], "features": [], "learned": []}
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(texts))
        seen, asked = order[:32], order[32:]
        X = inputs(space.batch(texts[row] for row in seen))
        Y = torch.as_tensor(values[seen])[:, None]
        features = FeatureGP(X, Y, list(space.feature_blocks.values()))
        embeddings = make_embeddings(inputs, options, [seed])
        rows = subsets(len(seen), options, [seed])
        learned = make_members(X, values[seen], inputs.teacher(), embeddings, rows, options)
        fit_all(learned, FitOptions(lr=3e-3))
        with torch.no_grad():
            new = inputs(space.batch(texts[row] for row in asked))
            model = AveragedModel(features, learned)
            base = features.posterior(new[:, None]).mean[:, 0, 0]
            average = model.posterior(new[:, None]).mean[:, 0, 0]
            ranks["average"].append(spearman(average, values[asked]))
            ranks["features"].append(spearman(base, values[asked]))
            ranks["learned"] += [spearman(one.means(new), values[asked]) for one in learned]
    means = {name: float(np.mean(found)) for name, found in ranks.items()}
    assert means["average"] > means["features"]
    assert means["average"] > means["learned"]
