"""The VGG networks against the published sizes."""

import pytest
import torch
from torch import nn

from raysearch.models import num_parameters
from raysearch.models.teachers.vgg import CONFIGURATIONS, vgg


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("vgg13", 10, 9_416_010),
        ("vgg19", 10, 20_040_522),
        ("vgg19", 100, 20_086_692),
    ],
)
def test_the_networks_have_the_published_number_of_parameters(name, classes, expected):
    assert num_parameters(vgg(name, classes, (3, 32, 32))) == expected


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_name_counts_convolutions_and_linear_layers(name):
    """Simonyan and Zisserman count three linear layers; here is one."""
    module = vgg(name, 10, (3, 32, 32))
    convolutions = sum(isinstance(m, nn.Conv2d) for m in module.modules())
    assert convolutions + 3 == int(name[3:])


@pytest.mark.parametrize(
    ("shape", "pools"), [((1, 28, 28), 4), ((3, 32, 32), 5), ((1, 8, 8), 3), ((2, 5, 9), 2)]
)
def test_a_pool_below_one_pixel_is_left_out(shape, pools):
    module = vgg("vgg11", 10, shape).eval()
    assert sum(isinstance(m, nn.MaxPool2d) for m in module.modules()) == pools
    with torch.no_grad():
        assert module(torch.zeros(2, *shape)).shape == (2, 10)
