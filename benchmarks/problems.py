"""The problems that the benchmarks share: a teacher, its data, and the configuration that names both.

    python -m raysearch run benchmarks/configs/fashion_vgg11.yaml data.path=FOLDER      # from the repository's root

`digits_*` need nothing. `fashion_*` and `cifar_*` read parquet files in the layout of Hugging Face (`train.parquet`, `test.parquet`) from
`data.path`: the first 6,000 training rows, of which 1,000 are for validation, and all test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from torch import nn

from raysearch.config import Config, load_config
from raysearch.data.images import Conversion, decode
from raysearch.models.teachers.vgg import VGG

CONFIGS = Path(__file__).parent / "configs"
NUM_ROWS = 6_000
"""Of the training part: 5,000 to train on and 1,000 for validation."""

Part = tuple[np.ndarray, np.ndarray]
"""(images [N, C, H, W] uint8, labels [N] int64)"""


def problem_names() -> list[str]:
    """The problems, the cheapest first."""
    order = (
        "digits_conv5",
        "digits_resnet14",
        "digits_vgg6",
        "fashion_conv7",
        "fashion_resnet14",
        "fashion_vgg11",
        "cifar_resnet20",
    )
    return [name for name in order if (CONFIGS / f"{name}.yaml").exists()]


def problem_config(
    name: str, data: Path | None = None, overrides: Sequence[str] | dict[str, Any] = ()
) -> Config:
    """The configuration of a problem.

    Args:
        data: the folder that holds `fashion_mnist/` and `cifar10/`; unused by digits.
        overrides: as for `load_config`.
    """
    import yaml

    raw = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    folder = {"fashion": "fashion_mnist", "cifar": "cifar10"}.get(name.partition("_")[0])
    if folder is not None:
        if data is None:
            raise SystemExit(
                f"{name} needs --data FOLDER, a folder with {folder}/train.parquet and {folder}/test.parquet"
            )
        raw["data"]["path"] = str((data / folder).absolute())
    return load_config(raw, overrides)


def fashion_mnist(path: Path) -> tuple[Part, Part]:
    """Fashion-MNIST as grey images, 28x28."""
    return _rows(path / "train.parquet", "L", NUM_ROWS), _rows(path / "test.parquet", "L")


def cifar10(path: Path) -> tuple[Part, Part]:
    """CIFAR-10 in colour, 32x32."""
    return _rows(path / "train.parquet", "RGB", NUM_ROWS), _rows(path / "test.parquet", "RGB")


def vgg6(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Six convolutions and one linear layer: 288,170 parameters for ten classes of grey images."""
    return VGG(((32, 2), (64, 2), (128, 2)), num_classes, input_shape)


def vgg11_half(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """VGG-11 of half the width."""
    stages = ((32, 1), (64, 1), (128, 2), (256, 2), (256, 2))
    return VGG(stages, num_classes, input_shape)


def _rows(file: Path, mode: str, count: int | None = None) -> Part:
    """The first rows of a file; all of them where no count is given."""
    table = pq.read_table(file, columns=["image", "label"])
    table = table if count is None else table.slice(0, count)
    encoded = table.column("image").combine_chunks().field("bytes")
    images = decode((one.as_py() for one in encoded), len(table), Conversion(mode), file.stem)
    return images, table.column("label").to_numpy().astype(np.int64)
