"""Near descents: students around good ones that lie where the regressors' gradients point."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.sequences import encode_students
from searchers.algorithm import Observation
from searchers.embedding_gradient.chains import make_chain_domain
from searchers.embedding_gradient.domain import EditsDomain
from searchers.embedding_gradient.fitting import Fitter
from searchers.embedding_gradient.proposing import DescentStep, past_error, shared_out
from searchers.testing import make_chain_space
from tests.searchers.embedding_gradient.conftest import learned_of, options_of


@pytest.mark.parametrize("seed", range(3))
def test_near_descents_find_what_the_model_likes_among_the_neighbours(space, trained, seed):
    """On average better, by the model, than random neighbours of the same students; and new, since a start is no find."""
    domain, model = trained
    options = options_of(space, num_local=24, num_regressors=4, lam=(0.0,))  # accuracy alone
    step = DescentStep(space, domain, options, None, Fitter(domain, options))
    good, _ = learned_of(space, 8, seed=20 + seed)
    found = step.near(model, good, np.random.default_rng(seed))
    assert len(found) == len(set(found)) > 24
    neighbours = domain.neighbours(good, 200, np.random.default_rng(seed))
    liked, chance = (
        model.predict(model.embed(domain.rows(texts)))[0].mean() for texts in (found, neighbours)
    )
    assert liked > chance


@pytest.mark.parametrize("budget", [None, {"params": 0.3}])
def test_students_around_are_legal_and_their_rows_are_theirs(budget):
    space = make_chain_space((8, 8, 8, 8), budget=budget)
    domain = EditsDomain(space)
    texts = [str(edits) for edits in space.sample(5, 0)]
    rows, text_at = domain.around(texts, 7, np.random.default_rng(0))
    assert rows.shape == (5, 8, 9, 5)
    for start, text in enumerate(texts):
        assert text_at(start, 0) == text
        around = space.batch([text_at(start, place) for place in range(8)])
        assert space.within_budget(around).all()
        assert (encode_students(space, around) == rows[start]).all()
    assert len({text_at(0, place) for place in range(8)}) > 4


def test_chains_around_a_chain_are_within_the_budget_and_read_as_their_rows():
    space: SearchSpace = make_chain_space((8, 8, 8), budget={"params": 0.3})
    domain = make_chain_domain(space, "restricted", faithful=False)
    texts = domain.sample(3, np.random.default_rng(0))
    rows, text_at = domain.around(texts, 20, np.random.default_rng(1))
    for start, text in enumerate(texts):
        assert text_at(start, 0) == text
        for place in range(rows.shape[1]):
            found = text_at(start, place)
            assert space.apply(found).num_params <= space.limits["params"]
            assert (domain.rows([found])[0] == rows[start, place]).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 2 / 3, 1.0])
def test_two_kinds_are_shared_out_each_in_its_order(share):
    order = np.random.default_rng(0).permutation(40).tolist()
    second = [one % 2 == 1 for one in order]
    found = shared_out(order, second, share)
    assert sorted(found) == sorted(order)
    for kind in (0, 1):
        assert [one for one in found if one % 2 == kind] == [
            one for one in order if one % 2 == kind
        ]
    for n in range(1, 21):  # while there are both
        assert sum(one % 2 for one in found[:n]) == int(n * share + 1e-9)


def test_where_one_kind_ends_the_other_goes_on():
    assert shared_out([3, 2, 1, 0], [True, False, False, False], 0.5) == [2, 3, 1, 0]
    assert shared_out([1, 0], [True, True], 0.0) == [1, 0]


def test_the_error_of_predictions_is_that_of_the_newest_proposals():
    def told(value: float, **extra: float) -> Observation:
        return Observation("e", value, 1.0, "full", extra=extra)

    warm_up = [told(0.1)] * 9
    assert past_error([*warm_up, *[told(0.5, predicted=0.9)] * 3]) == 0.0
    errors = [told(0.5, predicted=0.9), told(0.5, predicted=0.2)] * 2
    assert past_error([*warm_up, *errors]) == pytest.approx(np.sqrt((0.4**2 + 0.3**2) / 2))
    assert past_error([*errors, *[told(0.5, predicted=0.5)] * 32]) == 0.0
