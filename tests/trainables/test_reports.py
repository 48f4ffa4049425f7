"""What trials report on request: the accuracy of each class, a user's own numbers, and what is said where these fail."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from raysearch import load_config, prepare
from raysearch.errors import ConfigError, RunError
from tests.trainables.untrained import make_problem, make_untrained, trial
from trainables.reports import by_class, load_metrics, own_metrics
from trainables.training import Training, evaluate_batches

HERE = "tests.trainables.test_reports"


def power(module, architecture):
    """A user's metric."""
    assert not module.training
    assert sum(p.numel() for p in module.parameters()) == architecture.num_params
    return {"power": torch.tensor(2.5), "layers": len(architecture.layers)}


def raising(module, architecture):
    raise ValueError("the meter\ndoes not answer")


def unnamed(module, architecture):
    return 3.0


def colliding(module, architecture):
    return {"accuracy": 1.0}


def endless(module, architecture):
    return {"power": float("inf")}


def numbered(module, architecture):
    return {1: 1.0}


not_callable = 3


def test_the_accuracies_of_the_classes_add_up_to_the_accuracy(resident, network):
    part = resident.validation
    found = evaluate_batches(network(seed=1).eval(), part, batch_size=7, num_classes=4)
    module = network(seed=1).eval()
    predicted = module(part.take(torch.arange(len(part)))).argmax(1)
    for label in range(3):
        of_class = part.labels == label
        share = (predicted[of_class] == label).double().mean().item()
        assert found["class_accuracy"][label] == pytest.approx(share)
    assert found["class_accuracy"][3] is None  # no image has it
    plain = evaluate_batches(network(seed=1).eval(), part)
    assert plain == pytest.approx({key: found[key] for key in ("accuracy", "loss")})
    assert by_class(found["class_accuracy"]) == {
        str(label): found["class_accuracy"][label] for label in range(3)
    }


def test_a_user_s_function_measures_in_evaluation_mode(network):
    module = network().train()
    architecture = dataclasses.make_dataclass("A", ["num_params", "layers"])(
        sum(p.numel() for p in module.parameters()), [1, 2]
    )
    assert own_metrics(f"{HERE}:power", module, architecture, ()) == {"power": 2.5, "layers": 2}
    assert module.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raising", "raises ValueError: the meter does not answer"),
        ("unnamed", "gives a float, not numbers by name"),
        ("colliding", "gives 'accuracy', which results hold already"),
        ("endless", "gives 'power' as inf, which is no finite number"),
        ("numbered", "names a number 1, which is not text"),
    ],
)
def test_what_a_user_s_function_does_wrong_is_said_in_a_sentence(network, name, message):
    with pytest.raises(RunError, match=message):
        own_metrics(f"{HERE}:{name}", network(), None, ("accuracy",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("power", "is no function"),
        ("no_such_module:power", "cannot be imported .*PYTHONPATH"),
        (f"{HERE}:energy", "has no callable 'energy'"),
        (f"{HERE}:not_callable", "has no callable"),
    ],
)
def test_a_function_that_is_not_there_is_refused_before_any_trial(path, message):
    with pytest.raises(ConfigError, match=rf"distill\.metrics.*{message}"):
        load_metrics(path)
    with pytest.raises(ConfigError, match=r"distill\.metrics"):
        prepare(load_config({"distill": {"metrics": path}}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raising", "raises ValueError: the meter does not answer"),
        ("unnamed", "gives a float, not numbers by name"),
        ("colliding", "gives 'accuracy', which results hold already"),
        ("endless", "gives 'power' as inf"),
    ],
)
def test_a_function_that_fails_is_refused_before_the_search(name, message):
    with pytest.raises(ConfigError, match=rf"distill\.metrics.*{message}.*smallest student"):
        prepare(load_config({"distill": {"metrics": f"{HERE}:{name}"}}))


@pytest.fixture(scope="module")
def problem():
    distill = {"epochs": 2, "report": ["class_accuracy", "latency_ms"], "metrics": f"{HERE}:power"}
    return make_problem({"distill": distill})


@pytest.fixture(scope="module")
def context(problem):
    return make_untrained(problem)


@pytest.mark.usefixtures("ray_cluster")
class TestTrial:
    def test_results_hold_what_is_asked_for(self, context, problem):
        text = str(problem.space.uniform())
        trainable = trial(context, text)
        first, last = trainable.train(), trainable.train()
        part = context.device_data.validation
        counts = part.labels.bincount(minlength=10)
        for result in (first, last):
            classes = result["class_accuracy"]
            mean = sum(classes[str(k)] * int(counts[k]) for k in range(10)) / len(part)
            assert mean == pytest.approx(result["accuracy"])
        assert "power" not in first
        assert (last["power"], last["done"]) == (2.5, True)

    def test_a_function_that_fails_fails_its_trial(self, context, problem):
        bad = dataclasses.replace(context, metrics=f"{HERE}:raising")
        trainable = trial(bad, str(problem.space.uniform()))
        assert trainable.train()["status"] == "ok"
        result = trainable.train()
        assert (result["status"], result["done"]) == ("invalid", True)
        assert "the meter does not answer" in result["reason"]

    def test_the_classes_are_those_of_the_epoch_that_counts(self, context, problem, monkeypatch):
        points = iter(
            {"accuracy": a, "loss": 1 / a, "class_accuracy": [a] * 10} for a in (0.8, 0.5)
        )
        monkeypatch.setattr(Training, "validate", lambda self, num_classes=None: next(points))
        best = dataclasses.replace(context, value_epochs={"search": "best"}, metrics=None)
        trainable = trial(best, str(problem.space.uniform()))
        results = [trainable.train() for _ in range(2)]
        assert [result["class_accuracy"]["3"] for result in results] == [0.8, 0.8]
