"""The module that keeps some places of an axis, which an architecture's `gather` becomes.

The places are a constant of the architecture and no state: they are in no state_dict, so a student's has the teacher's keys alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import torch
from torch import nn

from raysearch.models.layout import value_text

SOURCE = '''

class Gather(nn.Module):
    """Keeps some places of an axis, written as "0-3 7"; they are no part of the state_dict."""

    def __init__(self, axis: int, kept: str) -> None:
        super().__init__()
        ends = [[int(end) for end in part.split("-")] for part in kept.split()]
        index = [place for part in ends for place in range(part[0], part[-1] + 1)]
        self.axis = axis
        self.register_buffer("index", torch.tensor(index), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.index_select(x, self.axis, self.index)
'''
"""The same module in a generated file."""

_COLUMNS = 80


class Gather(nn.Module):
    """Keeps some places of an axis.

    Args:
        axis: it counts the batch.
        index: the places, ascending.
    """

    index: torch.Tensor

    def __init__(self, axis: int, index: Sequence[int]) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("index", torch.tensor(list(index)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The kept places of x, which stays as it is."""
        return torch.index_select(x, self.axis, self.index)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, kept={len(self.index)}"


def source_lines(name: str, axis: int, index: Sequence[int]) -> list[str]:
    """The statement that makes the module `name` in a generated file."""
    kept = runs(index)
    line = f"        self.{name} = Gather({axis}, {value_text(kept)})"
    if len(line) <= _COLUMNS + 20:
        return [line]
    rows = textwrap.wrap(kept, _COLUMNS, break_long_words=False)
    texts = [value_text(row + " ") for row in rows[:-1]] + [value_text(rows[-1])]
    head = [f"        self.{name} = Gather(", f"            {axis},"]
    return [
        *head,
        *(f"            {text}" for text in texts[:-1]),
        f"            {texts[-1]},",
        "        )",
    ]


def runs(index: Sequence[int]) -> str:
    """Ascending places as text, runs by their ends: "0-3 7"."""
    found: list[list[int]] = []
    for place in index:
        if found and place == found[-1][-1] + 1:
            found[-1] = [found[-1][0], place]
        else:
            found.append([place])
    return " ".join("-".join(map(str, ends)) for ends in found)
