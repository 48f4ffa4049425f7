"""Union-find with refinement: channel variables that are unified, split where boundaries differ, and bundled where runs of channels
meet single ones."""

from __future__ import annotations

import math

Blocks = tuple[tuple[int, int], ...]
"""(variable, multiplicity) in the order of the channels; channel c of a variable takes `multiplicity` adjacent places."""

MAX_REFINEMENTS = 512
"""Two lists that need more steps than this to align are frozen instead."""


class Variables:
    """Union-find over channel variables that can be split in two, or bundled into runs.

    Attributes:
        parent: of each variable; its own index where it stands for its class.
        size, divisor, frozen: as in `ChannelVariable`, valid for the classes' representatives.
        parts: the axis of other variables that a split or bundled representative consists of.
    """

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.size: list[int] = []
        self.divisor: list[int] = []
        self.frozen: list[str] = []
        self.parts: list[Blocks | None] = []

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
                stack.extend((part, m * multiplicity) for part, m in reversed(parts))
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
        self.parts[root] = ((left, 1), (right, 1))

    def bundle(self, blocks: Blocks, run: int) -> Blocks | None:
        """The axis as runs of adjacent channels that exist or vanish together; None where a run crosses a boundary."""
        blocks = self.resolve(blocks)
        for root, multiplicity in blocks:
            factor = run // math.gcd(run, multiplicity)
            if self.parts[root] is not None or factor == 1:
                continue  # the variable has been bundled a moment ago
            if self.size[root] % factor:
                return None
            # the groups of a grouped convolution must not cut a run in two, so the divisor stays
            runs = self.new(self.size[root] // factor, self.frozen[root], self.divisor[root])
            self.parts[root] = ((runs, factor),)
        found = self.resolve(blocks)
        return found if all(m % run == 0 for _, m in found) else None

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
            if mismatch is None or not self._align(*mismatch):
                break
        self.freeze(left, "its channels are combined with others that do not align")
        self.freeze(right, "its channels are combined with others that do not align")
        return left

    def _align(self, left: tuple[int, int], right: tuple[int, int]) -> bool:
        """Makes the first channels of two different blocks one, as far as the shorter reaches; False where they cannot be."""
        (a, m), (b, n) = left, right
        if a == b:
            return False
        ours, theirs = self.size[a] * m, self.size[b] * n
        if ours != theirs:
            longer, run = left if ours > theirs else right
            if min(ours, theirs) % run:
                return False
            self.split(longer, min(ours, theirs) // run)
        elif m == n:
            self.union(a, b)
        else:
            common = math.lcm(m, n)
            return all(self.bundle((block,), common) is not None for block in (left, right))
        return True
