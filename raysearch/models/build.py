"""An `Architecture` as a module: standard torch modules under the teacher's own names, wired by `torch.fx`.

Activations are computed out of place, because a skip edge may read any tensor. The module pickles, deep-copies, trains and exports
as any other; its state_dict has the teacher's keys.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from functools import cache, reduce

import torch
from torch import fx, nn

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS
from raysearch.errors import InvalidArchitecture
from raysearch.models.calls import Call, function_call, module_call, weighted_call
from raysearch.models.inherit import Slice, plan
from raysearch.models.provenance import Keep
from raysearch.models.wrappers import unwrap

State = Mapping[str, torch.Tensor]


def build(
    architecture: Architecture,
    inherit_from: nn.Module | State | None = None,
    *,
    keep: Keep | None = None,
) -> nn.Module:
    """Builds the module that an architecture describes.

    Args:
        architecture: a teacher's, or a student's.
        inherit_from: the teacher (or its state_dict), whose weights are sliced to the student's channels; the student is put on
            its device and in its precision. None: torch's own initialisation, from the global generator.
        keep: the teacher's channels that a layer's outputs are, by layer name; default: the first ones.

    Raises:
        WeightsError: `inherit_from` lacks a tensor that the architecture needs.
        InvalidArchitecture: an operation or function is not known.
    """
    state = _state_of(inherit_from)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    slices = plan(architecture, shapes, keep) if inherit_from is not None else {}
    like = next((t for t in state.values() if t.is_floating_point()), None)
    complete = {
        name: _is_complete(architecture[name], parts, shapes) for name, parts in slices.items()
    }
    root = nn.Module()
    graph = _wire(architecture, root, complete)
    if like is not None:
        root.to(like.device, like.dtype)
    _load(architecture, root, state, slices)
    return fx.GraphModule(root, graph, class_name="Network")


def _is_complete(
    layer: Layer, parts: Mapping[str, Slice], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    """Whether all of a layer's state comes from the teacher's."""
    ours = {**layer.param_shapes, **layer.buffer_shapes}
    return all(part.is_complete(shapes[part.key], ours[role]) for role, part in parts.items())


def num_parameters(module: nn.Module) -> int:
    """How many numbers the module learns; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def state_keys(layer: Layer) -> dict[str, str]:
    """Role -> name in the state_dict of a layer's parameters and buffers."""
    roles = (*layer.param_shapes, *layer.buffer_shapes)
    return {role: layer.params.get(role, f"{layer.name}.{role}") for role in roles}


def module_path(layer: Layer) -> str | None:
    """Where the standard module of a layer stands: the common prefix of its state; None where no module holds such a state.

    A layer without state stands under its own name.
    """
    keys = state_keys(layer)
    if not keys:
        return layer.name
    role, key = next(iter(keys.items()))
    path = key.removesuffix(f".{role}")
    return path if path and all(k == f"{path}.{r}" for r, k in keys.items()) else None


def standard_modules(architecture: Architecture) -> dict[str, Call]:
    """Path -> the standard module that stands there.

    Of several layers that share weights and differ otherwise, the one with the most state has the module; the others compute with
    its weights.
    """
    found: dict[str, tuple[int, Call]] = {}
    for layer in architecture.layers:
        call, path = module_call(layer), module_path(layer)
        if call is not None and path is not None:
            size = len(state_keys(layer))
            if path not in found or size > found[path][0]:
                found[path] = (size, call)
    return {path: call for path, (_, call) in found.items()}


def loose_keys(layer: Layer, modules: Mapping[str, Call]) -> dict[str, str]:
    """Role -> name of those weights of a layer that no standard module holds."""
    return {
        role: key
        for role, key in state_keys(layer).items()
        if key.rpartition(".")[0] not in modules
    }


def _state_of(source: nn.Module | State | None) -> State:
    if source is None:
        return {}
    return unwrap(source).state_dict(keep_vars=False) if isinstance(source, nn.Module) else source


def _wire(architecture: Architecture, root: nn.Module, complete: Mapping[str, bool]) -> fx.Graph:
    """Adds the modules to `root` and returns the graph that calls them."""
    graph = fx.Graph()
    values: dict[str, fx.Node] = {}
    sums: dict[tuple[str, ...], fx.Node] = {}
    modules = standard_modules(architecture)
    for layer in architecture.layers:
        if layer.op == "input":
            values[layer.name] = graph.placeholder("images")
            continue
        slots = []
        for slot in layer.inputs:
            if slot not in sums:
                sums[slot] = _sum(graph, [values[name] for name in slot])
            slots.append(sums[slot])
        values[layer.name] = _call(
            graph, layer, slots, root, modules, complete.get(layer.name, False)
        )
    graph.output(values[architecture.output])
    return graph


def _sum(graph: fx.Graph, terms: list[fx.Node]) -> fx.Node:
    return reduce(lambda a, b: graph.call_function(torch.add, (a, b)), terms)


def _call(
    graph: fx.Graph,
    layer: Layer,
    slots: list[fx.Node],
    root: nn.Module,
    modules: Mapping[str, Call],
    inherited: bool,
) -> fx.Node:
    if layer.op == "identity":
        return slots[0]
    if layer.op == "add":
        return _sum(graph, slots)
    call = module_call(layer)
    if call is None:
        call = function_call(layer)
        tensors = (tuple(slots),) if call.packed else tuple(slots)
        made = graph.call_function(call.resolve(), (*tensors, *call.args), dict(call.kwargs))
        return graph.call_method(call.method, (made,)) if call.method else made
    path = module_path(layer)
    if path is not None and modules[path] == call:
        if type(_at(root, path)) is not call.resolve():
            _place(root, path, _construct(call, inherited))
        return graph.call_module(path, (slots[0],))
    if layer.op not in ("conv", "linear"):
        raise InvalidArchitecture(
            f"layer {layer.name!r}: the state of {layer.op} must be that of one module, but it is {state_keys(layer)}"
        )
    fresh = _construct(call, inherited=False)
    for role, key in loose_keys(layer, modules).items():
        if _at(root, key) is None:
            _place(root, key, getattr(fresh, role))
    return _functional(graph, layer, slots[0])


def _functional(graph: fx.Graph, layer: Layer, images: fx.Node) -> fx.Node:
    """A layer that computes with weights which are not a standard module's of its own."""
    function = weighted_call(layer)
    keys = state_keys(layer)
    weights = [graph.get_attr(keys[role]) if role in keys else None for role in ("weight", "bias")]
    return graph.call_function(function.resolve(), (images, *weights, *function.args))


def _construct(call: Call, inherited: bool) -> nn.Module:
    """Makes a module; one that inherits all its weights is not initialised and draws no random numbers."""
    kind = call.resolve()
    if not inherited:
        return kind(*call.args, **call.kwargs)
    module = _uninitialised(kind)(*call.args, **call.kwargs)
    module.__class__ = kind  # type: ignore[assignment]  # the class that it derives from
    return module


@cache
def _uninitialised(kind: type[nn.Module]) -> type[nn.Module]:
    """A module class without initialisation: `nn.utils.skip_init` takes longer than initialising a small layer does."""
    return type(kind.__name__, (kind,), {"reset_parameters": lambda _: None})


def _at(root: nn.Module, path: str) -> object:
    """What stands at a dotted path; None where nothing does."""
    value: object = root
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def _checked_parts(path: str) -> list[str]:
    """The names on a path; `torch.fx` writes them into code as they stand."""
    parts = path.split(".")
    for part in parts:
        if not part.isprintable() or set(part) & set('"\\') or keyword.iskeyword(part):
            raise InvalidArchitecture(f"{part!r} in the name {path!r} cannot name a module")
    return parts


def _place(root: nn.Module, path: str, value: nn.Module | torch.Tensor) -> None:
    """Sets a module or parameter at a dotted path; what is missing on the way is made."""
    *parents, last = _checked_parts(path)
    owner = root
    for part in parents:
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    former = owner._modules.get(last)
    if former is not None and isinstance(value, nn.Module):  # keeps what already stands below it
        for name, child in {**former._modules, **former._parameters}.items():
            if not hasattr(value, name):
                setattr(value, name, child)
    setattr(owner, last, value)


@torch.no_grad()
def _load(
    architecture: Architecture,
    root: nn.Module,
    state: State,
    slices: Mapping[str, Mapping[str, Slice]],
) -> None:
    if not slices:
        return
    ours = root.state_dict()
    for layer in architecture.layers:
        keys = state_keys(layer) if OPS[layer.op].params or OPS[layer.op].buffers else {}
        for role, part in slices.get(layer.name, {}).items():
            part.copy_to(ours[keys[role]], state[part.key].detach())
