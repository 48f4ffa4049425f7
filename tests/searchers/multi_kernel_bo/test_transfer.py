"""Beginning a search with another one's kernels."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.errors import ConfigError
from searchers import MultiKernelBOSearch
from searchers.algorithm import Exhausted
from searchers.multi_kernel_bo import transfer
from searchers.multi_kernel_bo.algorithm import MultiKernelBOAlgorithm
from searchers.multi_kernel_bo.inputs import Inputs, LayerColumns
from searchers.registry import make_algorithm
from searchers.source import read_source
from searchers.state import dump_state, load_state
from searchers.testing import make_chain_space
from tests.searchers.multi_kernel_bo.conftest import accuracy_of, observed, some_observed
from tests.searchers.test_source import write_run

OPTIONS = {"num_kernels": 3, "num_candidates": 48, "num_initial": 4, "batch_size": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished search on a longer chain."""
    space = make_chain_space((8, 8, 8, 8, 8))
    return str(
        write_run(tmp_path_factory.mktemp("source") / "run", space, some_observed(space, 40))
    )


@pytest.fixture(scope="module")
def target():
    return make_chain_space((8, 8, 8))


def test_one_set_of_columns_reads_both_teachers(target):
    longer = make_chain_space((8, 8, 8, 8, 8))
    union = LayerColumns.of(longer, target)
    for space in (longer, target):
        own = LayerColumns.of(space)
        assert set(own.kept) <= set(union.kept)
        batch = space.sample(20, seed=1)
        assert union.encode(space, batch).sum() == own.encode(space, batch).sum()
    read = Inputs(longer, union, with_features=False)
    assert read.num_features == 0
    assert read(longer.sample(2, 0)).shape[1] % len(union.kept) == 0


@pytest.mark.parametrize(
    "form", [{}, {"encoder": "features"}, {"faithful": True, "encoder": "mlp"}]
)
def test_the_first_students_come_from_the_source_and_the_search_goes_on(target, source, form):
    algorithm = MultiKernelBOAlgorithm(target, warm_start=source, **OPTIONS, **form)
    origins = []
    for _ in range(8):
        proposal = algorithm.ask()
        origins.append(proposal.extra["origin"])
        algorithm.tell(observed(target, proposal.architecture, extra=proposal.extra))
    assert origins[:3] == ["transfer"] * 3
    assert "transfer" not in origins[3:]
    assert origins[-1] == "model"


def test_transfer_only_proposes_once_for_each_kernel_and_needs_no_outcome(target, source):
    algorithm = make_algorithm(
        "multi_kernel_bo", target, 0, {**OPTIONS, "transfer_only": True}, warm_start=source
    )
    texts = [algorithm.ask().architecture for _ in range(3)]
    assert len(set(texts)) == 3
    with pytest.raises(Exhausted):
        algorithm.ask()


@pytest.mark.parametrize("encoder", ["mlp", "features"])
def test_what_was_learned_elsewhere_beats_chance(source, encoder):
    """Both teachers' accuracies follow one law, of depth and width; nothing of the target is evaluated."""
    budget = make_chain_space((8, 8, 8), budget={"params": 0.5})
    chance = np.mean([accuracy_of(budget, str(one)) for one in budget.sample(300, seed=5)])
    chosen = []
    for seed in range(4):
        algorithm = MultiKernelBOAlgorithm(
            budget, seed=seed, encoder=encoder, warm_start=source, transfer_only=True, **OPTIONS
        )
        algorithm.ask()  # the scaled student
        chosen += [accuracy_of(budget, algorithm.ask().architecture) for _ in range(3)]
    assert np.mean(chosen) > chance


@pytest.mark.parametrize("faithful", [False, True])
def test_the_papers_kernels_keep_f_beside_a_teacher_of_zero_and_ours_learn_ratios_beside_one(
    target, source, faithful, monkeypatch
):
    seen, make = [], transfer.make_members

    def watch(*args):
        seen.extend(made := make(*args))
        return made

    monkeypatch.setattr(transfer, "make_members", watch)
    options = OPTIONS | {"encoder": "mlp", "faithful": faithful, "transfer_only": True}
    algorithm = MultiKernelBOAlgorithm(target, warm_start=source, **options)
    predicted = [algorithm.ask().extra["predicted"] for _ in range(3)]
    full = read_source(source).full
    ratios = [one.metrics["accuracy"] / one.metrics["teacher_accuracy"] for one in full]
    known = np.array([one.value for one in full] if faithful else ratios)
    for kernel in seen:
        anchor, *values = kernel.train_targets.tolist()
        assert anchor == (0 if faithful else 1)
        assert len(values) > 3
        assert all(np.isclose(known, value, atol=1e-9).any() for value in values)
    assert len(seen) == 3
    assert all(0 < value < 1.2 for value in predicted)


@pytest.mark.parametrize("encoder", ["mlp", "features"])
def test_a_transfer_that_is_partly_taken_goes_on_identically(target, source, encoder):
    def make():
        return MultiKernelBOAlgorithm(target, seed=3, encoder=encoder, warm_start=source, **OPTIONS)

    first = make()
    taken = first.ask()
    first.tell(observed(target, taken.architecture, extra=taken.extra))
    second = make()
    second.load_state_dict(load_state(dump_state(first.state_dict())))
    assert [first.ask() for _ in range(3)] == [second.ask() for _ in range(3)]


def test_the_searcher_takes_a_warm_start(target, source):
    searcher = MultiKernelBOSearch(
        target, warm_start=source, metric="reward", mode="max", **OPTIONS
    )
    assert searcher.suggest("a")["architecture"]


def test_a_method_that_cannot_begin_so_says_it(target, source):
    with pytest.raises(ConfigError, match="'gp' cannot begin with another search"):
        make_algorithm("gp", target, warm_start=source)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transfer_only": True}, "transfer_only is true, but search.warm_start names no run"),
        ({"transfer_only": 1}, "transfer_only must be true or false, got 1"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(target, options, words):
    with pytest.raises(ConfigError, match=words):
        MultiKernelBOAlgorithm(target, **options)
