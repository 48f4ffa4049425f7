"""An `Architecture` as a module: standard torch modules under the teacher's own names, wired by `torch.fx`.

Activations are computed out of place, because a skip edge may read any tensor. The module pickles, deep-copies, trains and exports
as any other; its state_dict has the teacher's keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, reduce

import torch
from torch import fx, nn

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS
from raysearch.errors import InvalidArchitecture, WeightsError
from raysearch.models.calls import Call, function_call, module_call, weighted_call
from raysearch.models.gather import Gather
from raysearch.models.inherit import Slice, plan
from raysearch.models.keywords import quote_keywords
from raysearch.models.programs import Wiring, replay
from raysearch.models.provenance import Keep
from raysearch.models.rehearsal import rehearse, rehearse_unary
from raysearch.models.states import (
    State,
    as_buffers,
    at,
    constants,
    fresh,
    place,
    state_of,
    with_folds,
)


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
            its device and in its precision. Folded weights are computed from it where it does not hold them. None: torch's own
            initialisation, from the global generator.
        keep: the teacher's channels that a layer's outputs are, by layer name; default: the first ones.

    Raises:
        WeightsError: `inherit_from` lacks a tensor that the architecture needs.
        InvalidArchitecture: an operation or function is not known.
    """
    state = state_of(inherit_from)
    if inherit_from is not None:
        state = with_folds(architecture, state)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    _check_ranks(architecture, shapes)
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
    if inherit_from is None:
        _load_constants(architecture, root)
    return fx.GraphModule(root, quote_keywords(graph), class_name="Network")


def _check_ranks(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses weights with another number of axes: those of a student may be smaller, but they are of one kind."""
    for layer in architecture.layers:
        ours = {**layer.param_shapes, **layer.buffer_shapes}
        ours.pop("num_batches_tracked", None)  # a number, which some formats keep as a list of one
        for role, key in state_keys(layer).items():
            if role in ours and key in shapes and len(shapes[key]) != len(ours[role]):
                raise WeightsError(
                    f"{key!r} has shape {list(shapes[key])}, but layer {layer.name!r} needs {len(ours[role])} axes as in "
                    f"{list(ours[role])}; pass the teacher that the architecture was traced from"
                )


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


def loose_keys(architecture: Architecture) -> dict[str, dict[str, str]]:
    """Layer name -> role -> name of those states that no standard module holds; each where it is read first."""
    modules = standard_modules(architecture)
    held = {
        key
        for layer in architecture.layers
        if module_call(layer) is not None and module_path(layer) in modules
        for key in state_keys(layer).values()
    }
    loose: dict[str, dict[str, str]] = {}
    for layer in architecture.layers:
        found = {role: key for role, key in state_keys(layer).items() if key not in held}
        held |= set(found.values())
        if found:
            loose[layer.name] = found
    return loose


def numbered_names(architecture: Architecture, op: str) -> dict[str, str]:
    """Layer name -> op_1, op_2, ... of the layers of an operation; no module or parameter has these names."""
    taken = {
        key.split(".")[0] for layer in architecture.layers for key in state_keys(layer).values()
    }
    taken |= {(module_path(layer) or "").split(".")[0] for layer in architecture.layers}
    names: dict[str, str] = {}
    for layer in architecture.layers:
        if layer.op == op:
            name = f"{op}_{len(names) + 1}"
            while name in taken:
                name += "_"
            names[layer.name] = name
    return names


@dataclass(frozen=True)
class _Wiring:
    """What a network is made from while it is wired.

    Attributes:
        root: holds the modules; is added to.
        graph: calls them; is added to.
        modules: path -> the standard module that stands there.
        loose: as `loose_keys` gives them.
        complete: the layers that inherit all their weights.
        gathers: where the modules of gathers stand.
    """

    root: nn.Module
    graph: fx.Graph
    modules: Mapping[str, Call]
    loose: Mapping[str, Mapping[str, str]]
    complete: Mapping[str, bool]
    gathers: Mapping[str, str]


def _wire(architecture: Architecture, root: nn.Module, complete: Mapping[str, bool]) -> fx.Graph:
    """Adds the modules to `root` and returns the graph that calls them."""
    graph = fx.Graph()
    graph._graph_namespace.create_name("self", None)  # else a module called so takes the name
    values: dict[str, fx.Node] = {}
    modules, loose = standard_modules(architecture), loose_keys(architecture)
    gathers = numbered_names(architecture, "gather")
    wiring = _Wiring(root, graph, modules, loose, complete, gathers)
    for layer in architecture.layers:
        if layer.op == "input":
            values[layer.name] = graph.placeholder("images")
            continue
        # equal sums are made anew: one that is shared would live for longer than memory is counted
        slots = [_sum(graph, [values[name] for name in slot]) for slot in layer.inputs]
        values[layer.name] = _call(wiring, layer, slots)
    graph.output(values[architecture.output])
    return graph


def _sum(graph: fx.Graph, terms: list[fx.Node]) -> fx.Node:
    return reduce(lambda a, b: graph.call_function(torch.add, (a, b)), terms)


def _call(wiring: _Wiring, layer: Layer, slots: list[fx.Node]) -> fx.Node:
    graph, root = wiring.graph, wiring.root
    if layer.op == "identity":
        return slots[0]
    if layer.op == "add":
        return _sum(graph, slots)
    if layer.op == "gather":
        path = wiring.gathers[layer.name]
        place(root, path, Gather(layer.attrs["dim"] + 1, layer.attrs["index"]))
        return graph.call_module(path, (slots[0],))
    call = module_call(layer)
    if call is None:
        _place_loose(wiring, layer, {})
        return _function(wiring, layer, slots)
    path = module_path(layer)
    if path is not None and wiring.modules[path] == call:
        if type(at(root, path)) is not call.resolve():
            place(root, path, _construct(layer.name, call, wiring.complete.get(layer.name, False)))
        return graph.call_module(path, (slots[0],))
    if layer.op not in ("conv", "conv_transpose", "linear"):
        raise InvalidArchitecture(
            f"layer {layer.name!r}: the state of {layer.op} must be that of one module, but it is {state_keys(layer)}"
        )
    made = _construct(layer.name, call, inherited=False)
    _place_loose(wiring, layer, {role: getattr(made, role) for role in state_keys(layer)})
    return _functional(graph, layer, slots[0])


def _place_loose(wiring: _Wiring, layer: Layer, made: Mapping[str, torch.Tensor]) -> None:
    """Places the states of a layer that no standard module holds."""
    for role, key in wiring.loose.get(layer.name, {}).items():
        place(wiring.root, key, made[role] if role in made else fresh(layer, role))


def _function(wiring: _Wiring, layer: Layer, slots: list[fx.Node]) -> fx.Node:
    """A layer that a function computes, or a program."""
    graph = wiring.graph
    if layer.op == "opaque":
        rehearse(layer)
        return replay(layer.attrs["program"], Wiring(graph, slots, state_keys(layer)))
    call = function_call(layer)
    if layer.op == "unary":
        rehearse_unary(layer, call.resolve())
    if layer.op == "param_binary":
        operands = [slots[0], graph.get_attr(state_keys(layer)["weight"])]
        return graph.call_function(
            call.resolve(), tuple(operands[::-1] if layer.attrs["reverse"] else operands)
        )
    tensors = (tuple(slots),) if call.packed else tuple(slots)
    made = graph.call_function(call.resolve(), (*tensors, *call.args), dict(call.kwargs))
    return graph.call_method(call.method, (made,)) if call.method else made


def _functional(graph: fx.Graph, layer: Layer, images: fx.Node) -> fx.Node:
    """A layer that computes with weights which are not a standard module's of its own."""
    function = weighted_call(layer)
    keys = state_keys(layer)
    weights = [graph.get_attr(keys[role]) if role in keys else None for role in ("weight", "bias")]
    return graph.call_function(function.resolve(), (images, *weights, *function.args))


def _construct(name: str, call: Call, inherited: bool) -> nn.Module:
    """Makes a layer's module; one that inherits all its weights is not initialised and draws no random numbers."""
    kind = call.resolve()
    try:
        module = (_uninitialised(kind) if inherited else kind)(*call.args, **call.kwargs)
    except (MemoryError, RuntimeError) as error:
        size = ", ".join(map(str, call.args))
        raise InvalidArchitecture(
            f"layer {name!r}: a {kind.__name__} of {size} does not fit into the memory"
        ) from error
    if inherited:
        module.__class__ = kind  # type: ignore[assignment]  # the class that it derives from
    as_buffers(module, call.buffers)
    return module


@cache
def _uninitialised(kind: type[nn.Module]) -> type[nn.Module]:
    """A module class without initialisation: `nn.utils.skip_init` takes longer than initialising a small layer does."""
    return type(kind.__name__, (kind,), {"reset_parameters": lambda _: None})


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
            target, source = ours[keys[role]], state[part.key].detach()
            try:
                part.copy_to(target, source)
            except (RuntimeError, IndexError) as error:
                raise WeightsError(
                    f"{part.key!r} of shape {list(source.shape)} does not fit layer {layer.name!r}, whose {role} is "
                    f"{list(target.shape)}; pass the teacher that the architecture was traced from"
                ) from error


@torch.no_grad()
def _load_constants(architecture: Architecture, root: nn.Module) -> None:
    ours = root.state_dict()
    for key, values in constants(architecture).items():
        if any(have < want for have, want in zip(values.shape, ours[key].shape, strict=True)):
            raise InvalidArchitecture(
                f"attrs.folds of {key!r} gives a tensor of shape {list(values.shape)}, but {list(ours[key].shape)} is needed"
            )
        ours[key].copy_(values[tuple(map(slice, ours[key].shape))])
