"""The residual networks against the published sizes."""

import pytest
import torch
from torch import nn

from raysearch.models import num_parameters
from raysearch.models.teachers.resnet import CONFIGURATIONS, resnet


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("resnet34", 10, 21_282_122),
        ("resnet34", 100, 21_328_292),
    ],
)
def test_the_wide_family_has_the_published_number_of_parameters(name, classes, expected):
    assert num_parameters(resnet(name, classes, (3, 32, 32))) == expected


@pytest.mark.parametrize(("name", "depth"), [("resnet14", 14), ("resnet20", 20), ("resnet56", 56)])
def test_the_narrow_family_has_6n_plus_2_layers_of_16_32_and_64(name, depth):
    module = resnet(name, 10, (3, 32, 32))
    kinds = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    main = [m for m in kinds if isinstance(m, nn.Linear) or m.kernel_size == (3, 3)]
    assert len(main) == depth
    assert {m.out_channels for m in main[:-1]} == {16, 32, 64}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_images_of_any_channels_and_size_are_taken(name):
    for shape in ((1, 8, 8), (3, 9, 13), (2, 1, 1)):
        module = resnet(name, 7, shape).eval()
        with torch.no_grad():
            assert module(torch.zeros(2, *shape)).shape == (2, 7)
