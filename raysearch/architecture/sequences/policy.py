"""What N2N's policies read of a network: one row a layer (Ashok et al., section 3.1).

    l type | k kernel | s stride | p padding | n outputs | s_start, s_end

The layers are those of the encoders' view. s_start and s_end count the layers before and behind on the longest path of the innermost
residual block; 0 outside of blocks and on shortcuts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysearch.architecture.encoding import layer_attrs, layer_type
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.paths import innermost_blocks
from raysearch.architecture.view import view

# fmt: off
N2N_TYPES = (
    "other", "conv", "maxpool", "act", "bn", "linear", "dropout", "log_softmax", "avgpool", "l2norm", "softmax",
)
# fmt: on
"""The authors' types, in their order; l is the position in it."""
COLUMNS = ("type", "kernel", "stride", "padding", "outputs", "start", "end")


def policy_sequence(architecture: Architecture, *, types: Sequence[str] = N2N_TYPES) -> np.ndarray:
    """The rows of a network: [L, 7] int64, raw values, columns as in `COLUMNS`.

    Args:
        architecture: the network.
        types: words of layers, `N2N_TYPES` or `encoding.ALL_TYPES`; a layer that none of them names is "other".
    """
    seen, blocks = view(architecture), innermost_blocks(architecture)
    rows = np.zeros((len(seen.listed), len(COLUMNS)), np.int64)
    for row, place in zip(rows, seen.listed, strict=True):
        layer = architecture.layers[place]
        kernel, stride, padding, _, _, outputs = layer_attrs(
            layer, architecture[layer.inputs[0][0]].shape
        )
        row[:5] = _type_index(layer, types), kernel, stride, padding, outputs
        block = blocks.get(place)
        if block is not None and place in block.longest:
            before = block.longest.index(place)
            row[5:] = before, len(block.longest) - 1 - before
    return rows


def _type_index(layer: Layer, types: Sequence[str]) -> int:
    word = layer_type(layer)
    if layer.op == "softmax" and layer.attrs["log"] and "log_softmax" in types:
        word = "log_softmax"
    return types.index(word) if word in types else types.index("other")
