"""The algorithm around the steps: order and time of results, saving in mid-step, the paper's barrier, and failures."""

from __future__ import annotations

import contextlib
import logging
import threading

import numpy as np
import pytest
from linear_operator.utils.errors import NotPSDError

from raysearch.architecture import SearchSpace
from searchers.algorithm import Exhausted, Observation
from searchers.multi_kernel_bo import improved
from searchers.multi_kernel_bo.algorithm import MultiKernelBOAlgorithm
from searchers.multi_kernel_bo.faithful import FaithfulStep
from searchers.multi_kernel_bo.improved import ImprovedStep
from searchers.multi_kernel_bo.inputs import Inputs
from searchers.state import dump_state, load_state
from searchers.testing import make_chain_space
from tests.searchers.multi_kernel_bo.conftest import FAITHFUL, OURS, batch_of, go_on, observed

MODES = pytest.mark.parametrize("options", [OURS, FAITHFUL], ids=["ours", "faithful"])


def start(space, options, *, told=0, seed=0):
    """An algorithm to which the first `told` of its own students were told."""
    algorithm = MultiKernelBOAlgorithm(space, seed=seed, **options)
    go_on(algorithm, space, told)
    return algorithm


def restored(algorithm, space, options, seed=0):
    """Another algorithm with its state, by way of text."""
    other = MultiKernelBOAlgorithm(space, seed=seed, **options)
    other.load_state_dict(load_state(dump_state(algorithm.state_dict())))
    return other


# Saving


@pytest.mark.parametrize("taken", [1, 2])
def test_ours_saved_while_a_step_is_partly_taken_goes_on_identically(space, taken):
    algorithm = start(space, OURS, told=5)
    before = batch_of(algorithm, taken)
    other = restored(algorithm, space, OURS)
    following = batch_of(algorithm, 4)
    assert batch_of(other, 4) == following
    for one in (algorithm, other):
        for proposal in (*before, *following):
            one.tell(observed(space, proposal.architecture))
    assert go_on(other, space, 2) == go_on(algorithm, space, 2)


@pytest.mark.parametrize("told", [0, 3])
def test_faithful_saved_in_the_middle_of_a_batch_goes_on_identically(space, told):
    """Two of three students are proposed, and one of them is told, which the third must not know."""
    algorithm = start(space, FAITHFUL, told=told)
    first, second = batch_of(algorithm, 2)
    algorithm.tell(observed(space, second.architecture))
    other = restored(algorithm, space, FAITHFUL)
    third = algorithm.ask()
    assert other.ask() == third
    for one in (algorithm, other):
        assert one.ask() is None
        for proposal in (first, third):
            one.tell(observed(space, proposal.architecture))
    assert batch_of(other) == batch_of(algorithm)


def test_a_state_is_small(space):
    """Weights are learned again, and outcomes are stated once."""
    algorithm = start(space, OURS, told=8)
    state = algorithm.state_dict()
    ledger = len(dump_state(state["ledger"]))
    assert len(dump_state(state)) < ledger + 2000


# Order and time


def test_faithful_needs_its_results_in_no_particular_order_for_the_same_distribution(space):
    """What depends on the order of a batch's results: which kernel sees which of them. Nothing else does."""
    ordered, reverse = (start(space, FAITHFUL) for _ in range(2))
    first, again = batch_of(ordered), batch_of(reverse)
    assert first == again
    for proposal in first:
        ordered.tell(observed(space, proposal.architecture))
    for proposal in reversed(again):
        reverse.tell(observed(space, proposal.architecture))
    one, two = (algorithm._snapshot((3, 0), 3, []) for algorithm in (ordered, reverse))
    assert one.full == two.full[::-1]
    assert (one.seed, one.known) == (two.seed, two.known)
    assert all(proposal is not None for proposal in (*batch_of(ordered), *batch_of(reverse)))


@MODES
def test_when_a_step_is_ready_does_not_change_what_it_gives(space, options):
    """One is asked at once, of the other everybody waits until it is no longer busy, a third is looked at again and again."""
    at_once, patient, watched = (start(space, options) for _ in range(3))
    for number in range(9):
        expected = at_once.ask()
        wait(patient)
        assert not patient.busy
        _ = [watched.busy for _ in range(3)]
        assert patient.ask() == expected
        assert watched.ask() == expected
        for algorithm in (at_once, patient, watched):
            if number % 3 == 2 or options is OURS:
                tell_all(algorithm, space)


@MODES
def test_several_results_at_once_begin_no_step_for_nothing(space, options, monkeypatch):
    """A step is begun by the first result after a proposal; one that its successor made useless is told to stop."""
    algorithm = start(space, options, told=6)
    batch_of(algorithm)
    steps = []
    step = type(algorithm._step_of_mode())
    call = step.__call__
    monkeypatch.setattr(
        step,
        "__call__",
        lambda self, snapshot, cancelled: (
            steps.append(snapshot.seed) or call(self, snapshot, cancelled)
        ),
    )
    tell_all(algorithm, space)
    algorithm.ask()
    assert 1 <= len(steps) <= 2


@MODES
def test_a_look_inside_while_a_step_is_computed_changes_nothing(space, options):
    plain, watched = (start(space, options, told=6) for _ in range(2))
    watched.ask()
    plain.ask()
    for algorithm in (plain, watched):
        tell_all(algorithm, space)
    assert watched.insight() is not None  # the next step has just begun
    assert batch_of(watched) == batch_of(plain)


def test_all_proposals_of_our_step_are_new_and_conditioned_on_each_other(space):
    algorithm = start(space, OURS, told=6)
    proposals = batch_of(algorithm, 8)
    texts = [proposal.architecture for proposal in proposals]
    assert len(set(texts)) == 8
    assert {proposal.extra["origin"] for proposal in proposals} <= {"model", "sample"}
    assert proposals[0].extra["origin"] == "model"


# The paper's barrier


def test_faithful_waits_until_all_of_a_batch_are_told(space):
    algorithm = start(space, FAITHFUL)
    proposals = batch_of(algorithm)
    for proposal in proposals:
        assert algorithm.ask() is None
        assert not algorithm.busy
        algorithm.tell(observed(space, proposal.architecture))
    assert algorithm.ask() is not None


def test_the_random_students_of_the_first_step_are_no_predictions(space):
    """Else the rank correlation of predictions would count what kernels said that had learned nothing."""
    algorithm = start(space, FAITHFUL)
    first = batch_of(algorithm)
    assert [one.extra for one in first] == [{"origin": "sample"}] * 3
    for proposal in first:
        algorithm.tell(observed(space, proposal.architecture))
    assert [one.extra["origin"] for one in batch_of(algorithm)] == ["model"] * 3


@pytest.mark.parametrize("known", ["twice in the batch", "told before"])
def test_faithful_proposes_what_it_knows_and_does_not_wait_for_it_in_vain(
    space, monkeypatch, known
):
    call = FaithfulStep.__call__

    def same(self, snapshot, cancelled):
        choices = call(self, snapshot, cancelled)
        return choices if snapshot.full else [choices[0]] * len(choices)

    monkeypatch.setattr(FaithfulStep, "__call__", same)
    algorithm = start(space, FAITHFUL)
    first = algorithm.ask()
    if known == "told before":
        algorithm.tell(observed(space, first.architecture))
        algorithm.ask(), algorithm.ask()
    else:
        assert [algorithm.ask().architecture for _ in range(2)] == [first.architecture] * 2
        assert algorithm.ask() is None
        algorithm.tell(observed(space, first.architecture))
    assert algorithm.ask() is not None


def test_faithful_ends_where_nothing_new_comes():
    space = make_chain_space((2,), operations=("shrink",))  # two students
    algorithm = MultiKernelBOAlgorithm(space, **FAITHFUL)
    num_proposed = 0
    with contextlib.suppress(Exhausted):
        while num_proposed < 1000:
            num_proposed += len(go_on(algorithm, space, 1))
    assert num_proposed < 1000
    with pytest.raises(Exhausted):
        algorithm.ask()
    with pytest.raises(Exhausted):
        restored(algorithm, space, FAITHFUL).ask()


# Outcomes of all kinds


@MODES
def test_values_of_failed_and_stopped_students_do_not_matter(space, options):
    proposals = []
    for low in (0.0, 0.9):
        algorithm = start(space, options, told=3)
        one, two, three = batch_of(algorithm)
        algorithm.tell(Observation(one.architecture, low, 0.25, "stopped", (low,)))
        algorithm.tell(Observation(two.architecture, None, 0.0, "failed"))
        algorithm.tell(observed(space, three.architecture))
        proposals.append([proposal.architecture for proposal in batch_of(algorithm)])
    assert proposals[0] == proposals[1]


@MODES
@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_it_goes_on_while_nothing_ends_as_planned(space, options, status):
    algorithm = start(space, options)
    for _ in range(7):
        value = None if status == "failed" else 0.5
        algorithm.tell(Observation(algorithm.ask().architecture, value, 0.25, status))
    assert algorithm.num_fallbacks == 0
    assert not algorithm._ledger.full


@MODES
def test_equal_values_are_no_numerical_failure(space, options):
    algorithm = start(space, options)
    for _ in range(9):
        algorithm.tell(Observation(algorithm.ask().architecture, 0.5, 1.0, "full"))
    assert algorithm.num_fallbacks == 0


@MODES
def test_a_numerical_failure_gives_a_random_student_and_is_counted(
    space, options, monkeypatch, caplog
):
    algorithm = start(space, options, told=3)
    wait(algorithm)
    algorithm.ask()
    for step in (ImprovedStep, FaithfulStep):
        monkeypatch.setattr(step, "__call__", fail_numerically)
    tell_all(algorithm, space)
    with caplog.at_level(logging.WARNING):
        while (proposal := algorithm.ask()).extra["origin"] == "model":
            tell_all(algorithm, space)
    assert proposal.extra == {"origin": "fallback"}
    assert algorithm.num_fallbacks == 1
    assert "not positive definite" in caplog.text
    assert restored(algorithm, space, options).num_fallbacks == 1
    monkeypatch.undo()
    tell_all(algorithm, space)
    assert algorithm.ask().extra["origin"] == "model"


@MODES
def test_any_other_error_of_a_step_is_raised(space, options, monkeypatch):
    algorithm = start(space, options, told=3)

    def fail(*_args):
        raise ZeroDivisionError

    for step in (ImprovedStep, FaithfulStep):
        monkeypatch.setattr(step, "__call__", fail)
    algorithm._ahead.stop()
    with pytest.raises(ZeroDivisionError):
        algorithm.ask()


def test_within_a_latency_budget_what_is_proposed_is_measured_and_little_else(space):
    def meter(architecture):
        measured.append(architecture.id)
        return architecture.num_params / 1000 + sum(
            layer.op == "conv" for layer in architecture.layers
        )

    measured = []
    limit = 0.8 * meter(space.teacher)
    limited = SearchSpace(space.teacher, budget={"latency_ms": limit}, latency=meter)
    algorithm = start(limited, OURS)
    before = len(measured)
    for proposal in go_on(algorithm, limited, 10):
        assert meter(limited.apply(proposal.architecture)) <= limit
    assert len(measured) - before < 10 * 8


# A long search


def test_after_a_thousand_observations_a_step_is_no_larger(space, monkeypatch):
    """Each kernel, and the process on features, sees a bounded number of the newest; one thread and one set of networks are kept."""
    algorithm = MultiKernelBOAlgorithm(space, **OURS)
    texts = dict.fromkeys(str(edits) for edits in space.sample(2000, 0))
    assert len(texts) >= 1000
    num_threads = threading.active_count()
    for text in list(texts)[:1000]:
        algorithm.tell(observed(space, text))
    step = algorithm._step_of_mode()
    written = record_sizes(monkeypatch)
    assert algorithm.ask().extra["origin"] == "model"
    assert threading.active_count() <= num_threads + 1
    assert max(written) <= 2.5 * step.members.max_students
    full = algorithm._ledger.full
    model = step.model(full, step_targets(step, full), (0,))
    assert [len(kernel.train_targets) for kernel in model.learned] == [257, 257]
    assert len(model.features._surrogate.model.train_targets) == step.max_observations
    assert len(step._fitted[1]) == 2


# Predictions


def test_predictions_come_near_what_is_measured_later(space):
    """Where the accuracy is smooth, a few students suffice: two of three predictions within two deviations and a hundredth."""
    algorithm = MultiKernelBOAlgorithm(space, **OURS | {"num_candidates": 64})
    hits = []
    for proposal in go_on(algorithm, space, 16):
        if proposal.extra["origin"] == "model":
            value = observed(space, proposal.architecture).value
            margin = 2 * proposal.extra["predicted_sd"] + 0.01
            hits.append(abs(proposal.extra["predicted"] - value) < margin)
    assert len(hits) >= 10
    assert np.mean(hits) > 2 / 3


def fail_numerically(*_args):
    raise NotPSDError("not positive definite")


def record_sizes(monkeypatch):
    """The numbers of students whose layer vectors are written out at once."""
    sizes, write = [], Inputs.__call__
    monkeypatch.setattr(
        Inputs, "__call__", lambda self, batch: sizes.append(len(batch)) or write(self, batch)
    )
    monkeypatch.setattr(improved, "CHUNK_NUMBERS", 100_000)
    return sizes


def wait(algorithm):
    """Until no step is being computed."""
    while algorithm.busy:
        threading.Event().wait(0.002)


def tell_all(algorithm, space):
    """An outcome for everything that is outstanding."""
    for text in list(algorithm._ledger.pending.values()):
        algorithm.tell(observed(space, text))


def step_targets(step, full):
    from searchers.targets import Targets

    return Targets.of(step.space, full, step.composite)
