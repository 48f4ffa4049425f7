"""A3: students of three networks under every kind of budget: built, trained one step, counted by means that are not ours."""

import numpy as np
import pytest
import torch

from raysearch.architecture import SearchSpace
from raysearch.errors import BudgetError
from raysearch.models import build
from tests import measures
from tests.acceptance.networks import CASES

NETWORKS = ("InvertedResidual", "DenseBlock", "OptionA")
BUDGETS = {
    "none": None,
    "params": {"params": 0.3},
    "macs": {"macs": 0.25},
    "memory": {"memory": "50%"},
    "three": {"params": 0.5, "macs": 0.4, "memory": 0.7},
}


@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
@pytest.mark.parametrize("kind", list(BUDGETS))
@pytest.mark.parametrize("name", NETWORKS)
def test_students_of_a_budget_fit_it_as_counted_from_outside(networks, name, kind, grouping):
    module, architecture = networks(name)
    space = SearchSpace(architecture, grouping=grouping, budget=BUDGETS[kind])
    batch = space.sample(6, seed=5)
    counted = {
        "params": space.num_params(batch),
        "macs": space.macs(batch),
        "memory": space.memory(batch),
    }
    images, labels = torch.randn(4, *CASES[name].shape), torch.arange(4)
    for row, edits in enumerate(batch):
        student = space.apply(edits)
        built = build(student, inherit_from=module)
        measured = {
            "params": sum(p.numel() for p in built.parameters()),
            "macs": measures.macs(built.eval(), images[:1]),
        }
        peak = measures.peak_bytes(built, images[:1].clone())
        state = [*built.parameters(), *built.buffers()]
        measured["memory"] = peak + sum(t.numel() * t.element_size() for t in state)
        assert student.num_params == measured["params"]
        assert student.macs == measured["macs"]
        assert student.peak_memory_bytes == peak
        for metric, number in measured.items():
            assert counted[metric][row] == number, metric
            assert number <= space.limits.get(metric, np.inf), metric
        optimiser = torch.optim.SGD(built.train().parameters(), lr=0.01)
        torch.nn.functional.cross_entropy(built(images), labels).backward()
        assert all(p.grad is not None for p in built.parameters())
        optimiser.step()
        assert all(bool(p.isfinite().all()) for p in built.parameters())


@pytest.mark.parametrize("metric", ["params", "macs", "memory"])
def test_a_budget_below_the_smallest_student_names_it(networks, metric):
    _, architecture = networks("InvertedResidual")
    space = SearchSpace(architecture)
    least = getattr(space, "num_params" if metric == "params" else metric)(space.smallest())[0]
    with pytest.raises(BudgetError, match=rf"budget\.{metric}.*{least:,}") as caught:
        SearchSpace(architecture, budget={metric: int(least) - 1})
    assert "\n" not in str(caught.value)
    tight = SearchSpace(architecture, budget={metric: int(least)})
    assert tight.within_budget(tight.sample(20, seed=0)).all()


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.2, 0.1])
@pytest.mark.parametrize("metric", ["params", "macs", "memory"])
def test_a_budget_is_used_where_widths_are_fine_enough(networks, metric, fraction):
    """No sampled student wastes half of what it may cost (most use nine tenths)."""
    _, architecture = networks("OptionA")
    space = SearchSpace(architecture, budget={metric: fraction})
    batch = space.sample(50, seed=0)
    used = getattr(space, "num_params" if metric == "params" else metric)(batch)
    share = used / space.limits[metric]
    assert share.max() <= 1
    assert np.median(share) > 0.85
    assert share.min() > 0.5
