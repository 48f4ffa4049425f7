"""Early-stopped students: what they would have come to, by closed forms, and that the models see it."""

from __future__ import annotations

import numpy as np
import pytest

from raysearch.errors import ConfigError
from searchers.algorithm import Observation
from searchers.fidelity import MIN_PAIRS, estimated_ends
from searchers.gp import GPAlgorithm
from searchers.multi_kernel_bo.algorithm import MultiKernelBOAlgorithm
from searchers.targets import Targets
from searchers.testing import make_chain_space

BUDGET = {"params": 0.4}


@pytest.fixture(scope="module")
def space():
    return make_chain_space((16, 16, 16), budget=BUDGET)


@pytest.fixture(scope="module")
def texts(space):
    return list(dict.fromkeys(str(edits) for edits in space.sample(40, 0)))[:20]


def full(text, *curve):
    return Observation(text, curve[-1], 1.0, "full", curve)


def stopped(text, *curve):
    return Observation(text, curve[-1] if curve else 0.3, 0.5, "stopped", curve)


def on_a_line(texts, slope=0.7, start=0.2):
    """Full trainings of four epochs whose ends are linear in the second."""
    rng = np.random.default_rng(0)
    seconds = rng.uniform(0.2, 0.6, len(texts))
    return [
        full(text, float(rng.random()), float(a), float(rng.random()), float(start + slope * a))
        for text, a in zip(texts, seconds, strict=True)
    ]


def ends(space, known, some):
    return estimated_ends(space, Targets.of(space, known, None), known, some)


def test_the_end_is_on_the_line_of_the_full_trainings(space, texts):
    found, values = ends(
        space, on_a_line(texts[:8]), [stopped(texts[8], 0.9, 0.1), stopped(texts[9], 0.9, 0.3)]
    )
    assert [one.architecture for one in found] == texts[8:10]
    assert values == pytest.approx([0.2 + 0.7 * 0.1, 0.2 + 0.7 * 0.3])


def test_least_squares_as_numpy_has_it_and_each_epoch_has_a_line_of_its_own(space, texts):
    rng = np.random.default_rng(1)
    known = []
    for text in texts[:10]:
        a = rng.uniform(0.3, 0.5)
        known.append(full(text, a, a + rng.normal(0, 0.03), a + 0.1 + rng.normal(0, 0.02)))
    curves = np.array([one.curve for one in known])
    _, values = ends(space, known, [stopped(texts[10], 0.25), stopped(texts[11], 0.4, 0.28)])
    for t, last, value in ((0, 0.25, values[0]), (1, 0.28, values[1])):
        slope, level = np.polyfit(curves[:, t], curves[:, -1], 1)
        assert 0 < slope < 2
        assert value == pytest.approx(slope * last + level)


def test_no_estimate_is_above_the_best_full_training_and_no_slope_is_wild(space, texts):
    known = on_a_line(texts[:8])
    _, (value,) = ends(space, known, [stopped(texts[8], 0.9, 5.0)])
    assert value == max(one.value for one in known)
    falling = [full(text, 0.5 - 0.1 * i, 0.1 * i) for i, text in enumerate(texts[:5])]
    _, (value,) = ends(space, falling, [stopped(texts[8], -3.0)])
    assert value == pytest.approx(0.2)  # a beginning that misleads says nothing: the mean
    steep = [full(text, 0.01 * i, 0.1 * i) for i, text in enumerate(texts[:5])]
    _, (value,) = ends(space, steep, [stopped(texts[8], 0.0)])
    assert value == pytest.approx(0.2 + 2 * (0.0 - 0.02))


def test_where_too_little_is_known_there_is_no_estimate(space, texts):
    known = on_a_line(texts[:8])
    assert ends(space, known[: MIN_PAIRS - 1], [stopped(texts[8], 0.9, 0.3)])[0] == []
    without = [Observation(one.architecture, one.value, 1.0, "full") for one in known]
    some = [stopped(texts[8]), stopped(texts[9], 0.9, float("nan")), stopped(texts[10], *[0.1] * 4)]
    assert ends(space, known, some)[0] == []
    assert ends(space, without, [stopped(texts[8], 0.9, 0.3)])[0] == []
    assert ends(space, known, [])[1].shape == (0,)


def test_where_the_size_is_known_its_factor_is_taken_off():
    """f = c R_a: the line is that of R_a."""
    space = make_chain_space((16, 16, 16))
    texts = [str(edits) for edits in space.sample(9, 0)]
    factor = Targets(space, True).factor(space.batch(texts))
    rng = np.random.default_rng(0)
    observations = []
    for text, c in zip(texts, factor, strict=True):
        first = rng.uniform(0.2, 0.6)
        second = 0.3 + 0.5 * first
        params = space.num_params(space.batch([text]))[0] / space.teacher.num_params
        metrics = {"accuracy": second, "teacher_accuracy": 1.0, "compression": 1 - params}
        observations.append(
            Observation(text, c * second, 1.0, "full", (c * first, c * second), metrics)
        )
    *known, last = observations
    cut = Observation(last.architecture, last.curve[0], 0.5, "stopped", last.curve[:1])
    targets = Targets.of(space, known, None)
    assert targets.composite
    _, (value,) = estimated_ends(space, targets, known, [cut])
    expected = 0.3 + 0.5 * last.curve[0] / factor[-1]
    assert value == pytest.approx(min(expected, max(targets.values(known))))


def test_the_models_see_stopped_students(space, texts):
    """A stopped student that was far behind is expected to be worse than one that was ahead."""
    known = on_a_line(texts[:8])
    for make in (GPAlgorithm, MultiKernelBOAlgorithm):
        predicted = []
        for second in (-2.0, 0.6):
            algorithm = make(space, num_initial=2, num_candidates=16)
            for one in (*known, stopped(texts[8], 0.1, second)):
                algorithm.tell(one)
            algorithm.ask()
            if isinstance(algorithm, GPAlgorithm):
                *_, model = algorithm._model(algorithm._ledger.full, algorithm._ledger.stopped)
            else:
                snapshot = algorithm._newest()
                targets = Targets.of(space, snapshot.full, None)
                step = algorithm._step_of_mode()
                model = step.model(snapshot.full, targets, (0,), stopped=snapshot.stopped).features
            predicted.append(model.predict(space.features(space.batch([texts[8]])))[0][0])
        assert predicted[0] < predicted[1] - 0.02, make


@pytest.mark.parametrize("make", [GPAlgorithm, MultiKernelBOAlgorithm])
def test_who_does_not_want_it_searches_as_if_they_had_failed(space, texts, make):
    proposals = []
    for last in (stopped(texts[8], 0.1, -2.0), Observation(texts[8], None, 0.0, "failed")):
        algorithm = make(space, num_initial=2, num_candidates=16, use_stopped=False)
        for one in (*on_a_line(texts[:8]), last):
            algorithm.tell(one)
        proposals.append([algorithm.ask() for _ in range(3)])
    assert proposals[0] == proposals[1]


def test_a_wrong_option_is_refused(space):
    with pytest.raises(ConfigError, match=r"search\.options\.use_stopped must be .*'no'"):
        GPAlgorithm(space, use_stopped="no")
