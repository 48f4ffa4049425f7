"""The two recurrent policies."""

from __future__ import annotations

import itertools

import pytest
import torch

from searchers.n2n.reinforce import log_probs_of
from searchers.n2n.steps import FULL, KEEP
from tests.searchers.n2n.conftest import make_input, make_policy


def test_the_probabilities_of_all_masked_action_sequences_sum_to_one(kind):
    policy, x = make_policy(kind), make_input(5)
    free = torch.tensor([False, True, False, True, kind == "remove"])
    neutral = KEEP if kind == "remove" else FULL
    choices = [range(policy.num_actions) if one else [neutral] for one in free]
    actions = torch.tensor(list(itertools.product(*choices)))
    log_probs = log_probs_of(policy(x, actions)[0], actions, free).sum(1)
    assert len(actions) == policy.num_actions ** int(free.sum())
    assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_shrinkage_is_sampled_with_the_probabilities_that_it_is_credited_with():
    policy, x = make_policy("shrink"), make_input(9)
    free = torch.tensor([False, True, True, False, False, True, True, True, False])
    for seed in range(20):
        actions = policy.sample(x, free, torch.Generator().manual_seed(seed))
        again = torch.Generator().manual_seed(seed)
        probabilities = policy(x, actions[None])[0][0].softmax(-1)
        for step in free.nonzero().squeeze(1):
            drawn = torch.multinomial(probabilities[step], 1, generator=again)
            assert drawn.item() == actions[step]


def test_teacher_forcing_a_prefix_gives_the_same_probabilities():
    policy, x = make_policy("shrink"), make_input(6)
    actions = torch.tensor([[3, 9, 0, 5, 5, 1]])
    whole = policy(x, actions)[0]
    for step in range(6):
        prefix = policy(x[: step + 1], actions[:, : step + 1])[0]
        torch.testing.assert_close(prefix[:, step], whole[:, step], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "sees"), [("remove", True), ("shrink", False)])
def test_only_removal_sees_what_comes_after(name, sees):
    policy, x = make_policy(name), make_input(6)
    actions = torch.zeros(1, 6, dtype=torch.int64)
    before = policy(x, actions)[0][0, 2]
    changed = x.clone()
    changed[3] += 1.0
    after = policy(changed, actions)[0][0, 2]
    assert bool((after != before).any()) is sees
    changed = x.clone()
    changed[1] += 1.0
    assert (policy(changed, actions)[0][0, 2] != before).all()


def test_shrinkage_depends_on_the_action_before():
    policy, x = make_policy("shrink"), make_input(4)
    one, other = torch.tensor([[1, 1, 1, 1]]), torch.tensor([[1, 7, 1, 1]])
    first, second = policy(x, one)[0][0], policy(x, other)[0][0]
    assert torch.equal(first[:2], second[:2])
    assert (first[2] != second[2]).all()


@pytest.mark.parametrize("critic", [False, True])
def test_every_parameter_gets_a_gradient(kind, critic):
    policy, x = make_policy(kind, critic=critic), make_input(5)
    actions = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 1, 0]])
    logits, values = policy(x, actions)
    loss = log_probs_of(logits, actions, torch.ones(5, dtype=torch.bool)).sum()
    if values is not None:
        loss = loss + values.sum()
    loss.backward()
    for name, weight in policy.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_forced_steps_are_never_changed(kind):
    x = make_input(7)
    free = torch.tensor([False, True, True, False, True, False, False])
    neutral = KEEP if kind == "remove" else FULL
    generator = torch.Generator().manual_seed(0)
    seen = torch.stack(
        [
            make_policy(kind, seed).sample(x, free, generator)
            for seed in range(20)
            for _ in range(50)
        ]
    )
    assert (seen[:, ~free] == neutral).all()
    assert (seen[:, free] != neutral).any(0).all()


def test_sampled_removals_have_the_policy_s_frequencies():
    policy, x = make_policy("remove"), make_input(3)
    generator = torch.Generator().manual_seed(0)
    free = torch.ones(3, dtype=torch.bool)
    drawn = torch.stack([policy.sample(x, free, generator) for _ in range(2000)]).double()
    expected = policy(x, torch.zeros(1, 3, dtype=torch.int64))[0][0].softmax(-1)[:, 1]
    # 4.5 standard errors: fails by chance once in 50,000 seeds
    assert (drawn.mean(0) - expected).abs().max() < 4.5 * 0.5 / 2000**0.5


def test_weights_fit_a_network_of_any_depth(kind):
    trained, fresh = make_policy(kind, 0), make_policy(kind, 1)
    fresh.load_state_dict(trained.state_dict())
    for num_steps in (2, 11):
        x, actions = make_input(num_steps), torch.zeros(1, num_steps, dtype=torch.int64)
        assert torch.equal(fresh(x, actions)[0], trained(x, actions)[0])


def test_making_a_policy_leaves_the_global_generator_alone(kind):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    policy = make_policy(kind)
    policy.sample(make_input(3), torch.ones(3, dtype=torch.bool), torch.Generator())
    assert torch.equal(torch.rand(4), expected)
    for one, other in zip(policy.parameters(), make_policy(kind).parameters(), strict=True):
        assert torch.equal(one, other)
