"""What ATen's operations that only move values become: slices, permutations, shuffles and reshapes.

A reshape is written as merges of neighbouring axes and splits of one axis, so that the channels can be followed through it. The batch axis
must stay where it is.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from raysearch.models.tracing.rules import Call, Draft, Rule, aten_name, shape_of

COPIES = frozenset({"contiguous", "clone"})
PARTED = frozenset({"chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unbind"})
"""Operations with several outputs, each a slice of the input."""

_MIXES = "moves the batch axis"


def sizes_of(node: fx.Node) -> list[int]:
    """The sizes of a node's tensor after the batch."""
    return [int(size) for size in shape_of(node)[1:]]


def part(call: Call, node: fx.Node) -> Draft:
    """One output of an operation with several: the getitem `node` that reads it."""
    axis = call.axis("self", call.args.get("dim") or 0)
    outputs = call.node.meta["val"]
    index = int(node.args[1])  # type: ignore[arg-type]
    if call.name == "unbind":
        return _place(call, axis, index)
    start = sum(int(other.shape[axis + 1]) for other in outputs[:index])
    stop = start + int(outputs[index].shape[axis + 1])
    return _sliced(call.args["self"], axis, start, stop)


def _sliced(source: fx.Node, axis: int, start: int, stop: int, step: int = 1) -> Draft:
    attrs = {"dim": axis, "start": start, "stop": stop, "step": step}
    return Draft("slice", (source,), attrs)


def _slice(call: Call) -> Draft:
    axis, step = call.axis("self", call.args["dim"]), call.args["step"]
    size = sizes_of(call.args["self"])[axis]
    places = range(size)[slice(call.args["start"], call.args["end"], step)]
    if not places:
        raise call.unknown("takes nothing")
    return _sliced(call.args["self"], axis, places.start, places[-1] + 1, step)


def _narrow(call: Call) -> Draft:
    axis, start = call.axis("self", call.args["dim"]), call.args["start"]
    if not isinstance(start, int):
        raise call.unknown("begins where the data say")
    start %= sizes_of(call.args["self"])[axis]
    return _sliced(call.args["self"], axis, start, start + call.args["length"])


def _select(call: Call) -> Draft:
    axis = call.axis("self", call.args["dim"])
    return _place(call, axis, call.args["index"] % sizes_of(call.args["self"])[axis])


def _place(call: Call, axis: int, index: int) -> Draft:
    """One place of an axis, and then the axis merged away."""
    source, sizes = call.args["self"], sizes_of(call.args["self"])
    taken = _sliced(source, axis, index, index + 1)
    sizes[axis] = 1
    return _reshaped(call, taken, sizes, sizes[:axis] + sizes[axis + 1 :])


def _permute(call: Call) -> Draft:
    """All ways to reorder axes; the result's axes come from `dims`."""
    rank = call.rank("self")
    dims = list(range(rank))
    if call.name == "permute":
        dims = [dim % rank for dim in call.args["dims"]]
    elif call.name in ("movedim", "moveaxis"):
        dims = _moved(call, rank)
    else:
        one, other = _swapped(call)
        dims[one % rank], dims[other % rank] = dims[other % rank], dims[one % rank]
    if dims[0] != 0:
        raise call.unknown(_MIXES)
    return permutation(call.args["self"], [dim - 1 for dim in dims[1:]])


def permutation(source: fx.Node, dims: Sequence[int], *, contiguous: bool = False) -> Draft:
    """A permutation of the axes after the batch."""
    return Draft("permute", (source,), {"dims": list(dims), "contiguous": contiguous})


def _swapped(call: Call) -> tuple[int, int]:
    if call.name == "transpose":
        return call.args["dim0"], call.args["dim1"]
    if call.name in ("swapaxes", "swapdims"):
        first = "axis0" if "axis0" in call.args else "dim0"
        return call.args[first], call.args[first.replace("0", "1")]
    return -2, -1  # .mT


def _moved(call: Call, rank: int) -> list[int]:
    source, target = call.args["source"], call.args["destination"]
    sources = [dim % rank for dim in ([source] if isinstance(source, int) else source)]
    targets = [dim % rank for dim in ([target] if isinstance(target, int) else target)]
    rest = iter(dim for dim in range(rank) if dim not in sources)
    placed = dict(zip(targets, sources, strict=True))
    return [placed[place] if place in placed else next(rest) for place in range(rank)]


def _channel_shuffle(call: Call) -> Draft:
    return Draft("channel_shuffle", (call.args["self"],), {"groups": call.args["groups"]})


def shuffled(node: fx.Node) -> Draft | None:
    """The channel shuffle that ends in this reshape: [g * n, *S] as [g, n, *S], transposed, and back; None where it is none."""
    turned = _before(node)
    divided = _before(turned) if turned is not None else None
    if turned is None or divided is None or not _swaps_first_two(turned):
        return None
    source = divided.args[0]
    if not isinstance(source, fx.Node) or not _is_reshape(divided) or not _is_reshape(node):
        return None
    whole, parts = shape_of(source), shape_of(divided)
    if str(whole) != str(shape_of(node)) or str((whole[0], *whole[2:])) != str(
        (parts[0], *parts[3:])
    ):
        return None
    return Draft("channel_shuffle", (source,), {"groups": int(parts[1])})


def _before(node: fx.Node) -> fx.Node | None:
    """What a node reads first, copies looked through."""
    source = node.args[0] if node.args else None
    while isinstance(source, fx.Node) and aten_name(source) in COPIES:
        source = source.args[0]
    return source if isinstance(source, fx.Node) else None


def _is_reshape(node: fx.Node) -> bool:
    return aten_name(node) in RESHAPES


def _swaps_first_two(node: fx.Node) -> bool:
    """Whether a node exchanges the first two axes after the batch."""
    if aten_name(node) in ("transpose", "swapaxes", "swapdims"):
        rank = len(shape_of(node))
        return {int(dim) % rank for dim in node.args[1:3]} == {1, 2}  # type: ignore[call-overload]
    if aten_name(node) == "permute":
        dims: Any = node.args[1]
        return list(dims) == [0, 2, 1, *range(3, len(dims))]
    return False


def _stack(call: Call) -> Draft:
    """A concatenation along a new axis."""
    parts = call.args["tensors"]
    sizes = sizes_of(parts[0])
    axis = call.args["dim"] % (len(sizes) + 2) - 1
    if axis < 0:
        raise call.unknown(_MIXES)
    wide = [*sizes[:axis], 1, *sizes[axis:]]
    return Draft(
        "concat", tuple(_reshaped(call, tensor, sizes, wide) for tensor in parts), {"dim": axis}
    )


def _reshape(call: Call) -> Draft:
    """Any reshape that keeps the batch axis."""
    source = call.args["self"]
    before, after = shape_of(source), shape_of(call.node)
    if not after or str(before[0]) != str(after[0]):
        raise call.unknown(f"from {_text(before)} to {_text(after)} moves the batch axis")
    return _reshaped(call, source, sizes_of(source), sizes_of(call.node), _open_axis(call))


def _open_axis(call: Call) -> int:
    """Which axis after the batch the user left open (-1); -1 where none."""
    sizes = call.args.get("size") or call.args.get("shape")
    if call.name in ("view", "reshape") and isinstance(sizes, (list, tuple)) and -1 in sizes:
        return list(sizes).index(-1) - 1
    return -1


def _reshaped(
    call: Call,
    source: fx.Node | Draft,
    before: Sequence[int],
    after: Sequence[int],
    open_axis: int = -1,
) -> Draft:
    """A reshape as merges and splits.

    Args:
        call: names the operation where it is refused.
        source: what is reshaped.
        before, after: sizes without the batch.
        open_axis: the axis of `after` whose size follows from the others, where it is one of several that an axis is split into.
    """
    if not before or not after:
        raise call.unknown("has no axis but the batch, which is not supported")
    if len(after) == 1 and len(before) > 1:
        return Draft("reshape", (source,), {"mode": "flatten"})
    for start, end, first, last in reversed(_segments(before, after)):
        if end - start > 1:
            merge = {"mode": "merge", "start": start, "end": end - 1}
            source = Draft("reshape", (source,), merge)
        if last - first > 1:
            sizes = list(after[first:last])
            free = open_axis - first
            if not 0 <= free < len(sizes):
                free = max(range(len(sizes)), key=lambda place: (sizes[place], place))
            sizes[free] = -1
            source = Draft("reshape", (source,), {"mode": "split", "dim": start, "sizes": sizes})
    if not isinstance(source, Draft):
        raise call.unknown("changes nothing, which was expected to be left out")
    return source


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """The finest runs of axes (start, end of before, start, end of after) that hold the same values."""
    found: list[tuple[int, int, int, int]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        start, first = i, j
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        found.append((start, i, first, j))
    start, _, first, _ = found[-1]
    found[-1] = (start, len(before), first, len(after))  # ones at the end
    return found


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join(['batch', *(str(size) for size in shape[1:])])}]"


RESHAPES = frozenset(
    {"flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"}
    | {"_unsafe_view", "ravel"}
)

MOVES: Mapping[str, Rule] = {
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "stack": _stack,
    **dict.fromkeys(
        ("permute", "transpose", "swapaxes", "swapdims", "mT", "movedim", "moveaxis"), _permute
    ),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channel_shuffle),
    **dict.fromkeys(RESHAPES, _reshape),
}
"""ATen base name -> rule."""


def parted(node: fx.Node) -> fx.Node | None:
    """The call that a getitem reads one of several outputs of."""
    source = node.args[0] if node.target is operator.getitem else None
    return source if isinstance(source, fx.Node) and aten_name(source) in PARTED else None
