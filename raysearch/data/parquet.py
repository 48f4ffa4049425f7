"""Parquet data sets in the layout of Hugging Face: one file or several shards a part.

Parts are told by file names (`train.parquet`, `test-00000-of-00002.parquet`) or by the folder around them (`train/0000.parquet`), in
the given folder, in its `data/`, or in its only sub-folder that holds parquet files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysearch.data.folders import part_of
from raysearch.data.images import Conversion, decode
from raysearch.data.source import Source
from raysearch.errors import DataError

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


def load_parquet(path: Path, how: Conversion) -> Source:
    """Read a parquet data set; see the module's docstring for the layout."""
    files = find_parts(path)
    parts, classes = {}, None
    for part, shards in files.items():
        readers = [_open(shard) for shard in shards]
        schema = readers[0].schema_arrow
        image, label = _image_column(schema, shards[0]), _label_column(schema, shards[0])
        classes = classes or class_names(schema, label)
        num_rows = sum(reader.metadata.num_rows for reader in readers)
        labels = np.concatenate([_labels(reader, label, shards[0]) for reader in readers])
        images = decode(_encoded(readers, image, part), num_rows, how, part)
        parts[part] = (images, labels)
    return Source("parquet", parts, classes)


def find_parts(path: Path) -> dict[str, list[Path]]:
    """The files of each part, shards in order; DataError where there is no training part."""
    if path.is_file():
        return {"train": [path]}
    folder = _folder_of_files(path)
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")) + sorted(folder.glob("*/*.parquet")):
        own = part_of(re.split(r"[-_.]", file.stem)[0])
        around = part_of(file.parent.name) if file.parent != folder else None
        if part := own or around:
            files.setdefault(part, []).append(file)
    if "train" not in files:
        raise DataError(
            f"data.path: {folder} holds parquet files, but no train*.parquet: rename one"
        )
    for shards in files.values():
        _check_shards(shards)
    return files


def class_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """The classes' names: the metadata key `classes`, or the ClassLabel feature of Hugging Face's `huggingface` key."""
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    if plain := metadata.get(b"classes"):
        text = plain.decode()
        return tuple(json.loads(text)) if text.lstrip().startswith("[") else tuple(text.split(","))
    if features := metadata.get(b"huggingface"):
        feature = json.loads(features).get("info", {}).get("features", {}).get(label, {})
        if names := feature.get("names"):
            return tuple(names)
    return None


def _folder_of_files(path: Path) -> Path:
    for folder in (path, path / "data"):
        if any(folder.glob("*.parquet")):
            return folder
    nested = sorted({file.parent for file in path.glob("*/*.parquet")})
    if any(part_of(folder.name) for folder in nested):
        return path
    if len(nested) == 1:
        return nested[0]
    if nested:
        names = ", ".join(folder.name for folder in nested)
        raise DataError(
            f"data.path: {path} holds several parquet data sets ({names}): name one of them"
        )
    raise DataError(
        f"data.path: no parquet file in {path} or its data/: name the folder of train*.parquet"
    )


def _check_shards(shards: Sequence[Path]) -> None:
    totals = {int(match[2]) for shard in shards if (match := _SHARD.search(shard.stem))}
    if totals and len(shards) != max(totals):
        raise DataError(
            f"{shards[0].parent} holds {len(shards)} of {max(totals)} shards of {shards[0].name}: "
            "fetch the missing ones"
        )


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file} cannot be read as parquet ({reason}): fetch it again") from error


def _image_column(schema: pa.Schema, file: Path) -> str:
    encoded = [field.name for field in schema if _holds_bytes(field.type)]
    for name in _IMAGE_NAMES:
        if name in encoded:
            return name
    if len(encoded) == 1:
        return encoded[0]
    raise DataError(
        f"{file} has the columns {', '.join(schema.names)}, but no column 'image' with encoded images "
        "(bytes, or a struct of bytes and path)"
    )


def _label_column(schema: pa.Schema, file: Path) -> str:
    whole = [field.name for field in schema if pa.types.is_integer(field.type)]
    for name in _LABEL_NAMES:
        if name in whole:
            return name
    if len(whole) == 1:
        return whole[0]
    raise DataError(
        f"{file} has the columns {', '.join(schema.names)}, but no column 'label' of whole numbers"
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _labels(reader: pq.ParquetFile, column: str, file: Path) -> np.ndarray:
    values = reader.read(columns=[column]).column(column)
    if values.null_count:
        raise DataError(f"{file}: {values.null_count} rows have no {column}: fill or remove them")
    return values.to_numpy().astype(np.int64)


def _encoded(readers: Sequence[pq.ParquetFile], column: str, part: str) -> Iterator[bytes]:
    """The encoded images of all shards, batch by batch, so that a large set is never held twice."""
    row = 0
    for reader in readers:
        for batch in reader.iter_batches(256, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield _bytes_of(value, row, part)
                row += 1


def _bytes_of(value: Any, row: int, part: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None:
        raise DataError(
            f"row {row} of the {part} part has no image bytes: store the images in the file"
        )
    return content
