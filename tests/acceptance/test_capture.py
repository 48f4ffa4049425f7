"""A1, A2: torchvision's networks are captured without opaque operations, and ESNAC's networks have the published numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture, SearchSpace
from raysearch.architecture.view import view
from raysearch.models import build, load_teacher, num_parameters, trace
from tests.torch_state import randomise_statistics

TORCHVISION = (
    *("resnet18", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "googlenet"),
    *("squeezenet1_1", "shufflenet_v2_x0_5", "regnet_x_400mf", "resnext50_32x4d"),
    *("efficientnet_b0", "convnext_tiny"),
)
SHAPE = (3, 64, 64)


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_torchvision_network_is_captured_whole_and_bit_for_bit_with_exact_counts(name):
    teacher = load_teacher(f"torchvision:{name}", num_classes=10, input_shape=SHAPE)
    randomise_statistics(teacher).eval()
    architecture = trace(teacher, SHAPE)
    assert [layer.name for layer in architecture.layers if layer.op == "opaque"] == []
    rebuilt = build(architecture, inherit_from=teacher).eval()
    with torch.no_grad():
        for batch in (2, 5):
            images = torch.randn(batch, *SHAPE)
            assert torch.equal(rebuilt(images), teacher(images))
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.to_json() == architecture.to_json()
    assert set(rebuilt.state_dict()) <= set(teacher.state_dict())
    assert architecture.num_params == num_parameters(teacher)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher(torch.randn(1, *SHAPE))
    assert architecture.macs * 2 == counter.get_total_flops()


# layers, edges, removable layers, parameters, skip pairs (existing edges, which ESNAC's code draws too, included)
ESNAC = {
    "resnet18": (60, 67, 50, 11_220_132, 465),
    "resnet34": (108, 123, 98, 21_328_292, 1605),
    "vgg19": (55, 54, 44, 20_086_692, 294),
}


@pytest.mark.parametrize("name", list(ESNAC))
def test_esnac_networks_have_the_published_numbers(name):
    shape = (3, 32, 32)
    teacher = trace(load_teacher(name, num_classes=100, input_shape=shape), shape)
    space = SearchSpace(teacher, grouping="by_size", divisor=1)
    seen = view(teacher)
    pairs = len(space.skip_pairs) + len(seen.edges)
    assert (
        len(seen.listed),
        len(seen.edges),
        len(space.removable),
        teacher.num_params,
        pairs,
    ) == ESNAC[name]
    assert [group.size for group in space.groups] == [64, 128, 256, 512]
    assert space.encode(space.sample(3, seed=0)).shape == (3, ESNAC[name][0], 10 + 6 + 2 * 128)
