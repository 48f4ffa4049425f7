"""Sequences of layers as the network's numbers, and back (section 4.1 of the paper, eq 7).

Ours: the type one-hot, so that the decoder chooses it by cross-entropy, and the attributes scaled, the width as log2 (its raw values, up to
4096, would drown everything else). The paper's own form (`raw`): the five integers as they are. Sequences end in rows of type 0 up to
T_max, which are masked: what stands there never reaches the embedding.

Notation
    x    [B, F, T_max] what the encoder reads        m    [B, T_max] 1 up to the last layer, 0 behind it
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysearch.architecture.sequences.chains import COLUMNS, NONE, OTHER
from raysearch.errors import ConfigError

NUM_TYPES = OTHER + 1
NUM_ATTRIBUTES = len(COLUMNS) - 1
WIDTH = 1
"""The width's place among the attributes (kernel, outputs, stride, padding)."""


@dataclass(frozen=True)
class Sequences:
    """A batch of networks as the encoder reads them.

    Attributes:
        x: [B, F, T_max]
        mask: [B, T_max] float; None: no row is padding.
        types: [B, T_max] int64 for the cross-entropy.
        attributes: [B, T_max, 4] scaled, 0 where there is no layer.
    """

    x: Tensor
    mask: Tensor | None
    types: Tensor
    attributes: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor) -> Sequences:
        mask = None if self.mask is None else self.mask[rows]
        return Sequences(self.x[rows], mask, self.types[rows], self.attributes[rows])

    @classmethod
    def concatenate(cls, parts: list[Sequences]) -> Sequences:
        """One batch of several of the same coding."""
        masks = [part.mask for part in parts if part.mask is not None]
        return cls(
            torch.cat([part.x for part in parts]),
            torch.cat(masks) if masks else None,
            torch.cat([part.types for part in parts]),
            torch.cat([part.attributes for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class Coding:
    """How rows become numbers.

    Attributes:
        num_rows: T_max.
        raw: the paper's five integers.
        aligned: row t is layer t of one teacher: a row of type 0 is a removed layer, not padding.
        center: [T_max, 4] float64 means of the transformed attributes, by position where aligned.
        scale: [4] float64 their deviations.
    """

    num_rows: int
    raw: bool
    aligned: bool
    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, *, raw: bool, aligned: bool) -> Coding:
        """The coding of a space.

        Args:
            rows: [n, T_max, 5] a sample of its networks.
            raw: the paper's form.
            aligned: see the class.
        """
        present = rows[:, :, 0] != NONE  # [n, T]
        values = _transform(rows[:, :, 1:])  # [n, T, 4]
        weight = present[:, :, None].astype(np.float64)
        over = (0,) if aligned else (0, 1)
        total = np.maximum(weight.sum(axis=over, keepdims=True), 1)
        center = np.broadcast_to(
            (values * weight).sum(axis=over, keepdims=True) / total, values.shape
        )
        spread = (np.square(values - center) * weight).sum(axis=(0, 1)) / max(weight.sum(), 1)
        scale = np.where(spread > 1e-6, np.sqrt(spread), 1.0)
        return cls(rows.shape[1], raw, aligned, center[0].copy(), scale)

    @property
    def num_features(self) -> int:
        """F."""
        return len(COLUMNS) if self.raw else NUM_TYPES + NUM_ATTRIBUTES

    def __call__(self, rows: np.ndarray) -> Sequences:
        """Codes networks.

        Args:
            rows: [B, T, 5], T <= T_max.

        Raises:
            ConfigError: T > T_max.
        """
        table = padded(rows, self.num_rows)  # [B, T_max, 5]
        present = table[:, :, 0] != NONE
        mask = None
        if not self.aligned:
            # a layer is followed by a layer, or by nothing but padding
            mask = torch.from_numpy(
                np.flip(np.logical_or.accumulate(np.flip(present, 1), 1), 1).copy()
            )
            mask = mask.float()
        types = torch.from_numpy(table[:, :, 0].astype(np.int64))
        scaled = (_transform(table[:, :, 1:]) - self.center) / self.scale * present[:, :, None]
        attributes = torch.from_numpy(scaled).float()
        if self.raw:
            x = torch.from_numpy(table.astype(np.float32)).transpose(1, 2)  # [B, 5, T_max]
        else:
            onehot = torch.nn.functional.one_hot(types, NUM_TYPES).float()
            x = torch.cat([onehot, attributes], dim=2).transpose(1, 2)  # [B, F, T_max]
        return Sequences(x.contiguous(), mask, types, attributes)

    def read(self, output: Tensor) -> np.ndarray:
        """What a decoder's output says: [B, T_max, 5] float64, whole numbers but for the width.

        Args:
            output: [B, F, T_max]; type logits and scaled attributes, or the five raw numbers.
        """
        table = output.detach().double().transpose(1, 2).cpu().numpy()  # [B, T_max, F]
        if self.raw:
            return _rounded(table)
        kind = table[:, :, :NUM_TYPES].argmax(axis=2)
        values = table[:, :, NUM_TYPES:] * self.scale + self.center
        width = np.exp2(np.clip(values[:, :, WIDTH], 0, 30))
        values = np.rint(values)
        values[:, :, WIDTH] = width
        rows = np.concatenate([kind[:, :, None], np.maximum(values, 0)], axis=2)
        rows[kind == NONE] = 0
        return rows


def padded(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Rows of zeros behind the last: [B, num_rows, 5].

    Raises:
        ConfigError: the sequences are longer.
    """
    missing = num_rows - rows.shape[1]
    if missing < 0:
        raise ConfigError(
            f"search.warm_start has students of {rows.shape[1]} layers, but the longest here has {num_rows}: give a run of this teacher"
        )
    return np.pad(rows, ((0, 0), (0, missing), (0, 0)))


def _transform(attributes: np.ndarray) -> np.ndarray:
    """Kernel, log2 of the outputs, stride, padding as float64: [..., 4]."""
    values = attributes.astype(np.float64)
    values[..., WIDTH] = np.log2(np.maximum(values[..., WIDTH], 1.0))
    return values


def _rounded(table: np.ndarray) -> np.ndarray:
    rows = np.rint(np.clip(np.nan_to_num(table, posinf=2**31, neginf=0), 0, 2**31 - 1))
    rows[:, :, 0] = np.clip(rows[:, :, 0], NONE, OTHER)
    rows[rows[:, :, 0] == NONE] = 0
    return rows
