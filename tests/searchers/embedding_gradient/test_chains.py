"""Free chains: counted as their networks, repaired, fitted into budgets."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.architecture.sequences import decode_chain, sample_chains, valid_chains
from raysearch.errors import ConfigError
from raysearch.models import build
from searchers.embedding_gradient.chains import (
    ChainDomain,
    chain_costs,
    fitted,
    make_chain_domain,
    nearest_valid,
    scaled,
)
from searchers.testing import make_chain_space
from tests.architecture.conftest import resnet

SHAPE, CLASSES = (3, 16, 16), 10


def valid_rows(count, seed=0, sampler="restricted"):
    rows = sample_chains(4000, seed, SHAPE, CLASSES, sampler=sampler)
    return rows[valid_chains(rows, SHAPE, CLASSES)][:count]


def chain_of(rows):
    return [tuple(row) for row in rows.tolist() if row[0]]


@pytest.mark.parametrize("sampler", ["restricted", "paper"])
def test_parameters_and_macs_are_those_of_the_network(sampler):
    for rows in valid_rows(20, sampler=sampler):
        network = decode_chain(rows, SHAPE, CLASSES)
        assert chain_costs(chain_of(rows), SHAPE) == (network.num_params, network.macs)


def test_any_rows_with_a_convolution_become_a_network():
    rng = np.random.default_rng(0)
    num_made = 0
    for _ in range(300):
        rows = rng.integers(-2, 14, (20, 5))
        rows[:, 2] = rng.integers(-5, 60, 20)
        chain = nearest_valid(rows, SHAPE, CLASSES, max_rows=15)
        if chain is not None:
            num_made += 1
            assert len(chain) <= 15
            network = decode_chain(np.array(chain), SHAPE, CLASSES)
            assert network.num_params == chain_costs(chain, SHAPE)[0]
    assert num_made > 100


def test_what_is_valid_stays_as_it_is():
    for rows in valid_rows(30):
        assert nearest_valid(rows, SHAPE, CLASSES) == chain_of(rows)


def test_a_fitted_chain_is_as_wide_as_the_limit_allows():
    for rows in valid_rows(20):
        chain = chain_of(rows)
        limit = chain_costs(chain, SHAPE)[0] / 5
        found = fitted(chain, SHAPE, {"params": limit})
        assert found is not None
        params = chain_costs(found, SHAPE)[0]
        assert params <= limit
        wider = scaled(chain, SHAPE, found[0][2] / chain[0][2] * 1.3 + 0.05)
        assert chain_costs(wider, SHAPE)[0] > params
        assert [row[:2] for row in found] == [row[:2] for row in chain]
    assert fitted(chain, SHAPE, {"params": 5}) is None


@pytest.fixture(scope="module")
def space():
    return make_chain_space((16, 16, 16, 16), budget={"params": 0.5, "memory": 0.9})


@pytest.mark.parametrize(("faithful", "sampler"), [(False, "restricted"), (True, "paper")])
def test_students_are_buildable_smaller_than_the_teacher_and_within_every_limit(
    space, faithful, sampler
):
    domain = make_chain_domain(space, sampler, faithful=faithful)
    texts = domain.sample(10, np.random.default_rng(0))
    texts += domain.neighbours(texts, 10, np.random.default_rng(1))
    texts += domain.decode(domain.cloud(12, "params", np.random.default_rng(2))[0], [None] * 12)
    assert len(texts) > 20
    for text in texts:
        student = space.apply(text)
        assert student.num_params <= space.limits["params"] < space.teacher.num_params
        assert student.memory_bytes <= space.limits["memory"]
        module = build(student)
        assert sum(one.numel() for one in module.parameters()) == student.num_params


def test_sequences_of_texts_are_those_that_were_written(space):
    domain = make_chain_domain(space, "restricted", faithful=False)
    texts = domain.sample(5, np.random.default_rng(0))
    fresh = make_chain_domain(space, "restricted", faithful=False)
    assert np.array_equal(domain.rows(texts), fresh.rows(texts))
    assert domain.decode(domain.rows(texts), [None] * 5) == texts
    edits = str(space.smallest())  # a chain, too, with layers left out
    rows = domain.rows([edits])[0]
    assert (rows[:, 0] == 0).sum() == len(space.removable)
    assert rows[0, 0] != 0


def test_the_literal_sampler_rejects_what_is_too_large_and_never_shrinks_it(space):
    domain = make_chain_domain(space, "paper", faithful=True)
    for rows in domain.rows(domain.sample(5, np.random.default_rng(0))):
        widths = rows[(rows[:, 0] == 1), 2]
        assert (widths >= 16).all()


def test_the_longest_sequence_is_the_papers_or_the_teachers(space):
    assert make_chain_domain(space, "paper", faithful=True).num_rows == 50
    domain = make_chain_domain(space, "restricted", faithful=False)
    assert isinstance(domain, ChainDomain)
    assert domain.num_rows == 9


def test_a_teacher_that_is_no_chain_is_refused():
    from raysearch.architecture import SearchSpace

    with pytest.raises(ConfigError, match=r"options\.chains is true, but the teacher .* no chain"):
        make_chain_domain(SearchSpace(resnet()), "restricted", faithful=False)


def test_a_chain_that_is_too_long_is_refused_for_its_length():
    space = make_chain_space((2,) * 30)
    with pytest.raises(ConfigError, match=r"the teacher has 61 layers, and a chain at most 50"):
        make_chain_domain(space, "paper", faithful=True)
