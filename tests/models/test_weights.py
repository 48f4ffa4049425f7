"""Weights files of every kind, good and bad."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from raysearch.errors import WeightsError
from raysearch.models.weights import apply_weights, load_weights


@pytest.fixture
def module():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in found
    )


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_state_dict_is_found_in_a_checkpoint(module, wrapper, prefix, tmp_path):
    state = {prefix + key: tensor for key, tensor in module.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pt")
    assert same(load_weights(tmp_path / "w.pt"), module.state_dict())


def test_safetensors_are_read(module, tmp_path):
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    assert same(load_weights(tmp_path / "w.safetensors"), module.state_dict())


def write_pickled_module(path, module):
    torch.save(module, path)


def write_list(path, _):
    torch.save([1, 2], path)


def write_number(path, _):
    torch.save({"epoch": 3}, path)


def write_empty(path, _):
    torch.save({}, path)


def write_text(path, _):
    path.write_text("no weights here")


def write_nothing(path, _):
    path.touch()


def write_half(path, module):
    torch.save(module.state_dict(), path)
    path.write_bytes(path.read_bytes()[:500])


def write_folder(path, _):
    path.mkdir()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    "write",
    [
        write_pickled_module,
        write_list,
        write_number,
        write_empty,
        write_text,
        write_nothing,
        write_half,
        write_folder,
        lambda *_: None,
    ],
)
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(module, name, write, tmp_path):
    path = tmp_path / name
    write(path, module)
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickled_module_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    torch.save({"a": Trap()}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="pickle"):
        load_weights(tmp_path / "w.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.reshape(4, -1).to_sparse_csr(), "sparse"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "quantised"),
        (lambda t: t.to("meta"), "meta device"),
    ],
)
def test_tensors_that_are_not_plain_are_refused(module, make, words, tmp_path):
    state = module.state_dict()
    state["0.weight"] = make(state["0.weight"])
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=f"'0.weight' of '.*w.pt' is .*{words}.*; save plain"):
        load_weights(tmp_path / "w.pt")


def test_fitting_weights_are_copied(module):
    state = {key: torch.full_like(tensor, 2) for key, tensor in module.state_dict().items()}
    apply_weights(module, state, "file")
    assert same(module.state_dict(), state)


def test_a_missing_batch_counter_is_no_obstacle(module):
    state = dict(module.state_dict())
    del state["1.num_batches_tracked"]
    apply_weights(module, state, "file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("1.bias"), r"has no '1.bias' \[4\]"),
        (lambda s: s.update(extra=torch.zeros(1)), "'extra', which the teacher does not have"),
        (
            lambda s: s.update({"0.weight": torch.zeros(4, 1, 3, 3)}),
            r"'0.weight' of shape \[4, 1, 3, 3\], but the teacher's is \[4, 3, 3, 3\]",
        ),
        (
            lambda s: s.update({"0.weight": s["0.weight"].to(torch.complex64)}),
            "'0.weight' of type complex64, but the teacher's is float32",
        ),
        (
            lambda s: s.update({"1.running_var": s["1.running_var"].long()}),
            "'1.running_var' of type int64, but the teacher's is float32",
        ),
    ],
)
def test_weights_that_do_not_fit_name_the_tensor_and_change_nothing(module, change, words):
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    state = {key: tensor + 1 for key, tensor in module.state_dict().items()}
    change(state)
    with pytest.raises(WeightsError, match=words):
        apply_weights(module, state, "file")
    assert same(module.state_dict(), before)
