"""Edits: what turns the teacher into a student, as one record and as a batch of arrays.

The text of edits is `e1.REMOVE.WIDTHS.SKIPS`. REMOVE is a bit mask, six layers a character; WIDTHS lists numbers; SKIPS lists the gaps
between sorted pair indices. A number is written in base 32, least digit first, where the sixth bit of a character says that another
one follows. It stays under 1 kB for a network of 430 layers with 120 channel groups.

Where layers keep some of their inputs only, `.INPUTS` follows: for each such layer its index, the length of a bit mask in characters, and
the mask of the inputs that it keeps; 784 inputs take 134 characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np

from raysearch.errors import InvalidArchitecture

PREFIX = "e1."
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_MAX_TEXT = 65_536
_MAX_DIGITS = 7

Inputs = tuple[tuple[int, tuple[int, ...]], ...]
"""(layer index, the inputs that it keeps), sorted."""


@dataclass(frozen=True)
class Edits:
    """The edits of one student relative to its teacher.

    Attributes:
        remove: indices of the layers that become identities, sorted.
        widths: the number of channels of every channel group of the space.
        skips: indices of the space's skip pairs that are added, sorted.
        inputs: (layer index, the inputs that it keeps) of every layer that keeps some only, sorted. The inputs are counted among those
            that the student's layer would read otherwise, after removal and widths.
    """

    remove: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    skips: tuple[int, ...] = ()
    inputs: Inputs = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "remove", tuple(sorted({int(index) for index in self.remove})))
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        object.__setattr__(self, "skips", tuple(sorted({int(pair) for pair in self.skips})))
        for name in ("remove", "widths", "skips"):
            if min(getattr(self, name), default=0) < 0:
                raise InvalidArchitecture(f"{name} of the edits holds a negative number")
        if self.inputs:
            object.__setattr__(self, "inputs", _sorted_inputs(self.inputs))

    def __str__(self) -> str:
        gaps = np.diff(self.skips, prepend=-1) - 1 if self.skips else []
        sections = [_write_mask(self.remove), _write_numbers(self.widths), _write_numbers(gaps)]
        if self.inputs:
            sections.append("".join(_write_inputs(*one) for one in self.inputs))
        return PREFIX + ".".join(sections)

    @classmethod
    def from_text(cls, text: str) -> Edits:
        """Reads what `str(edits)` wrote; `SearchSpace.parse` also checks it against a space.

        Raises:
            InvalidArchitecture: where the text is not canonical.
        """
        if not isinstance(text, str) or not text.startswith(PREFIX):
            shown = text[:40] if isinstance(text, str) else text
            raise InvalidArchitecture(
                f"architecture {shown!r} is not the text of edits: it must begin with {PREFIX!r}"
            )
        if len(text) > _MAX_TEXT:
            raise InvalidArchitecture(
                f"the text of edits has {len(text)} characters: at most {_MAX_TEXT} are read"
            )
        sections = text[len(PREFIX) :].split(".")
        if len(sections) not in (3, 4):
            raise InvalidArchitecture(
                f"the text of edits has {len(sections)} sections: it must have 3 (remove, widths, skips), or 4 with inputs"
            )
        gaps = _read_numbers(sections[2], "skips")
        skips = np.cumsum(np.asarray(gaps, np.int64) + 1) - 1
        edits = cls(
            _read_mask(_characters(sections[0], "remove")),
            tuple(_read_numbers(sections[1], "widths")),
            tuple(skips),
            _read_inputs(sections[3]) if len(sections) == 4 else (),
        )
        if str(edits) != text:
            raise InvalidArchitecture("the text of edits is not in its canonical form")
        return edits


def _write_mask(indices: Sequence[int]) -> str:
    values = [0] * (indices[-1] // 6 + 1 if indices else 0)
    for index in indices:
        values[index // 6] |= 1 << index % 6
    return "".join(_ALPHABET[value] for value in values)


def _read_mask(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        6 * place + bit
        for place, value in enumerate(values)
        for bit in range(6)
        if value >> bit & 1
    )


def _write_numbers(numbers: Iterable[int]) -> str:
    out = []
    for number in numbers:
        rest = int(number)
        while rest >= 32:
            out.append(_ALPHABET[rest % 32 + 32])
            rest //= 32
        out.append(_ALPHABET[rest])
    return "".join(out)


def _read_numbers(section: str, field_name: str) -> list[int]:
    return _take_numbers(_characters(section, field_name), None, field_name)[0]


def _take_numbers(
    values: Sequence[int], count: int | None, field_name: str
) -> tuple[list[int], Sequence[int]]:
    """The first `count` numbers (None: all) of a section's characters, and the characters behind them."""
    numbers: list[int] = []
    number, digits = 0, 0
    for place, value in enumerate(values):
        if len(numbers) == count:
            return numbers, values[place:]
        number += (value % 32) << (5 * digits)
        digits += 1
        if digits > _MAX_DIGITS:
            raise InvalidArchitecture(f"the {field_name} of the edits hold a number out of range")
        if value < 32:
            numbers.append(number)
            number, digits = 0, 0
    if digits or (count is not None and len(numbers) < count):
        raise InvalidArchitecture(f"the {field_name} of the edits end in the middle of a number")
    return numbers, []


def _sorted_inputs(inputs: Inputs) -> Inputs:
    found: dict[int, tuple[int, ...]] = {}
    for layer, kept in inputs:
        if layer in found:
            raise InvalidArchitecture(f"inputs of the edits name layer {layer} twice")
        found[int(layer)] = tuple(sorted({int(place) for place in kept}))
        if not found[layer]:
            raise InvalidArchitecture(
                f"inputs of the edits leave layer {layer} none: at least one is kept"
            )
        if min(layer, *found[layer]) < 0:
            raise InvalidArchitecture("inputs of the edits holds a negative number")
    return tuple(sorted(found.items()))


def _write_inputs(layer: int, kept: Sequence[int]) -> str:
    mask = _write_mask(kept)
    return _write_numbers([layer, len(mask)]) + mask


def _read_inputs(section: str) -> Inputs:
    values = _characters(section, "inputs")
    found: list[tuple[int, tuple[int, ...]]] = []
    while values:
        (layer, length), values = _take_numbers(values, 2, "inputs")
        if length > len(values):
            raise InvalidArchitecture("the inputs of the edits end in the middle of a mask")
        found.append((layer, _read_mask(values[:length])))
        values = values[length:]
    return tuple(found)


def _characters(section: str, field_name: str) -> list[int]:
    try:
        return [_VALUE[character] for character in section]
    except KeyError as error:
        raise InvalidArchitecture(
            f"the {field_name} of the edits hold the character {error.args[0]!r}: use A-Z a-z 0-9 - _"
        ) from None


def _no_indices() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class EditsBatch:
    """Many edits as arrays.

    Attributes:
        remove: [B, L] bool over the teacher's layers (columns that are missing at the end count as False).
        widths: [B, G] int64.
        skip_rows: [S] int64, the candidate of every added skip, sorted.
        skip_pairs: [S] int64, its pair index, sorted within a candidate.
        input_rows: [I] int64, the candidate of every layer that keeps some of its inputs, sorted.
        inputs: for each of them, as in `Edits`, sorted within a candidate.

    Only who compresses a given network chooses single inputs: sampling, mutation and repair of a space make none, and drop those of the
    students that they are given. The encodings do not show them.
    """

    remove: np.ndarray
    widths: np.ndarray
    skip_rows: np.ndarray = field(default_factory=_no_indices)
    skip_pairs: np.ndarray = field(default_factory=_no_indices)
    input_rows: np.ndarray = field(default_factory=_no_indices)
    inputs: Inputs = ()

    def __len__(self) -> int:
        return len(self.widths)

    def __iter__(self) -> Iterator[Edits]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Edits: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray | Sequence[int]) -> EditsBatch: ...
    def __getitem__(self, index: int | slice | np.ndarray | Sequence[int]) -> Edits | EditsBatch:
        if isinstance(index, int | np.integer):
            row = range(len(self))[int(index)]
            first, last = np.searchsorted(self.skip_rows, [row, row + 1])
            return Edits(
                tuple(np.flatnonzero(self.remove[row]).tolist()),
                tuple(self.widths[row].tolist()),
                tuple(self.skip_pairs[first:last].tolist()),
                self.inputs[slice(*np.searchsorted(self.input_rows, [row, row + 1]))],
            )
        return self._take(np.arange(len(self))[index])

    def skip_matrix(self, num_pairs: int) -> np.ndarray:
        """Which skips each candidate has: [B, P] bool."""
        matrix = np.zeros((len(self), num_pairs), bool)
        matrix[self.skip_rows, self.skip_pairs] = True
        return matrix

    def _take(self, rows: np.ndarray) -> EditsBatch:
        skip_rows, places = _entries(self.skip_rows, rows)
        taken = EditsBatch(self.remove[rows], self.widths[rows], skip_rows, self.skip_pairs[places])
        if not self.inputs:
            return taken
        input_rows, places = _entries(self.input_rows, rows)
        inputs = tuple(self.inputs[place] for place in places)
        return replace(taken, input_rows=input_rows, inputs=inputs)

    @classmethod
    def from_edits(cls, edits: Sequence[Edits], num_layers: int | None = None) -> EditsBatch:
        """Stacks single edits, all of one space.

        Args:
            edits: at least one.
            num_layers: columns of `remove`; None: as many as are needed.
        """
        wide = max((index + 1 for one in edits for index in one.remove), default=0)
        remove = np.zeros((len(edits), max(wide, num_layers or 0)), bool)
        for row, one in enumerate(edits):
            remove[row, list(one.remove)] = True
        lengths = {len(one.widths) for one in edits}
        if len(lengths) > 1:
            raise InvalidArchitecture(
                f"edits of several spaces: their widths have {sorted(lengths)} entries"
            )
        widths = np.array([one.widths for one in edits], np.int64)
        counts = [len(one.skips) for one in edits]
        return cls(
            remove,
            widths.reshape(len(edits), max(lengths, default=0)),
            np.repeat(np.arange(len(edits)), counts),
            np.array([pair for one in edits for pair in one.skips], np.int64),
            np.repeat(np.arange(len(edits)), [len(one.inputs) for one in edits]),
            tuple(one_layer for one in edits for one_layer in one.inputs),
        )

    @classmethod
    def concatenate(cls, batches: Sequence[EditsBatch]) -> EditsBatch:
        """Puts batches of one space behind each other."""
        wide = max(batch.remove.shape[1] for batch in batches)
        offsets = np.cumsum([0, *(len(batch) for batch in batches)])
        return cls(
            np.concatenate([pad_columns(batch.remove, wide) for batch in batches]),
            np.concatenate([batch.widths for batch in batches]),
            np.concatenate(
                [batch.skip_rows + start for batch, start in zip(batches, offsets, strict=False)]
            ),
            np.concatenate([batch.skip_pairs for batch in batches]),
            np.concatenate(
                [batch.input_rows + start for batch, start in zip(batches, offsets, strict=False)]
            ),
            tuple(one_layer for batch in batches for one_layer in batch.inputs),
        )


def _entries(owners: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries of some rows, given the sorted row of each entry: their new rows, and where they stand, two [n] int64."""
    starts = np.searchsorted(owners, rows)
    counts = np.searchsorted(owners, rows, side="right") - starts
    new_rows = np.repeat(np.arange(len(rows)), counts)
    offsets = np.arange(len(new_rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return new_rows, np.repeat(starts, counts) + offsets


def pad_columns(mask: np.ndarray, columns: int) -> np.ndarray:
    """Adds columns of False at the end: [B, n] -> [B, columns]."""
    return np.pad(mask, ((0, 0), (0, max(0, columns - mask.shape[1]))))
