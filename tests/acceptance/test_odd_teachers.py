"""Teachers in unusual states: captured where one graph gives their logits, refused with one sentence where not."""

import collections

import pytest
import torch
from torch import nn

from raysearch.architecture import SearchSpace
from raysearch.errors import ConfigError, TraceError, WeightsError
from raysearch.models import build, trace
from tests.acceptance.networks import SHAPE, Classifier

Outputs = collections.namedtuple("Outputs", ["features", "logits"])


class Named(Classifier):
    def forward(self, x):
        return Outputs(x, super().forward(x))


class Encoder(nn.Module):
    """A transformer's layer, of which torch computes a fused form in evaluation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        return self.fc(self.layer(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


class Incomplete(nn.Module):
    def __init__(self):
        pass


def compiled() -> nn.Module:
    net = Classifier()
    net.compile(backend="aot_eager")  # the compiler that is asked for does not matter
    return net


def on_no_device() -> nn.Module:
    with torch.device("meta"):
        return Classifier()


def exported() -> nn.Module:
    return torch.export.export(Classifier().eval(), (torch.randn(2, *SHAPE),)).module()


def named_as_torch_does() -> nn.Module:
    parts = {"graph": nn.Conv2d(3, 8, 3), "code": nn.Flatten(), "last": nn.Linear(8 * 14 * 14, 4)}
    return nn.Sequential(collections.OrderedDict(parts))


@pytest.mark.parametrize(
    ("make", "index"),
    [
        (Named, "logits"),
        (Encoder, None),
        (compiled, None),
        (lambda: Classifier().to(memory_format=torch.channels_last), None),
    ],
    ids=["named tuple", "fused", "compiled", "channels last"],
)
def test_a_teacher_that_only_rounds_differently_is_captured(make, index):
    module = make().eval()
    impl, fast = module._compiled_call_impl, torch.backends.mha.get_fastpath_enabled()
    rebuilt = build(trace(module, SHAPE, output_index=index), inherit_from=module).eval()
    assert module._compiled_call_impl is impl
    assert torch.backends.mha.get_fastpath_enabled() is fast
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        logits = module(images)
        logits = logits if index is None else getattr(logits, index)
        torch.testing.assert_close(rebuilt(images), logits, rtol=1e-5, atol=1e-6)


class NearlyRandom(Classifier):
    """Differs from its graph as little as rounding does, but for another reason."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + 1e-6 * self.calls


@pytest.mark.parametrize(
    ("make", "index", "words"),
    [
        (on_no_device, None, "meta device"),
        (exported, None, "evaluation mode"),
        (Incomplete, None, "super"),
        (named_as_torch_does, None, "'graph'"),
        (NearlyRandom, None, "does not give the teacher's logits"),
        (Named, "nothing", "'features', 'logits'"),
    ],
    ids=["meta", "exported", "incomplete", "names", "nearly random", "no such output"],
)
def test_a_teacher_without_one_graph_is_refused_in_one_sentence(make, index, words):
    with pytest.raises(TraceError, match=words) as caught:
        trace(make(), SHAPE, output_index=index)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(3, 3), torch.tensor(1.0), None, [1.0]],
    ids=["two axes", "no axis", "None", "list"],
)
def test_weights_of_another_kind_are_refused_with_their_name_or_type(networks, weight):
    module, architecture = networks("PreAct")
    state = {**module.state_dict(), "head.weight": weight, "stem.0.weight": weight}
    with pytest.raises(WeightsError, match=r"stem\.0\.weight|NoneType|list"):
        build(architecture, inherit_from=state)


@pytest.mark.parametrize("n", [-1, 1.5, "3", None, True])
def test_only_a_number_of_students_can_be_drawn(networks, n):
    with pytest.raises(ConfigError, match="number of students"):
        SearchSpace(networks("PreAct")[1]).sample(n, seed=0)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_a_seed_is_a_whole_number(networks, seed):
    with pytest.raises(ConfigError, match="seed is"):
        SearchSpace(networks("PreAct")[1]).sample(2, seed=seed)
