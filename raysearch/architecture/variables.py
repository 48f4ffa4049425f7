"""Union-find with refinement: channel variables that are unified, and split where boundaries differ."""

from __future__ import annotations

import math

Blocks = tuple[tuple[int, int], ...]
"""(variable, multiplicity) in the order of the channels; channel c of a variable takes `multiplicity` adjacent places."""

MAX_REFINEMENTS = 512
"""Two lists that need more steps than this to align are frozen instead."""


class Variables:
    """Union-find over channel variables that can be split in two.

    Attributes:
        parent: of each variable; its own index where it stands for its class.
        size, divisor, frozen: as in `ChannelVariable`, valid for the classes' representatives.
        parts: the two variables that a split representative consists of.
    """

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.size: list[int] = []
        self.divisor: list[int] = []
        self.frozen: list[str] = []
        self.parts: list[tuple[int, int] | None] = []

    def new(self, size: int, frozen: str = "", divisor: int = 1) -> int:
        """Opens a variable."""
        self.parent.append(len(self.parent))
        self.size.append(size)
        self.divisor.append(divisor)
        self.frozen.append(frozen)
        self.parts.append(None)
        return self.parent[-1]

    def find(self, variable: int) -> int:
        """The representative of a variable's class."""
        while self.parent[variable] != variable:
            self.parent[variable] = self.parent[self.parent[variable]]
            variable = self.parent[variable]
        return variable

    def resolve(self, blocks: Blocks) -> Blocks:
        """The same axis in the unsplit representatives of today."""
        out: list[tuple[int, int]] = []
        stack = list(reversed(blocks))
        while stack:
            variable, multiplicity = stack.pop()
            root = self.find(variable)
            parts = self.parts[root]
            if parts is None:
                out.append((root, multiplicity))
            else:
                stack.extend(((parts[1], multiplicity), (parts[0], multiplicity)))
        return tuple(out)

    def freeze(self, blocks: Blocks, reason: str) -> None:
        """Fixes the sizes of all variables of an axis; the first reason stays."""
        for root, _ in self.resolve(blocks):
            self.frozen[root] = self.frozen[root] or reason

    def divide(self, blocks: Blocks, divisor: int) -> None:
        """Asks for sizes that a number divides."""
        for root, _ in self.resolve(blocks):
            self.divisor[root] = math.lcm(self.divisor[root], divisor)

    def split(self, root: int, first: int) -> None:
        """Makes a representative two variables, of `first` channels and of the rest."""
        sizes = (first, self.size[root] - first)
        left, right = (self.new(n, self.frozen[root], self.divisor[root]) for n in sizes)
        self.parts[root] = (left, right)

    def length(self, blocks: Blocks) -> int:
        """How many channels an axis has."""
        return sum(self.size[variable] * multiplicity for variable, multiplicity in blocks)

    def cut(self, blocks: Blocks, place: int) -> tuple[Blocks, Blocks] | None:
        """The axis in two at a place, splitting the variable that stands there; None inside one channel's repetitions."""
        blocks = self.resolve(blocks)
        for index, (root, multiplicity) in enumerate(blocks):
            width = self.size[root] * multiplicity
            if place >= width:
                place -= width
                continue
            if place == 0:
                return blocks[:index], blocks[index:]
            if place % multiplicity:
                return None
            self.split(root, place // multiplicity)
            left, right = self.cut(blocks[index : index + 1], place) or ((), ())
            rest = self.resolve(blocks[index + 1 :])  # the same variable may stand there too
            return (*self.resolve(blocks[:index]), *left), (*right, *rest)
        return blocks, ()

    def union(self, left: int, right: int) -> None:
        """Makes two representatives of one size one."""
        keep, drop = min(left, right), max(left, right)
        self.parent[drop] = keep
        self.divisor[keep] = math.lcm(self.divisor[keep], self.divisor[drop])
        self.frozen[keep] = self.frozen[keep] or self.frozen[drop]

    def unify(self, left: Blocks, right: Blocks) -> Blocks:
        """Makes two channel axes of equal length one; freezes both where they do not align."""
        for _ in range(MAX_REFINEMENTS):
            left, right = self.resolve(left), self.resolve(right)
            mismatch = next((p for p in zip(left, right, strict=False) if p[0] != p[1]), None)
            if mismatch is None and len(left) == len(right):
                return left
            if mismatch is None or mismatch[0][1] != mismatch[1][1]:
                break
            (a, _), (b, _) = mismatch
            if self.size[a] == self.size[b]:
                self.union(a, b)
            else:
                large = a if self.size[a] > self.size[b] else b
                self.split(large, min(self.size[a], self.size[b]))
        self.freeze(left, "its channels are combined with others that do not align")
        self.freeze(right, "its channels are combined with others that do not align")
        return left
