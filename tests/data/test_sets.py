"""Loading by name."""

from __future__ import annotations

import gzip
import socket
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from raysearch.data import load_data
from raysearch.errors import ConfigError, DataError

from .conftest import pictures, write_parquet


def test_digits_are_scikit_learns_digits() -> None:
    data, source = load_data("digits"), load_digits()
    assert data.shape == (1, 8, 8)
    assert data.num_classes == 10
    assert data.preprocessing.scale == 1 / 16
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == np.uint8
        assert np.array_equal(split.images[:, 0], source.images[split.indices])
        assert np.array_equal(split.labels, source.target[split.indices])


def test_the_parts_of_digits_are_disjoint_and_the_test_part_is_always_the_same() -> None:
    first, second = load_data("digits", seed=0), load_data("digits", seed=7)
    assert len(first.test) == 360
    assert np.array_equal(first.test.indices, second.test.indices)
    assert not np.array_equal(first.validation.indices, second.validation.indices)
    rows = np.concatenate([part.indices for part in (first.train, first.validation, first.test)])
    assert np.array_equal(np.sort(rows), np.arange(1797))
    assert "360 of 1797" in first.notes[0]


def test_digits_can_be_resized_and_coloured() -> None:
    assert load_data("digits", mode="RGB", resize=16).shape == (3, 16, 16)


def _write_idx(file: Path, array: np.ndarray) -> None:
    """An IDX file, the format of the original MNIST page."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


def test_torchvisions_files_are_read_where_they_are(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    parts = {"train": pictures(40, side=28), "t10k": pictures(20, side=28, seed=1)}
    for part, images in parts.items():
        _write_idx(raw / f"{part}-images-idx3-ubyte", images[:, 0])
        _write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(len(images)) % 10)
    data = load_data("fashion_mnist", path=tmp_path, download=False)
    assert np.array_equal(data.train.images, parts["train"][data.train.indices])
    assert np.array_equal(data.test.images, parts["t10k"])
    assert data.classes[0] == "T-shirt/top"
    assert data.augment == "flip_crop"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"])
def test_missing_files_are_named_with_the_place_and_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"files of {name} are not in .*none.*set data.path"):
        load_data(name, path=tmp_path / "none", download=False)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_a_failed_download_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # a port that nobody listens to
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(DataError, match="downloading failed") as caught:
        load_data(name, path=tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_to_be_deleted(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            with gzip.open(raw / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(b"torn")
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03torn")
    with pytest.raises(DataError, match=r"files of mnist in .* cannot be read .*delete them"):
        load_data("mnist", path=tmp_path)


@pytest.mark.parametrize("name", ["parquet", "image_folder"])
def test_a_folder_set_needs_a_folder_that_exists(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.path is null"):
        load_data(name)
    with pytest.raises(DataError, match="does not exist"):
        load_data(name, path=tmp_path / "nowhere")


def test_a_named_folder_of_parquet_files_is_recognised(tmp_path: Path) -> None:
    labels = [row % 2 for row in range(20)]
    write_parquet(tmp_path / "train.parquet", pictures(20), {"label": labels})
    assert load_data(str(tmp_path)).name == "parquet"


@pytest.mark.parametrize("name", ["imagenet", "", "no/such/folder"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data.name is .* digits, mnist"):
        load_data(name)


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module of data functions."""
    (tmp_path / "own_data.py").write_text(
        "import numpy as np\n"
        "from raysearch.data import load_data\n"
        "x, y = np.zeros((20, 4, 4)), np.arange(20) % 2\n"
        "def one(): return x, y\n"
        "def two(): return (x, y), (x[:5], y[:5])\n"
        "def whole(): return load_data('digits')\n"
        "def located(path): return np.load(path / 'x.npy'), y\n"
        "def broken(): raise KeyError('pixels\\nof nobody')\n"
        "def nothing(): return None\n"
        "number = 3\n"
    )
    np.save(tmp_path / "x.npy", np.ones((20, 4, 4)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    return "own_data"


def test_a_callable_may_return_one_part_two_parts_or_a_data_set(user_module: str) -> None:
    one, two = load_data(f"{user_module}:one"), load_data(f"{user_module}:two")
    assert one.name == "own_data:one"
    assert len(one.test) == 3
    assert len(two.test) == 5
    assert load_data(f"{user_module}:whole").name == "digits"


def test_a_callable_gets_the_path(user_module: str, tmp_path: Path) -> None:
    assert load_data(f"{user_module}:located", path=tmp_path).train.images.max() == 1


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("broken", r"own_data:broken raised KeyError: 'pixels.*of nobody'$"),
        ("nothing", r"data is a NoneType"),
        ("number", r"has no callable 'number'"),
        ("absent", r"has no callable 'absent'"),
        ("located", r"raised TypeError"),
    ],
)
def test_a_callable_that_fails_is_one_sentence(
    user_module: str, attribute: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"{user_module}:{attribute}")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"no_such_module cannot be imported .*PYTHONPATH"):
        load_data("no_such_module:data")
