"""Layers before they have names: what was found, where, and how it is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from raysearch.architecture.ops import Shape
from raysearch.models.tracing.capture import module_label
from raysearch.models.tracing.values import Value


@dataclass(frozen=True)
class Found:
    """A layer before it has a name.

    Attributes:
        op, attrs: as in `Layer`.
        producers: the layers of its slots, by position in the list of all layers; -1 is the input.
        states: what its roles read.
        shape: the output's shape without the batch.
        path, kind: the module that computed it; `visit` tells the module's calls apart.
        label: its name where it is not the module's only operation.
    """

    op: str
    attrs: Mapping[str, Any]
    producers: tuple[int, ...]
    states: Mapping[str, Value]
    shape: Shape
    path: str
    kind: str
    visit: str
    label: str


@dataclass(frozen=True)
class Site:
    """Where a node was computed: the module's path, its class, and a key that differs from call to call."""

    path: str
    kind: str
    visit: str

    @property
    def where(self) -> str:
        """The module as messages name it."""
        return module_label(self.path, self.kind)


def site_of(node: fx.Node) -> Site:
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return Site("", "the teacher", "")
    visit, (path, kind) = list(stack.items())[-1]
    name = kind if isinstance(kind, str) else kind.__name__
    return Site(path, name.rpartition(".")[2], visit)


def layer_names(layers: Sequence[Found], module: nn.Module) -> list[str]:
    """Unique, stable names, the input's last: a module's path where it has one main operation, else path.operation.

    A module that is called again gets "_1", "_2", ... behind its path.
    """
    paths = {path for path, _ in module.named_modules()} - {""}
    counts = Counter((layer.path, layer.visit) for layer in layers)
    mains = Counter((layer.path, layer.visit) for layer in layers if _is_main(layer))
    taken: set[str] = set()
    names = []
    for layer in layers:
        key = (layer.path, layer.visit)
        leaf = not any(path.startswith(f"{layer.path}.") for path in paths)
        main = mains[key] == 1 and _is_main(layer)
        alone = counts[key] == 1 and leaf
        if layer.path and (main or alone):
            names.append(_unique(layer.path, taken, paths - {layer.path}))
        else:
            name = f"{layer.path}.{layer.label}" if layer.path else layer.label
            names.append(_unique(name, taken, paths))
        taken.add(names[-1])
    return [*names, _unique("input", taken, paths)]


def _is_main(layer: Found) -> bool:
    """Whether a layer may stand for the module that computed it."""
    return bool(layer.states) and layer.op not in ("opaque", "param_binary")


def _unique(name: str, taken: set[str], reserved: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken or candidate in reserved:
        count += 1
        candidate = f"{name}_{count}"
    return candidate
