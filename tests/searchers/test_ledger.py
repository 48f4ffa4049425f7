"""Bookkeeping, state files and records."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.edits import Edits
from raysearch.models import load_teacher, trace
from searchers.algorithm import Exhausted, Observation, Proposal
from searchers.evolution import EvolutionAlgorithm
from searchers.gp import GPAlgorithm
from searchers.ledger import Ledger
from searchers.optuna import TPEAlgorithm
from searchers.state import dump_state, load_state


def test_two_texts_of_one_network_count_once(toy_space):
    ledger = Ledger(toy_space)
    ledger.propose(Edits((0,), (1, 2, 3)))
    assert not ledger.is_new(Edits((0,), (4, 2, 3)))
    assert ledger.is_new(Edits((1,), (1, 2, 3)))


@pytest.mark.parametrize("status", ["full", "stopped", "failed"])
def test_every_outcome_clears_the_pending_entry(toy_space, texts, status):
    ledger = Ledger(toy_space)
    ledger.propose(texts[0])
    ledger.record(Observation(texts[0], 0.5, 1.0, status))
    assert ledger.pending == {}
    assert not ledger.is_new(texts[0])


def test_a_full_outcome_replaces_a_stopped_one_and_never_the_other_way_round(toy_space, texts):
    ledger = Ledger(toy_space)
    for status, value in [("stopped", 0.1), ("full", 0.5), ("failed", None), ("stopped", 0.2)]:
        ledger.record(Observation(texts[0], value, 1.0, status))
    assert [(one.status, one.value) for one in ledger.told.values()] == [("full", 0.5)]


def test_drawing_ends_when_nothing_is_new(make_toy_space):
    space = make_toy_space((2, 2), 0)
    ledger, seen = Ledger(space), set()
    rng = np.random.default_rng(0)
    for _ in range(9):  # two layers, each of width 0, 1 or 2
        edits = ledger.draw_new(lambda size: space.sample(size, rng))
        seen.add(ledger.identify(ledger.propose(edits).architecture))
    assert len(seen) == 9
    with pytest.raises(Exhausted):
        ledger.draw_new(lambda size: space.sample(size, rng))


def test_a_state_round_trip_is_exact():
    state = {
        "number": 0.1 + 0.2,
        "big": 2**100,
        "nan": float("nan"),
        "list": [1, None, "é"],
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 4)),
        "scalar": np.float64(0.1),
    }
    again = load_state(dump_state(state))
    assert again["number"] == state["number"]
    assert again["big"] == state["big"]
    assert np.isnan(again["nan"])
    assert again["list"] == state["list"]
    assert again["array"].dtype == np.float32
    np.testing.assert_array_equal(again["array"], state["array"])
    assert again["empty"].shape == (0, 4)
    assert again["scalar"] == 0.1


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()])])
def test_a_state_that_would_need_a_pickle_is_refused(value):
    with pytest.raises(TypeError, match="JSON-native"):
        dump_state({"value": value})


@pytest.mark.parametrize("text", ["", "[1]", "{torn", "nonsense"])
def test_a_text_that_is_no_state_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        load_state(text)


@pytest.mark.parametrize("extra", [{"pair": (1, 2)}, {1: "int key"}, {"value": object()}])
def test_a_proposal_whose_extra_would_not_survive_tune_is_refused(extra):
    with pytest.raises(TypeError):
        Proposal("text", extra)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_full_observation_needs_a_finite_value(value):
    with pytest.raises(ValueError, match="tell it as failed"):
        Observation("text", value, 1.0, "full")


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="status must be one of"):
        Observation("text", 1.0, 1.0, "done")  # type: ignore[arg-type]


def test_an_observation_survives_json():
    observation = Observation("text", 0.5, 0.25, "stopped", (0.1, 0.5), {"loss": 2.0}, {"a": [1]})
    text = dump_state({"one": observation.to_dict()})
    assert Observation.from_dict(load_state(text)["one"]) == observation


class LayerMeter:
    """A millisecond a layer that computes, and a microsecond a parameter; counts its measurements."""

    def __init__(self):
        self.calls = 0

    def __call__(self, architecture):
        self.calls += 1
        return sum(layer.op == "conv" for layer in architecture.layers) + (
            architecture.num_params / 1000
        )


@pytest.mark.parametrize("make", [EvolutionAlgorithm, GPAlgorithm, TPEAlgorithm])
def test_within_a_latency_budget_every_proposal_is_measured_and_few_others(make):
    shape = (1, 8, 8)
    teacher = trace(load_teacher("resnet14", num_classes=10, input_shape=shape), shape)
    meter = LayerMeter()
    limit = 0.5 * LayerMeter()(teacher)
    space = SearchSpace(teacher, budget={"latency_ms": limit}, latency=meter)
    algorithm = make(space, seed=0)
    before = meter.calls
    for _ in range(16):
        proposal = algorithm.ask()
        assert meter(space.apply(proposal.architecture)) <= limit
        algorithm.tell(Observation(proposal.architecture, 0.5, 1, "full"))
    assert meter.calls - before < 16 * 8
