"""The cache of traced graphs: hit only by the same network, and never believed without a proof."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from raysearch.cache import cache_folder
from raysearch.models import load_teacher, trace
from raysearch.models.tracing import cache, tracer
from raysearch.models.tracing.identity import trace_key

SHAPE = (1, 4, 4)

USERS_FILE = """
import torch
from torch import nn
from cached_helper import activate

WIDTH = 4

class Net(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.head = nn.Linear(16 * WIDTH, 3)
        self.p = p

    def forward(self, x):
        x = activate(self.conv(x)).flatten(1)
        return self.head(nn.functional.dropout(x, self.p, self.training))
"""
USERS_HELPER = """
def activate(x):
    return x.relu()
"""


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def users(tmp_path, monkeypatch):
    """Writes the user's two files and imports them anew: (net, helper) -> the class."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(net=USERS_FILE, helper=USERS_HELPER):
        (tmp_path / "cached_net.py").write_text(net)
        (tmp_path / "cached_helper.py").write_text(helper)
        for name in ("cached_net", "cached_helper"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("cached_net").Net

    yield load
    for name in ("cached_net", "cached_helper"):
        sys.modules.pop(name, None)


@pytest.fixture
def no_capture(monkeypatch):
    """From now on a capture fails the test."""

    def start():
        def fail(*_):
            raise AssertionError("captured again")

        monkeypatch.setattr(tracer, "capture", fail)

    return start


def files():
    return sorted((cache_folder() / "traces").glob("*"))


def chain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


def test_the_same_network_is_captured_once(no_capture):
    architecture = trace(chain(), SHAPE)
    no_capture()
    assert trace(chain(), SHAPE) == architecture
    assert len(files()) == 1
    with pytest.raises(AssertionError):
        trace(chain(), SHAPE, cache=False)


def test_a_network_of_a_library_is_captured_once(no_capture):
    teacher = load_teacher("torchvision:squeezenet1_1", num_classes=4, input_shape=(3, 32, 32))
    architecture = trace(teacher, (3, 32, 32))
    no_capture()
    assert trace(copy.deepcopy(teacher), (3, 32, 32)) == architecture


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "res2next50"])
def test_networks_of_timm_have_a_key(name):
    timm = pytest.importorskip("timm")
    key = trace_key(timm.create_model(name, num_classes=3), (3, 32, 32), None)
    assert key != trace_key(timm.create_model(name, num_classes=3), (3, 32, 32), None)  # weights
    assert key is not None


def test_a_cached_network_is_captured_once_and_again_after_any_change(users, no_capture):
    torch.manual_seed(0)
    first = users()()
    state = first.state_dict()

    def key(kind, **options):
        module = kind(**options)
        module.load_state_dict(state)
        return trace_key(module, SHAPE, None)

    before = trace_key(first, SHAPE, None)
    assert before is not None
    assert key(users()) == before
    assert key(users(), p=0.4) != before
    assert key(users(helper="def activate(x):\n    return x.relu() + 0\n")) != before
    assert key(users(net=USERS_FILE.replace(".flatten(1)", ".flatten( 1)"))) != before
    kind = users()
    sys.modules["cached_net"].WIDTH = 5  # a name that forward may read
    assert trace_key(first, SHAPE, None) != before
    trace(kind(), SHAPE)
    no_capture()
    with pytest.raises(AssertionError):
        trace(kind(), SHAPE)  # other weights


CHANGES = {
    "a weight": lambda m: m[0].weight.data.view(-1)[3].add_(1e-6),
    "a statistic": lambda m: m[1].running_mean.add_(1),
    "the sign of a zero": lambda m: m[1].running_mean.neg_(),
    "a precision": lambda m: m.double(),
    "a number": lambda m: setattr(m[1], "eps", 1e-4),
    "a tensor attribute": lambda m: setattr(m, "scale", torch.ones(1)),
    "a module's class": lambda m: m.__setitem__(2, nn.ReLU6()),
    "the order": lambda m: m.insert(0, nn.Identity()),
    "a function": lambda m: setattr(m, "f", lambda x: x + 1),
    "a partial function": lambda m: setattr(m, "f", functools.partial(max, 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_network_has_another_key(name):
    one, other = chain(), chain()
    assert trace_key(one, SHAPE, None) == trace_key(other, SHAPE, None)
    CHANGES[name](other)
    assert trace_key(other, SHAPE, None) not in (None, trace_key(one, SHAPE, None))


def test_another_input_or_output_has_another_key():
    keys = {trace_key(chain(), (1, 4, 4), None), trace_key(chain(), (1, 4, 5), None)}
    keys |= {trace_key(chain(), (1, 4, 4), 0), trace_key(chain(), (1, 4, 4), "0")}
    assert len(keys) == 4
    assert None not in keys


def test_shared_weights_and_equal_weights_have_different_keys():
    def pair():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16))

    equal, tied = pair(), pair()
    equal[2].load_state_dict(equal[1].state_dict())
    tied[2].weight, tied[2].bias = tied[1].weight, tied[1].bias
    again = pair()
    again[2] = again[1]
    keys = {trace_key(module, SHAPE, None) for module in (equal, tied, again)}
    assert len(keys) == 3


class Opaque:
    """Nothing is known of it."""


def typed(network):
    """A class as a notebook has it: it stands in no file."""
    space: dict = {"__name__": "typed_into_a_session", "nn": nn}
    exec("class Typed(nn.ReLU):\n    pass", space)
    network[2] = space["Typed"]()


DOUBTFUL = {
    "a hook": lambda m: m[2].register_forward_hook(lambda *_: None),
    "an object": lambda m: setattr(m, "thing", Opaque()),
    "a module that is not registered": lambda m: setattr(m, "hidden", [nn.Linear(2, 2)]),
    "a class without a file": typed,
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_in_doubt_there_is_no_key_and_the_network_is_traced(name):
    network = chain()
    DOUBTFUL[name](network)
    assert trace_key(network, SHAPE, None) is None
    assert trace(network, SHAPE).num_params == trace(chain(), SHAPE, cache=False).num_params
    assert not files()


def test_the_key_does_not_depend_on_the_process(users, tmp_path):
    torch.manual_seed(0)
    network = users()()
    network.names = {"a", "b", "c", "d"}  # in another order wherever hashes have another seed
    script = (
        "import torch, cached_net; torch.manual_seed(0); net = cached_net.Net(); net.names = set('abcd')\n"
        "from raysearch.models.tracing.identity import trace_key; print(trace_key(net, (1, 4, 4), None))"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    printed = subprocess.check_output(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, text=True
    )
    assert printed.strip() == trace_key(network, SHAPE, None)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"version": 99}'])
def test_a_damaged_file_is_ignored_and_written_anew(content):
    architecture = trace(chain(), SHAPE)
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(content)
    assert trace(chain(), SHAPE) == architecture
    assert file.read_bytes() == whole


def test_a_file_that_holds_another_graph_is_not_believed():
    architecture = trace(chain(), SHAPE)
    (file,) = files()
    whole = file.read_text()
    file.write_text(whole.replace('"relu"', '"gelu"'))
    assert trace(chain(), SHAPE) == architecture
    assert file.read_text() == whole
    wider = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 3))
    file.write_text(trace(wider, SHAPE, cache=False).to_json())
    assert trace(chain(), SHAPE) == architecture


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "file"))
    assert trace(chain(), SHAPE) == trace(chain(), SHAPE)


def test_the_oldest_graphs_are_dropped(monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    architecture = trace(chain(), SHAPE, cache=False)
    for position, key in enumerate("abcd"):
        cache.keep_trace(key, architecture)
        os.utime(cache_folder() / "traces" / f"{key}.json", (position, position))
    assert [file.stem for file in files()] == ["c", "d"]
