"""A8, A9: networks as users write them are captured exactly, or refused with the reason; no student of theirs is wrong."""

import pytest
import torch

from raysearch.architecture import Architecture, SearchSpace
from raysearch.errors import TraceError, UnsupportedTeacher
from raysearch.models import build, trace
from tests import measures
from tests.acceptance.networks import CASES, REFUSED, SHAPE, VIEW_WRITERS
from tests.torch_state import randomise_statistics


def logits_of(module, case, images):
    outputs = module(images)
    return outputs if case.output_index is None else outputs[case.output_index]


@pytest.mark.parametrize("name", list(CASES))
def test_a_quirk_is_captured_bit_for_bit_with_exact_counts(networks, name):
    case = CASES[name]
    module, architecture = networks(name)
    rebuilt = build(architecture, inherit_from=module).eval()
    with torch.no_grad():
        for batch in (2, 5):
            images = torch.randn(batch, *case.shape)
            assert torch.equal(rebuilt(images), logits_of(module, case, images.clone()))
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert architecture.num_params == sum(p.numel() for p in rebuilt.parameters())
    if case.folded:
        return
    assert set(rebuilt.state_dict()) <= set(module.state_dict())
    names = dict(module.named_parameters(remove_duplicate=False))
    used = {id(names[key]): names[key] for key in rebuilt.state_dict() if key in names}
    assert architecture.num_params == sum(p.numel() for p in used.values())


@pytest.mark.parametrize("grouping", ["coupled", "by_size"])
@pytest.mark.parametrize("name", list(CASES))
def test_random_students_of_a_quirk_run_train_and_are_counted(networks, name, grouping):
    case = CASES[name]
    module, architecture = networks(name)
    space = SearchSpace(architecture, grouping=grouping)
    batch = space.batch([*space.sample(3, seed=0), space.smallest()])
    params, macs = space.num_params(batch), space.macs(batch)
    images = torch.randn(3, *case.shape)
    for row, edits in enumerate(batch):
        student = space.apply(edits)
        built = build(student, inherit_from=module).train()
        logits = built(images)
        assert logits.shape == logits_of(module, case, images).shape
        logits.square().sum().backward()
        missing = [key for key, p in built.named_parameters() if p.grad is None]
        assert missing == []
        numel = sum(p.numel() for p in built.parameters())
        assert numel == student.num_params == params[row]
        assert measures.macs(built.eval(), images[:1]) == student.macs == macs[row]
        peak = measures.peak_bytes(built, images[:1].clone())
        if case.permutes:
            assert 0 < peak <= student.peak_memory_bytes
        elif not case.temporaries:
            assert peak == student.peak_memory_bytes
        assert build(student)(images).shape == logits.shape


@pytest.mark.parametrize("name", list(CASES))
def test_every_quirk_leaves_channels_to_shrink(networks, name):
    _, architecture = networks(name)
    space = SearchSpace(architecture)
    assert space.groups, [group.reason for group in space.frozen_groups]
    assert space.num_params(space.smallest())[0] < architecture.num_params


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_network_without_one_graph_is_refused_with_the_reason(name):
    make, words = REFUSED[name]
    with pytest.raises(TraceError, match=words) as caught:
        trace(make(), SHAPE)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UnsupportedTeacher) or "output_index" in words


@pytest.mark.parametrize("name", list(VIEW_WRITERS))
def test_writing_into_a_part_of_a_tensor_is_refused_or_right(name):
    module = randomise_statistics(VIEW_WRITERS[name]()).eval()
    try:
        architecture = trace(module, SHAPE)
    except UnsupportedTeacher as error:
        assert "\n" not in str(error)  # noqa: PT017  # refusing is one of two right answers
        return
    images = torch.randn(4, *SHAPE)
    rebuilt = build(architecture, inherit_from=module).eval()
    assert torch.equal(rebuilt(images.clone()), module(images.clone()))
