"""The operations keep channels and halve images, also odd ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.bayesnas.cells.operations import OPERATIONS, FactorizedReduce, make_operation


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("side", [(8, 8), (7, 5), (1, 1)])
def test_shapes_with_and_without_a_stride(name: str, side: tuple[int, int]) -> None:
    images = torch.randn(2, 6, *side)
    assert make_operation(name, 6, 1, groups=2)(images).shape == (2, 6, *side)
    halved = tuple((length + 1) // 2 for length in side)
    assert make_operation(name, 6, 2, groups=2)(images).shape == (2, 6, *halved)


def test_the_dilated_convolution_sees_twice_as_far() -> None:
    image = torch.zeros(1, 2, 15, 15)
    image[:, :, 7, 7] = 1
    for name, reach in (("dil_conv_3x3", 2), ("dil_conv_5x5", 4), ("sep_conv_3x3", 2)):
        module = make_operation(name, 2, 1).eval()
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.ones_(part.weight)
        seen = module(image)[0, 0].nonzero() - 7
        assert int(seen.abs().max()) == reach, name


def test_a_factorised_reduction_reads_every_pixel() -> None:
    for side in (4, 5):
        images = torch.rand(1, 2, side, side).requires_grad_()
        module = FactorizedReduce(2, 4).eval()
        module(images).sum().backward()
        assert images.grad is not None
        read = images.grad.abs().sum((0, 1)) > 0
        rows = torch.arange(side)
        same = (
            rows[:, None] % 2 == rows[None, :] % 2
        )  # two shifts of four: the even and the odd pixels
        assert torch.equal(read, same)
