"""What the Gaussian process search does with observations, and that it pays."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from linear_operator.utils.errors import NotPSDError

from raysearch.architecture.edits import Edits
from raysearch.errors import ConfigError
from searchers import surrogate
from searchers.algorithm import Observation
from searchers.gp import GPAlgorithm
from searchers.insight import InsightFailed
from searchers.random import RandomAlgorithm
from searchers.targets import Targets
from searchers.testing import make_chain_space


def observed(space, text, accuracy, *, teacher_accuracy=0.9):
    """A full observation whose value is f."""
    compression = 1 - space.apply(text).num_params / space.teacher.num_params
    f = compression * (2 - compression) * accuracy / teacher_accuracy
    metrics = {
        "accuracy": accuracy,
        "teacher_accuracy": teacher_accuracy,
        "compression": compression,
    }
    return Observation(text, f, 1.0, "full", metrics=metrics)


def search(algorithm, space, accuracy, steps):
    """The best f of a run."""
    best = 0.0
    for _ in range(steps):
        text = algorithm.ask().architecture
        outcome = observed(space, text, accuracy(space, text))
        algorithm.tell(outcome)
        best = max(best, outcome.value)
    return best


def test_under_a_budget_the_first_student_is_the_uniform_one():
    space = make_chain_space((8, 8), budget={"params": 0.4})
    proposal = GPAlgorithm(space).ask()
    assert proposal.architecture == str(space.uniform())
    assert proposal.extra == {"origin": "uniform"}


def test_without_a_budget_the_teacher_itself_is_not_the_first_student():
    space = make_chain_space((8, 8))
    assert GPAlgorithm(space).ask().architecture != str(space.uniform())


def test_the_model_takes_over_after_the_initial_students(toy_space, accuracy):
    algorithm = GPAlgorithm(toy_space, num_initial=3, num_candidates=32)
    origins = []
    for _ in range(5):
        proposal = algorithm.ask()
        origins.append(proposal.extra["origin"])
        text = proposal.architecture
        algorithm.tell(observed(toy_space, text, accuracy(toy_space, text)))
    assert origins == ["sample"] * 3 + ["model"] * 2


def test_outstanding_students_fill_the_initial_phase_and_then_wait_for_two_results(toy_space):
    algorithm = GPAlgorithm(toy_space, num_initial=2, num_candidates=32)
    texts = [algorithm.ask().architecture for _ in range(4)]
    assert [algorithm.ask().extra["origin"]] == ["sample"]
    for text in texts[:2]:
        algorithm.tell(observed(toy_space, text, 0.5))
    assert algorithm.ask().extra["origin"] == "model"


def test_stopped_students_without_a_curve_and_failed_ones_do_not_enter_the_model(
    toy_space, texts, accuracy
):
    proposals = []
    for low in (0.0, 0.9):
        algorithm = GPAlgorithm(toy_space, seed=1, num_initial=2, num_candidates=64)
        for text in texts[:6]:
            algorithm.tell(observed(toy_space, text, accuracy(toy_space, text)))
        algorithm.tell(Observation(texts[6], low, 0.25, "stopped"))
        algorithm.tell(Observation(texts[7], None, 0.0, "failed"))
        proposals.append(algorithm.ask().architecture)
    assert proposals[0] == proposals[1]
    assert proposals[0] not in texts[:8]


def test_compression_is_modelled_exactly_where_the_values_are_f(toy_space, texts):
    full = [observed(toy_space, text, 0.5) for text in texts[:3]]
    assert Targets.of(toy_space, full, None).composite
    other = Observation(texts[3], 0.7, 1.0, "full", metrics=full[0].metrics)
    assert not Targets.of(toy_space, [*full, other], None).composite
    assert not Targets.of(
        toy_space, [*full, Observation(texts[3], 0.7, 1.0, "full")], None
    ).composite
    assert not Targets.of(toy_space, full, False).composite


def test_compression_is_not_modelled_inside_a_budget():
    space = make_chain_space((8, 8), budget={"params": 0.4})
    assert not Targets.of(space, [observed(space, str(space.uniform()), 0.5)], None).composite


def test_equal_accuracies_send_the_composite_model_to_small_students(toy_space, texts):
    """Where accuracy is the same everywhere, f is largest for the smallest student, and that is known before any is trained."""
    algorithm = GPAlgorithm(toy_space, num_initial=2, seed=0)
    for text in texts[::6]:
        algorithm.tell(observed(toy_space, text, 0.5 + 1e-4 * len(text)))
    student = toy_space.apply(algorithm.ask().architecture)
    assert student.num_params <= 12  # 10 is the smallest possible, the teacher has 118


def test_a_composite_model_without_its_metrics_is_refused_by_name(toy_space, texts):
    algorithm = GPAlgorithm(toy_space, composite=True, num_initial=2)
    for text in texts[:3]:
        algorithm.tell(Observation(text, 0.5, 1.0, "full"))
    with pytest.raises(ConfigError, match=r"options\.composite is true, but a trial did not"):
        algorithm.ask()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_candidates_may_be_all_fresh_or_all_mutated(toy_space, texts, share):
    algorithm = GPAlgorithm(toy_space, num_initial=2, num_candidates=16, mutation_share=share)
    for text in texts[:3]:
        algorithm.tell(observed(toy_space, text, 0.5))
    assert algorithm.ask().extra["origin"] == "model"


def test_a_numerical_error_is_logged_and_counted_and_the_next_student_is_random(
    toy_space, texts, monkeypatch, caplog
):
    def fail(*_args):
        raise NotPSDError("not positive definite")

    monkeypatch.setattr(surrogate, "Surrogate", fail)
    algorithm = GPAlgorithm(toy_space, num_initial=2)
    for text in texts[:3]:
        algorithm.tell(observed(toy_space, text, 0.5))
    with caplog.at_level(logging.WARNING):
        assert algorithm.ask().extra["origin"] == "fallback"
    assert algorithm.num_fallbacks == 1
    assert "not positive definite" in caplog.text


def test_any_other_error_is_raised(toy_space, texts, monkeypatch):
    def fail(*_args):
        raise ZeroDivisionError

    monkeypatch.setattr(surrogate, "Surrogate", fail)
    algorithm = GPAlgorithm(toy_space, num_initial=2)
    for text in texts[:3]:
        algorithm.tell(observed(toy_space, text, 0.5))
    with pytest.raises(ZeroDivisionError):
        algorithm.ask()


def told(space, texts, accuracy, **options):
    """An algorithm that knows the texts' students, the last two stopped and failed."""
    algorithm = GPAlgorithm(space, num_initial=2, num_candidates=64, **options)
    for text in texts[:-2]:
        algorithm.tell(observed(space, text, accuracy(space, text)))
    algorithm.tell(Observation(texts[-2], 0.1, 0.25, "stopped"))
    algorithm.tell(Observation(texts[-1], None, 0.0, "failed"))
    return algorithm


def test_a_proposal_of_the_model_says_what_it_expects(toy_space, texts, accuracy):
    """f of R_a and the exact compression, with the noise of a training; outstanding students are no knowledge."""
    algorithm = told(toy_space, texts[:12], accuracy)
    first, second = algorithm.ask(), algorithm.ask()
    full = algorithm._ledger.full
    for proposal in (first, second):
        ratios = [one.metrics["accuracy"] / one.metrics["teacher_accuracy"] for one in full]
        x = toy_space.features(toy_space.batch(one.architecture for one in full))
        model = surrogate.Surrogate(x, np.array(ratios), toy_space.feature_blocks.values())
        batch = toy_space.batch([proposal.architecture])
        mean, sd = model.predict(toy_space.features(batch), noise=True)
        c = 1 - toy_space.num_params(batch) / toy_space.teacher.num_params
        assert proposal.extra["origin"] == "model"
        assert proposal.extra["predicted"] == pytest.approx((c * (2 - c) * mean)[0])
        assert proposal.extra["predicted_sd"] == pytest.approx((c * (2 - c) * sd)[0])


def test_looking_inside_shows_each_full_student_and_changes_no_proposal(toy_space, texts, accuracy):
    plain, watched = (told(toy_space, texts[:14], accuracy) for _ in range(2))
    found = watched.insight()
    full = plain._ledger.full
    assert found.architectures == tuple(one.architecture for one in full)
    np.testing.assert_array_equal(found.values, [one.value for one in full])
    assert found.places.shape == (12, 2)
    assert 0 < found.notes["map_share"] <= 1
    assert plain.ask() == watched.ask()


def test_what_it_knows_is_in_the_objectives_units(toy_space, texts, accuracy):
    """Values of f are predicted within their own scale; a student as large as the teacher has f = 0 for certain."""
    teacher = str(Edits((), (6, 6, 6), ()))
    assert toy_space.apply(teacher).num_params == toy_space.teacher.num_params
    found = told(toy_space, [*texts[:20], teacher, *texts[20:22]], accuracy).insight()
    errors = np.abs(found.values - found.loo_mean)
    assert errors.mean() < 0.3 * found.values.std()
    assert (found.loo_mean[-1], found.loo_sd[-1], found.values[-1]) == (0, 0, 0)
    assert (found.loo_sd[:-1] > 0).all()


def test_before_there_is_a_model_there_is_nothing_to_see(toy_space, texts):
    algorithm = GPAlgorithm(toy_space)
    assert algorithm.insight() is None
    algorithm.tell(observed(toy_space, texts[0], 0.5))
    assert algorithm.insight() is None


def test_a_model_that_fails_while_it_is_looked_into_says_so(
    toy_space, texts, accuracy, monkeypatch
):
    def fail(*_args):
        raise NotPSDError("not positive definite")

    algorithm = told(toy_space, texts[:8], accuracy)
    monkeypatch.setattr(surrogate, "Surrogate", fail)
    with pytest.raises(InsightFailed, match="not positive definite"):
        algorithm.insight()


def test_it_finds_better_students_than_random_search(make_toy_space, accuracy):
    """Five seeds, 18 evaluations: were both equally good, winning all five had probability 1/32. Seeds are fixed."""
    space = make_toy_space((12,) * 6)
    for seed in range(5):
        gp = GPAlgorithm(space, seed=seed, num_initial=6, num_candidates=300)
        found = search(gp, space, accuracy, 18)
        assert found > search(RandomAlgorithm(space, seed=seed), space, accuracy, 18)


def test_neither_the_adapter_nor_the_algorithm_imports_botorch_before_it_is_needed():
    code = (
        "import sys, searchers.tune, searchers.methods, searchers.gp, searchers.optuna;"
        "print([name for name in ('torch', 'botorch', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_warming_up_changes_no_proposal(toy_space, texts):
    plain, warm = (GPAlgorithm(toy_space, num_initial=2, num_candidates=32) for _ in range(2))
    warm.warm_up()
    for algorithm in (plain, warm):
        for index, text in enumerate(texts[:4]):
            algorithm.tell(observed(toy_space, text, 0.5 + 0.1 * index))
    assert plain.ask() == warm.ask()


def test_features_are_about_unit_range(toy_space):
    x = toy_space.features(toy_space.sample(100, 0))
    assert np.abs(x).max() <= 1
