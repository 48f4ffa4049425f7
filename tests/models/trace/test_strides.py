"""Which reshapes copy, against what torch does with the same tensors."""

import numpy as np
import torch

from raysearch.architecture import Architecture, Layer
from raysearch.architecture.ops import OPS
from raysearch.architecture.strides import mark_copies
from raysearch.models.calls import function_call


def random_move(rng, shape):
    """An operation that a tensor of that shape may be moved by."""
    kinds = ["permute", "slice", "unary"] + ["merge", "flatten"] * (len(shape) > 1)
    even = [axis for axis, size in enumerate(shape) if size % 2 == 0]
    kind = rng.choice(kinds + ["split"] * (bool(even) and len(shape) < 5))
    if kind == "permute":
        dims = rng.permutation(len(shape)).tolist()
        return "permute", {"dims": dims, "contiguous": bool(rng.random() < 0.2)}
    if kind == "slice":
        dim = int(rng.integers(len(shape)))
        start = int(rng.integers(shape[dim]))
        stop = int(rng.integers(start, shape[dim])) + 1
        return "slice", {"dim": dim, "start": start, "stop": stop, "step": int(rng.integers(1, 3))}
    if kind == "merge":
        start = int(rng.integers(len(shape) - 1))
        end = int(rng.integers(start + 1, len(shape)))
        return "reshape", {"mode": "merge", "start": start, "end": end}
    if kind == "split":
        return "reshape", {"mode": "split", "dim": int(rng.choice(even)), "sizes": [2, -1]}
    if kind == "flatten":
        return "reshape", {"mode": "flatten"}
    return "unary", {"fn": "relu", "args": [], "kwargs": {}}


def test_reshapes_copy_where_torch_copies():
    rng, copies = np.random.default_rng(0), 0
    for _ in range(300):
        layers = [Layer("x", "input", shape=(4, 6, 5))]
        tensors = [torch.randn(1, 4, 6, 5)]
        for step in range(5):
            op, attrs = random_move(rng, layers[-1].shape)
            shape = OPS[op].out_shape(attrs, [layers[-1].shape])
            layers.append(Layer(f"m{step}", op, ((layers[-1].name,),), attrs, shape))
            call = function_call(layers[-1])
            made = call.resolve()(tensors[-1], *call.args, **call.kwargs)
            tensors.append(getattr(made, call.method)() if call.method else made)
        marked = mark_copies(Architecture((4, 6, 5), tuple(layers), layers[-1].name))
        for layer, before, after in zip(marked.layers[1:], tensors, tensors[1:], strict=False):
            assert tuple(after.shape[1:]) == layer.shape
            if layer.op == "reshape":
                copied = after.untyped_storage().data_ptr() != before.untyped_storage().data_ptr()
                assert layer.attrs.get("contiguous", False) == copied, (marked, layer.name)
                copies += copied
    assert copies > 50
