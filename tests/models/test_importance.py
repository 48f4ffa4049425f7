"""The importance of channels against numbers worked out by hand, finite differences, and torch-pruning itself."""

import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from raysearch.architecture.channels import analyse
from raysearch.errors import ConfigError, MissingPackageError, WeightsError
from raysearch.models import trace
from raysearch.models.importance import l1_importance, taylor_importance
from raysearch.models.pruning import pruning_importance
from raysearch.models.scores import channel_scores, load_scores, save_scores

from .nets import LeNet, Multiplied, OptionA, PreAct, small_networks


def variable_of(architecture, name):
    """The number of the one variable that a layer's output consists of."""
    ((variable, _),) = analyse(architecture).outputs[architecture.index[name]]
    return variable


def test_l1_is_the_sum_of_the_absolute_weights_of_a_filter():
    teacher = LeNet()
    with torch.no_grad():
        for channel in range(6):  # [3, 5, 5] weights each, of alternating signs
            teacher.conv1.weight[channel] = (channel + 1) * (-1) ** channel
    architecture = trace(teacher, (3, 16, 16))
    scores = l1_importance(architecture, teacher.state_dict())
    found = scores[variable_of(architecture, "conv1")]
    assert found.tolist() == [75 * (channel + 1) for channel in range(6)]


def test_filters_that_are_computed_from_other_weights_are_scored_as_they_act():
    teacher = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 2)
    )
    with torch.no_grad():
        teacher[0].parametrizations.weight.original0.mul_(torch.arange(1.0, 5)[:, None, None, None])
    architecture = trace(teacher, (3, 8, 8))
    scores = l1_importance(architecture, teacher.state_dict())[variable_of(architecture, "0")]
    assert scores == pytest.approx(teacher[0].weight.detach().abs().double().flatten(1).sum(1))


def test_coupled_filters_are_scored_together_and_parts_of_one_filter_bank_apart():
    teacher = OptionA()
    architecture = trace(teacher, (3, 16, 16))
    scores = l1_importance(architecture, teacher.state_dict())
    norm = {
        name: part.weight.detach().abs().double().flatten(1).sum(1).numpy()
        for name, part in teacher.named_modules()
        if isinstance(part, nn.Conv2d)
    }
    blocks = analyse(architecture).outputs[architecture.index["blocks.2.conv2"]]
    found = np.concatenate([scores[variable] for variable, _ in blocks])
    wide = norm["blocks.1.conv2"] + norm["blocks.2.conv2"]
    wide = np.pad(wide, (4, 4)) + norm["blocks.3.conv2"]  # 4 zero channels on each side
    wide[8:16] += norm["stem"] + norm["blocks.0.conv2"]
    assert found == pytest.approx(wide[4:20])


def gates(architecture, parameters, sizes):
    """A factor for every channel variable, and the parameters multiplied by those of all their channels."""
    analysis = analyse(architecture)
    factors = [torch.ones(size, requires_grad=True, dtype=torch.float64) for size in sizes]

    def along(blocks):
        return torch.cat([factors[variable].repeat_interleave(m) for variable, m in blocks])

    gated = dict(parameters)
    for layer, into, out in zip(
        architecture.layers, analysis.inputs, analysis.outputs, strict=True
    ):
        for key in layer.params.values():
            if key not in parameters:
                continue
            value, groups = parameters[key], layer.attrs.get("groups", 1)
            if value.ndim == 1 or layer.op == "param_binary":
                gated[key] = value * along(out).view([-1 if n > 1 else 1 for n in value.shape])
                continue
            rows, columns = along(out), along(into)
            if layer.op == "conv_transpose":
                rows, columns = columns, rows
            value = value * rows.view(-1, *[1] * (value.ndim - 1))
            if value.shape[1] == 1 and groups > 1:
                gated[key] = value  # depthwise
                continue
            columns = columns.view(groups, -1).repeat_interleave(len(value) // groups, 0)
            value = value * columns.view(*columns.shape, *[1] * (value.ndim - 2))
            gated[key] = value
    return factors, gated


@pytest.mark.parametrize("name", small_networks())
def test_taylor_is_the_derivative_of_the_loss_by_a_factor_on_the_channel(name, trained):
    make, shape = small_networks()[name]
    teacher = trained(make()).double().eval()
    architecture = trace(teacher, shape)
    batches = [
        (torch.randn(3, *shape, dtype=torch.float64), torch.randint(10, (3,))) for _ in range(2)
    ]
    found = taylor_importance(architecture, teacher.state_dict(), batches)
    expected = [np.zeros(len(values)) for values in found]
    for images, labels in batches:
        factors, gated = gates(architecture, dict(teacher.named_parameters()), map(len, found))
        loss = cross_entropy(functional_call(teacher, gated, images), labels)
        slopes = torch.autograd.grad(loss, factors, allow_unused=True)
        for total, slope in zip(expected, slopes, strict=True):
            total += 0 if slope is None else slope.abs().numpy()
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_a_channel_that_nothing_depends_on_is_least_important(trained):
    teacher = trained(PreAct()).eval()
    with torch.no_grad():
        teacher.conv2.weight[:, 13] = 0
        teacher.conv1.weight[13] = 0
        teacher.bn2.bias[13] = 0
        teacher.bn2.weight[13] = 0
    architecture = trace(teacher, (3, 8, 8))
    variable = variable_of(architecture, "conv1")
    batches = [(torch.randn(8, 3, 8, 8), torch.randint(10, (8,)))]
    state = teacher.state_dict()
    for ranking in ("l1", "taylor"):
        scores = channel_scores(ranking, architecture, state, lambda: batches)
        assert scores[variable][13] == scores[variable].min() == 0


def test_torch_prunings_importance_is_that_of_its_own_groups(trained):
    pruning = pytest.importorskip("torch_pruning")
    teacher = trained(PreAct()).eval()
    architecture = trace(teacher, (3, 8, 8))
    images = torch.zeros(2, 3, 8, 8)
    scores = pruning_importance(architecture, teacher.state_dict(), images)
    graph = pruning.DependencyGraph().build_dependency(teacher, example_inputs=images)
    group = graph.get_pruning_group(teacher.conv1, pruning.prune_conv_out_channels, list(range(20)))
    expected = pruning.importance.GroupMagnitudeImportance()(group)
    found = scores[variable_of(architecture, "conv1")]
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5)


def test_a_teacher_that_torch_pruning_cannot_read_is_refused(trained):
    pytest.importorskip("torch_pruning")
    teacher = trained(Multiplied()).eval()
    architecture = trace(teacher, (3, 16, 16))
    with pytest.raises(WeightsError, match=r"'pruning' is not possible.*use l1 or taylor"):
        pruning_importance(architecture, teacher.state_dict(), torch.zeros(2, 3, 16, 16))


def test_without_torch_pruning_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    teacher = LeNet()
    architecture = trace(teacher, (3, 16, 16))
    with pytest.raises(MissingPackageError, match=r"pip install 'raysearch\[prune\]'"):
        pruning_importance(architecture, teacher.state_dict(), torch.zeros(2, 3, 16, 16))


def test_scores_are_read_back_for_the_same_teacher_only(tmp_path):
    teacher = LeNet()
    architecture, other = trace(teacher, (3, 16, 16)), trace(PreAct(), (3, 16, 16))
    scores = l1_importance(architecture, teacher.state_dict())
    file = tmp_path / "importance.safetensors"
    assert load_scores(file, architecture) is None
    save_scores(file, architecture, scores)
    found = load_scores(file, architecture)
    assert all(np.array_equal(a, b) for a, b in zip(found, scores, strict=True))
    assert load_scores(file, other) is None
    file.write_bytes(file.read_bytes()[:20])
    assert load_scores(file, architecture) is None


def test_a_ranking_that_is_not_known_is_refused():
    teacher = LeNet()
    with pytest.raises(ConfigError, match=r"distill.inherit: 'best' is not known"):
        channel_scores("best", trace(teacher, (3, 16, 16)), teacher.state_dict(), lambda: [])
