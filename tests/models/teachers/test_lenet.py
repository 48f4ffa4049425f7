"""The LeNets against the published sizes, and on images of other sizes."""

import pytest
import torch
from torch import nn

from raysearch.errors import DataError
from raysearch.models import load_teacher, num_parameters, trace
from raysearch.models.teachers.lenet import lenet


@pytest.mark.parametrize(("name", "expected"), [("lenet300", 266_610), ("lenet5", 431_080)])
def test_the_networks_have_the_published_number_of_parameters(name, expected):
    network = lenet(name, 10, (1, 28, 28))
    assert num_parameters(network) == expected
    assert trace(network.eval(), input_shape=(1, 28, 28)).num_params == expected


def test_caffe_has_one_relu_and_it_follows_the_first_linear_layer():
    names = [name for name, module in lenet("lenet5", 10, (1, 28, 28)).named_children()]
    assert names == ["conv1", "pool1", "conv2", "pool2", "flatten", "fc1", "relu1", "fc2"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet300", (1, 8, 8)),
        ("lenet300", (3, 32, 32)),
        ("lenet5", (1, 16, 16)),
        ("lenet5", (3, 17, 33)),
    ],
)
def test_other_images_are_taken_too(name, shape):
    module = load_teacher(name, num_classes=7, input_shape=shape)
    linear = [m.out_features for m in module.modules() if isinstance(m, nn.Linear)]
    assert linear == {"lenet300": [300, 100, 7], "lenet5": [500, 7]}[name]
    with torch.no_grad():
        assert module.eval()(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 15)])
def test_images_too_small_for_the_pools_are_refused_with_a_remedy(shape):
    sides = f"{shape[1]}x{shape[2]}"
    with pytest.raises(DataError, match=f"16x16 at least, but the data's are {sides}; set data"):
        load_teacher("lenet5", num_classes=10, input_shape=shape)
