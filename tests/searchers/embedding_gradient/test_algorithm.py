"""The algorithm around the steps: proposals, saving, order and time of results, failures, warm starts, options."""

from __future__ import annotations

import json
import threading
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysearch.architecture import SearchSpace
from raysearch.architecture.sequences import decode_chain
from raysearch.errors import ConfigError
from raysearch.models import build
from searchers import EmbeddingGradientSearch
from searchers.algorithm import Exhausted, Observation
from searchers.embedding_gradient import faithful, fitting, training
from searchers.embedding_gradient.algorithm import EmbeddingGradientAlgorithm
from searchers.embedding_gradient.chains import make_chain_domain
from searchers.embedding_gradient.inputs import padded
from searchers.embedding_gradient.proposing import DescentStep
from searchers.embedding_gradient.training import FitDiverged
from searchers.state import dump_state, load_state
from searchers.testing import make_chain_space
from tests.architecture.conftest import resnet
from tests.searchers.driving import ask_and_tell, assert_option_is_refused
from tests.searchers.embedding_gradient.conftest import SMALL
from tests.searchers.multi_kernel_bo.conftest import observed, some_observed
from tests.searchers.test_source import write_run

TINY = {
    **SMALL,
    "pretrain_steps": 10,
    "fit_steps": 6,
    "num_starts": 4,
    "num_local": 4,
    "descent_steps": 8,
    "batch_size": 3,
}
OURS = {**TINY, "num_initial": 4}
FAITHFUL = {
    "faithful": True, "chains": False, "num_initial": 5, "fit_steps": 6, "channels": 8, "eta": [10.0, 300.0], "lam": [0.1, 1.0],
}  # fmt: skip
FREE = {**OURS, "chains": True}
PAPER = {**FAITHFUL, "chains": True, "sampler": "restricted"}
MODES = pytest.mark.parametrize(
    "options", [OURS, FAITHFUL, FREE, PAPER], ids=["ours", "faithful", "chains", "paper"]
)


@pytest.fixture(scope="module")
def space():
    return make_chain_space((8, 8, 8, 8))


def outcome(space, text):
    """An observation of edits, or of a chain: large ones are better."""
    if not text.startswith("json:"):
        return observed(space, text)
    share = space.apply(text).num_params / space.teacher.num_params
    metrics = {"accuracy": share, "teacher_accuracy": 1.0, "compression": 1 - share}
    return Observation(text, share * (1 - share**2), 1.0, "full", metrics=metrics)


def start(space, options, *, told=0, seed=0, **more):
    algorithm = EmbeddingGradientAlgorithm(space, seed=seed, **options, **more)
    go_on(algorithm, space, told)
    return algorithm


def go_on(algorithm, space, steps):
    return ask_and_tell(algorithm, steps, partial(outcome, space))


def restored(algorithm, space, options):
    other = EmbeddingGradientAlgorithm(space, **options)
    other.load_state_dict(load_state(dump_state(algorithm.state_dict())))
    return other


def wait(algorithm):
    while algorithm.busy:
        threading.Event().wait(0.002)


# Proposals


@pytest.mark.parametrize("seed", range(20))
def test_every_proposal_is_legal_new_and_within_the_budget(seed):
    """20 seeds, budgets of several kinds, by turns on a network with branches, as edits or as chains."""
    budget = [None, {"params": 0.3}, {"params": 0.5, "macs": 0.4}, {"memory": 0.5}][seed % 4]
    branches = seed % 5 == 4
    space = (
        SearchSpace(resnet(), budget=budget)
        if branches
        else make_chain_space((8, 8, 8), budget=budget)
    )
    options = FREE if seed % 5 == 3 else OURS
    algorithm = start(space, options, seed=seed)
    seen = set()
    for proposal in go_on(algorithm, space, 6):
        student = space.apply(proposal.architecture)
        assert student.id not in seen
        seen.add(student.id)
        for metric, limit in space.limits.items():
            found = {
                "params": student.num_params,
                "macs": student.macs,
                "memory": student.memory_bytes,
            }
            assert found[metric] <= limit
        assert student.num_params <= space.teacher.num_params
        if seed < 5:
            module = build(student)
            assert sum(one.numel() for one in module.parameters()) == student.num_params
    if (
        options is OURS
    ):  # a chain of a few layers is often over a budget of memory, and then a random one takes its place
        assert algorithm.ask().extra["origin"] in ("descent", "mutation")


def algorithm_proposals(algorithm, count):
    return [algorithm.ask() for _ in range(count)]


@MODES
def test_a_search_warms_up_and_then_descends(space, options):
    proposals = go_on(start(space, options), space, options["num_initial"] + 1)
    origins = [proposal.extra["origin"] for proposal in proposals]
    assert origins[:-1] == ["warm_up"] * options["num_initial"]
    assert origins[-1] in ("descent", "fallback")
    if options in (OURS, FREE):
        assert origins[-1] == "descent"
        assert {"predicted", "predicted_sd"} <= proposals[-1].extra.keys()


def test_a_budgets_search_begins_with_the_scaled_teacher():
    space = make_chain_space((8, 8, 8, 8), budget={"params": 0.3})
    proposals = go_on(start(space, OURS), space, 5)
    assert [one.extra["origin"] for one in proposals] == ["uniform", *["warm_up"] * 3, "descent"]


def test_a_skip_of_the_start_is_kept(space):
    """A sequence does not show it; the student that a descent begins with has it."""
    step = start(space, OURS, told=4)._step_of_mode()
    with_skip = next(str(one) for one in space.sample(100, 0) if one.skips)
    rows = step.domain.rows([with_skip])
    assert step.domain.decode(rows, [with_skip]) == [with_skip]
    (without,) = step.domain.decode(rows, [None])
    assert space.parse(without).skips == ()


# Saving and time


@MODES
@pytest.mark.parametrize("told", [2, 6])
def test_a_search_saved_anywhere_goes_on_identically(space, options, told):
    algorithm = start(space, options, told=told)
    taken = algorithm.ask()
    other = restored(algorithm, space, options)
    for one in (algorithm, other):
        one.tell(outcome(space, taken.architecture))
    assert go_on(other, space, 3) == go_on(algorithm, space, 3)


def test_a_search_saved_in_the_middle_of_a_batch_goes_on_identically(space):
    algorithm = start(space, OURS, told=4)
    before = algorithm_proposals(algorithm, 2)
    other = restored(algorithm, space, OURS)
    following = algorithm_proposals(algorithm, 4)
    assert algorithm_proposals(other, 4) == following
    assert len({one.architecture for one in before + following}) == 6
    assert {one.extra["origin"] for one in following} == {"descent", "mutation"}


@pytest.mark.parametrize("options", [OURS, FAITHFUL], ids=["ours", "faithful"])
def test_when_a_step_is_ready_does_not_change_what_it_gives(space, options):
    at_once, patient, watched = (start(space, options) for _ in range(3))
    for _ in range(8):
        expected = at_once.ask()
        wait(patient)
        assert not patient.busy
        _ = [watched.busy for _ in range(3)]
        assert patient.ask() == expected
        assert watched.ask() == expected
        for algorithm in (at_once, patient, watched):
            for text in list(algorithm._ledger.pending.values()):
                algorithm.tell(outcome(space, text))


def test_the_papers_form_waits_for_its_results(space):
    algorithm = start(space, FAITHFUL)
    proposals = algorithm_proposals(algorithm, 5)
    assert algorithm.ask() is None
    assert not algorithm.busy
    for proposal in proposals[:-1]:
        algorithm.tell(outcome(space, proposal.architecture))
        assert algorithm.ask() is None
    algorithm.tell(outcome(space, proposals[-1].architecture))
    assert algorithm.ask().extra["origin"] in ("descent", "fallback")


# Outcomes


@pytest.mark.parametrize("options", [OURS, FAITHFUL], ids=["ours", "faithful"])
def test_values_of_failed_and_stopped_students_do_not_matter(space, options):
    proposals = []
    for low in (0.0, 0.9):
        algorithm = start(space, options)
        asked = algorithm_proposals(algorithm, options["num_initial"])
        algorithm.tell(Observation(asked[0].architecture, low, 0.25, "stopped", (low,)))
        algorithm.tell(Observation(asked[1].architecture, None, 0.0, "failed"))
        for one in asked[2:]:
            algorithm.tell(outcome(space, one.architecture))
        proposals.append(algorithm.ask().architecture)
    assert proposals[0] == proposals[1]


def test_a_fit_that_diverges_gives_a_random_student_and_is_counted(space, monkeypatch):
    algorithm = start(space, OURS, told=4)
    wait(algorithm)

    def fail(*_args):
        raise FitDiverged("the loss is nan after 3 steps")

    monkeypatch.setattr(DescentStep, "__call__", fail)
    origins = [one.extra["origin"] for one in go_on(algorithm, space, 3)]
    assert "fallback" in origins
    assert algorithm.num_fallbacks >= 1
    assert restored(algorithm, space, OURS).num_fallbacks == algorithm.num_fallbacks
    monkeypatch.undo()
    assert go_on(algorithm, space, 1)[0].extra["origin"] in ("descent", "mutation", "fallback")


def test_any_other_error_of_a_step_is_raised(space, monkeypatch):
    algorithm = start(space, OURS, told=4)

    def fail(*_args):
        raise ZeroDivisionError

    monkeypatch.setattr(DescentStep, "__call__", fail)
    algorithm._ahead.stop()
    with pytest.raises(ZeroDivisionError):
        algorithm.ask()


# What is kept


def test_losses_of_every_refit_and_the_weights_are_written(space, tmp_path):
    start(space, OURS).write_knowledge(tmp_path)
    assert not list(tmp_path.iterdir())
    algorithm = start(space, OURS, told=13)
    restored(algorithm, space, OURS).write_knowledge(tmp_path)
    refits = json.loads((tmp_path / "embedding.json").read_text())["refits"]
    assert [one["num_observations"] for one in refits] == [4, 8, 12]
    for one in refits:
        lengths = {len(one[key]) for key in ("steps", "L", "L_d", "L_a", "L_p")}
        assert lengths == {OURS["fit_steps"]}
    weights = load_file(tmp_path / "embedding.safetensors")
    assert weights["encoder.first.weight"].shape == (8, 14, 3)
    assert weights["decoder.last.weight"].shape == (8, 14, 3)


def test_the_papers_fits_are_written_and_none_is_made_for_that(space, tmp_path, monkeypatch):
    """Each takes hours: what a run keeps are the networks that the search used, and looks are brief."""
    monkeypatch.setattr(faithful, "LOOK_STEPS", 2)
    algorithm = start(space, PAPER, told=7)
    wait(algorithm)
    used = algorithm._step_of_mode().fitter.newest
    before = list(algorithm._histories)
    algorithm.write_knowledge(tmp_path)
    refits = json.loads((tmp_path / "embedding.json").read_text())["refits"]
    assert [one["num_observations"] for one in refits] == before
    assert before
    weights = load_file(tmp_path / "embedding.safetensors")
    assert all(torch.equal(weights[key], one) for key, one in used.networks.state_dict().items())
    seen = []
    monkeypatch.setattr(
        fitting, "refit", lambda *args: seen.append(args[3].num_steps) or training.refit(*args)
    )
    found = algorithm.insight()
    assert found is not None
    assert found.notes["cross_validation_steps"] == 2
    assert seen == [2] * 5  # the map is of the networks that there are
    assert list(algorithm._histories) == before


def test_a_restored_paper_search_writes_the_fit_of_its_batch(space, tmp_path):
    algorithm = start(space, PAPER, told=5)
    first = algorithm.ask()
    assert list(algorithm._histories) == [5]
    algorithm.tell(outcome(space, first.architecture))
    other = restored(algorithm, space, PAPER)
    for one, folder in ((algorithm, "a"), (other, "b")):
        one.write_knowledge(tmp_path / folder)
    one, two = (load_file(tmp_path / folder / "embedding.safetensors") for folder in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert list(other._histories) == [5]


# Warm starts


@pytest.fixture(scope="module")
def run(tmp_path_factory, space):
    """A finished search without a budget."""
    return str(
        write_run(tmp_path_factory.mktemp("source") / "run", space, some_observed(space, 12))
    )


@pytest.mark.parametrize("options", [OURS, FREE, FAITHFUL], ids=["ours", "chains", "faithful"])
def test_a_search_that_begins_with_another_run_needs_no_warm_up(space, run, options):
    algorithm = start(space, options, warm_start=run)
    first = algorithm.ask()
    assert first.extra["origin"] == "descent" or options is FAITHFUL
    algorithm.tell(outcome(space, first.architecture))
    other = EmbeddingGradientAlgorithm(space, warm_start=run, **options)
    other.load_state_dict(load_state(dump_state(algorithm.state_dict())))
    assert go_on(other, space, 2) == go_on(algorithm, space, 2)


def test_another_budget_and_grouping_may_begin_with_it(run):
    space = make_chain_space((8, 8, 8, 8), budget={"params": 0.3}, grouping="by_size")
    origins = [one.extra["origin"] for one in go_on(start(space, OURS, warm_start=run), space, 2)]
    assert origins[0] == "uniform"
    assert origins[1] in ("descent", "mutation")


def test_a_search_of_chains_begins_with_another_ones_chains(space, tmp_path):
    """Those of a paper's run, of which our form reads the ones that are no longer than the teacher; edits of a layer less read as the domain does."""
    domain = make_chain_domain(space, "restricted", faithful=True)
    texts = domain.sample(8, np.random.default_rng(0))
    texts.append(next(str(edits) for edits in space.sample(50, 0) if edits.remove))
    folder = str(write_run(tmp_path / "run", space, [outcome(space, text) for text in texts]))
    lengths = [int((domain.rows([text])[0, :, 0] != 0).sum()) for text in texts]
    assert min(lengths) <= 9 < max(lengths)
    for options, longest in ((PAPER, 50), (FREE, 9)):
        prior = EmbeddingGradientAlgorithm(space, warm_start=folder, **options)._prior
        assert prior is not None
        kept = [text for text, length in zip(texts, lengths, strict=True) if length <= longest]
        assert [one.architecture for one in prior.full] == kept
        rows = domain.rows(kept)
        assert (padded(prior.rows, 50) == rows).all()
        assert (prior.sizes == [space.apply(text).num_params for text in kept]).all()
    algorithm = EmbeddingGradientAlgorithm(space, warm_start=folder, **FREE)
    assert algorithm.ask().extra["origin"] == "descent"
    with pytest.raises(ConfigError, match="students that are edits of its teacher"):
        EmbeddingGradientAlgorithm(space, warm_start=folder, **OURS)


def test_chains_that_are_all_too_long_are_refused_before_the_search(space, tmp_path):
    domain = make_chain_domain(space, "restricted", faithful=True)
    texts = domain.sample(12, np.random.default_rng(0))
    long = [one for one in texts if (domain.rows([one])[0, :, 0] != 0).sum() > 9]
    assert len(long) > 2
    folder = str(write_run(tmp_path / "run", space, [outcome(space, text) for text in long]))
    with pytest.raises(ConfigError, match="of whose students 0 have at most 9 layers"):
        EmbeddingGradientAlgorithm(space, warm_start=folder, **FREE)


def test_a_run_of_another_teacher_is_refused(run):
    with pytest.raises(ConfigError, match=r"search\.warm_start is .* \(9 layers\).* same teacher"):
        EmbeddingGradientAlgorithm(make_chain_space((8, 8, 8)), warm_start=run)
    with pytest.raises(ConfigError, match="no folder of a run"):
        EmbeddingGradientAlgorithm(make_chain_space((8, 8, 8)), warm_start="nowhere")


# Options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("faithful", "yes"), ("num_initial", 0), ("chains", 1), ("sampler", "mine"), ("size", "flops"), ("centred", None),
        ("embedding", 0), ("channels", 2.5), ("hidden", 0), ("num_regressors", 0), ("kappa", -1), ("semi_supervised", "no"),
        ("pretrain_steps", -1), ("fit_steps", 0), ("refit_every", 0), ("batch_size", True), ("num_starts", 1), ("num_local", -1), ("num_parents", 0), ("num_hops", 0),
        ("descent_steps", 201), ("embedding", 10**9), ("channels", 4097), ("hidden", 4097), ("num_regressors", 4097), ("eta", "large"), ("lam", []), ("a_0", float("nan")), ("p_0", "small"), ("trust", "me"),
        ("neighbour_share", 1.5), ("pick", "best"), ("composite", "f"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_by_name_with_its_value(space, option, value):
    assert_option_is_refused(partial(EmbeddingGradientAlgorithm, space), option, value)


def test_latency_is_regressed_only_where_it_is_measured(space):
    with pytest.raises(ConfigError, match=r"options\.size is 'latency'.*latency_ms"):
        EmbeddingGradientAlgorithm(space, size="latency")


def test_the_papers_numbers_are_the_defaults_of_the_faithful_form(space):
    algorithm = EmbeddingGradientAlgorithm(space, faithful=True)
    options = algorithm._options
    assert (algorithm.num_initial, options.fit_steps, options.sampler) == (1500, 100_000, "paper")
    assert (options.num_regressors, options.a_0, options.chains) == (1, 1.0, True)


@pytest.mark.parametrize("budget", [None, {"params": 0.3}])
def test_descents_and_changes_of_good_students_take_turns(budget):
    limited = make_chain_space((32, 32, 64, 64, 64), budget=budget)
    algorithm = start(limited, {**OURS, "batch_size": 4})
    go_on(algorithm, limited, 4)
    origins = [one.extra["origin"] for one in algorithm_proposals(algorithm, 4)]
    assert origins == ["descent", "mutation"] * 2
    assert {one.extra["origin"] for one in go_on(algorithm, limited, 8)} == {"descent", "mutation"}


def test_it_is_a_searcher_of_tune(space):
    searcher = EmbeddingGradientSearch(space, metric="reward", mode="max", num_trials=3, **OURS)
    assert space.parse(searcher.suggest("one")["architecture"])


def test_chains_of_two_layers_do_not_come_to_an_end():
    """What the sampler draws all fills the limit; narrower ones are made of the teacher."""
    space = SearchSpace(decode_chain([(1, 3, 6, 1, 0), (8, 0, 4, 0, 0)], (1, 8, 8), 4))
    proposals = go_on(start(space, {**FREE, "num_initial": 5}), space, 5)
    assert len({one.architecture for one in proposals}) == 5


def test_a_search_ends_when_nothing_is_new():
    space = make_chain_space((2,), operations=("shrink",))
    algorithm = EmbeddingGradientAlgorithm(space, **OURS)
    with pytest.raises(Exhausted):
        go_on(algorithm, space, 3)


def test_within_a_latency_budget_students_are_measured(space):
    def meter(architecture):
        return architecture.num_params / 1000 + sum(one.op == "conv" for one in architecture.layers)

    limited = SearchSpace(
        space.teacher, budget={"latency_ms": 0.8 * meter(space.teacher)}, latency=meter
    )
    algorithm = start(limited, {**OURS, "size": "latency"})
    for proposal in go_on(algorithm, limited, 7):
        assert meter(limited.apply(proposal.architecture)) <= limited.limits["latency_ms"]
