"""Teachers by name, and what is said when a name, a callable or a file is wrong."""

import sys
import textwrap

import pytest
import torch
from torch import nn

from raysearch.errors import (
    ConfigError,
    DataError,
    InputError,
    MissingPackageError,
    TraceError,
    WeightsError,
)
from raysearch.models import check_forward, load_teacher
from raysearch.models.teachers import BUILT_IN

SHAPE = (3, 16, 16)

USERS_FILE = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, num_classes)

    def forward(self, x):
        return self.fc(x.flatten(1))

def takes_all(*, num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes))

def takes_options(**options):
    return Small(options["num_classes"])

def takes_nothing():
    import users_helper
    return users_helper.make()

def raises(num_classes):
    raise RuntimeError(f"no weights for {num_classes}\\nsecond line")

def needs_more(depth):
    return Small()

def returns_number():
    return 3

def wrong_classes():
    return Small(7)

def rejects():
    return nn.Conv2d(5, 3, 3)

def returns_tuple():
    class Two(Small):
        def forward(self, x):
            return super().forward(x), x
    return Two()

instance = Small()
number = 3
"""


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    (tmp_path / "users_nets.py").write_text(textwrap.dedent(USERS_FILE))
    (tmp_path / "users_helper.py").write_text("from users_nets import Small as make\n")
    (tmp_path / "users_broken.py").write_text("1 / 0\n")
    (tmp_path / "users_needy.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    return tmp_path


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_name_gives_a_network_for_the_data(name):
    shape = (1, 16, 16) if name == "lenet5" else (1, 8, 8)
    module = load_teacher(name, num_classes=4, input_shape=shape)
    assert isinstance(module, nn.Module)
    check_forward(module, shape, 4)


def test_torchvision_networks_are_made_for_the_number_of_classes():
    module = load_teacher("torchvision:resnet18", num_classes=4, input_shape=(3, 32, 32))
    assert module.fc.out_features == 4


def test_googlenet_comes_without_its_auxiliary_heads_and_takes_weights_that_have_them(tmp_path):
    module = load_teacher("torchvision:googlenet", num_classes=4, input_shape=(3, 32, 32))
    state = {**module.state_dict(), "aux1.fc2.weight": torch.zeros(4, 1024)}
    torch.save(state, tmp_path / "w.pt")
    again = load_teacher(
        "torchvision:googlenet", num_classes=4, input_shape=(3, 32, 32), weights=tmp_path / "w.pt"
    )
    assert torch.equal(again.fc.weight, module.fc.weight)


@pytest.mark.parametrize("name", ["Small", "takes_all", "takes_options", "takes_nothing"])
@pytest.mark.usefixtures("users_folder")
def test_a_users_callable_gets_what_it_takes(name):
    module = load_teacher(f"users_nets:{name}", num_classes=10, input_shape=SHAPE)
    check_forward(module, SHAPE, 10)


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("resnet19", ConfigError, "built in are resnet14"),
        ("ResNet-18", ConfigError, "did you mean 'resnet18'"),
        ("", ConfigError, "unknown"),
        ("torchvision:resnet19", ConfigError, "did you mean"),
        ("torchvision:vgg11", DataError, "module 'features.20' (MaxPool2d) raises RuntimeError"),
        ("torchvision:", ConfigError, "unknown"),
        ("timm:", ConfigError, "unknown"),
        ("users_nots:Small", ConfigError, "no module 'users_nots'"),
        ("users_needy:Small", ConfigError, "no module 'a_package_that_is_not_there'"),
        ("users_broken:Small", ConfigError, "ZeroDivisionError: division by zero"),
        ("users_nets:Smal", ConfigError, "did you mean 'Small'"),
        ("users_nets:raises", ConfigError, "RuntimeError: no weights for 10"),
        ("users_nets:needs_more", ConfigError, "TypeError"),
        ("users_nets:returns_number", ConfigError, "returns int"),
        ("users_nets:returns_tuple", TraceError, "returns 2 outputs [0, 1]; set output_index"),
        ("users_nets:wrong_classes", ConfigError, "['batch', 7], but the data have 10 classes"),
        ("users_nets:rejects", DataError, "does not take images of shape [3, 16, 16]"),
        ("users_nets:instance", ConfigError, "is Small, but a function or class"),
        ("users_nets:number", ConfigError, "is int"),
        ("../users_nets:Small", ConfigError, "users_nets"),
        (":Small", ConfigError, ":Small"),
    ],
)
@pytest.mark.usefixtures("users_folder")
def test_a_wrong_teacher_is_refused_in_one_sentence(model, kind, words):
    with pytest.raises(InputError) as caught:
        load_teacher(model, num_classes=10, input_shape=SHAPE)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "mobilenetv3_small_050"])
def test_timm_networks_are_made_for_the_classes_and_channels_of_the_data(name):
    pytest.importorskip("timm")
    module = load_teacher(f"timm:{name}", num_classes=4, input_shape=(1, 32, 32))
    assert check_forward(module, (1, 32, 32), 4) == 4
    assert next(module.parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("name", "shape", "kind", "words"),
    [
        ("resnet81", (3, 32, 32), ConfigError, "did you mean"),
        ("hf-hub:timm/resnet18", (3, 32, 32), ConfigError, "does not have"),
        ("resnet18", (32,), DataError, "[channels, height, width]"),
    ],
)
def test_a_wrong_name_or_shape_for_timm_is_one_sentence(name, shape, kind, words):
    pytest.importorskip("timm")
    with pytest.raises(kind) as caught:
        load_teacher(f"timm:{name}", num_classes=4, input_shape=shape)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_timm_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'raysearch\[timm\]'"):
        load_teacher("timm:resnet18", num_classes=4, input_shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("name", "classes"),
    [("resnet14", 10), ("torchvision:resnet18", 1000), ("users_nets:Small", 10)],
)
@pytest.mark.usefixtures("users_folder")
def test_without_a_number_of_classes_a_network_has_its_own(name, classes):
    module = load_teacher(name, num_classes=None, input_shape=SHAPE)
    assert check_forward(module, SHAPE, None) == classes


@pytest.mark.usefixtures("users_folder")
def test_one_of_several_outputs_can_be_named():
    module = load_teacher(
        "users_nets:returns_tuple", num_classes=10, input_shape=SHAPE, output_index=0
    )
    with pytest.raises(ConfigError, match=r"shape \['batch', 3, 16, 16\], but logits"):
        check_forward(module, SHAPE, 10, output_index=1)


@pytest.mark.parametrize("shape", [(1, 16, 16), (16, 16)])
def test_images_of_other_channels_are_refused_for_torchvision(shape):
    with pytest.raises(DataError, match="3 channels"):
        load_teacher("torchvision:resnet18", num_classes=10, input_shape=shape)


def test_a_built_in_network_refuses_what_is_no_image():
    with pytest.raises(DataError, match=r"\[64\]"):
        load_teacher("resnet14", num_classes=10, input_shape=(64,))


def test_weights_are_loaded_from_a_file(tmp_path):
    first = load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8))
    torch.save({"state_dict": first.state_dict()}, tmp_path / "w.pt")
    second = load_teacher(
        "resnet14", num_classes=10, input_shape=(1, 8, 8), weights=tmp_path / "w.pt"
    )
    assert torch.equal(first.conv1.weight, second.conv1.weight)


def test_weights_of_another_network_are_refused(tmp_path):
    vgg = load_teacher("vgg11", num_classes=10, input_shape=(1, 8, 8))
    torch.save(vgg.state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"has no 'conv1.weight' \[16, 1, 3, 3\].*features.0"):
        load_teacher("resnet14", num_classes=10, input_shape=(1, 8, 8), weights=tmp_path / "w.pt")
