"""Tiny data sets on disk, written with other libraries than the code under test reads them with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """[H, W] or [H, W, C] uint8 as a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pictures(num_images: int, channels: int = 1, side: int = 6, seed: int = 0) -> np.ndarray:
    """[N, C, H, W] uint8, all different."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, channels, side, side), dtype=np.uint8)


def write_parquet(
    file: Path,
    images: np.ndarray,
    columns: dict[str, list[int]],
    *,
    plain: bool = False,
    metadata: dict[str, str] | None = None,
) -> None:
    """A parquet file as Hugging Face writes it; `plain`: the image column is bytes, not a struct."""
    encoded = [encode(np.moveaxis(image, 0, -1).squeeze()) for image in images]
    values = encoded if plain else [{"bytes": content, "path": None} for content in encoded]
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(values, kind), **columns})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=5)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of whoever runs it."""
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
