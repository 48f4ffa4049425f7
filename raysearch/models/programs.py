"""Programs of ATen calls at work: on tensors, or as nodes of a graph.

A program may come from a file that anybody wrote, so `overload` decides what may run: functions of tensors that exist in ATen, write
nothing, and open no file.
"""

from __future__ import annotations

import base64
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import fx

from raysearch.architecture.programs import PIECE, operands
from raysearch.errors import InvalidArchitecture, WeightsError

State = Mapping[str, torch.Tensor]

_FORBIDDEN_ARGUMENTS = ("filename", "storage", "source_storage")
_FORBIDDEN_NAMES = re.compile(
    r"sparse|nested|jagged|quantiz|fbgemm|mkldnn|cudnn|miopen|mps|_backward|from_buffer|pin_memory"
    r"|resize|^set(_|$)|^_test|unsafe(?!_view$|_index$)"
)
"""Kernels that trust their arguments, or that belong to one device or one format of memory."""
_FORBIDDEN_TYPES = re.compile(r"Layout|MemoryFormat|Generator|Stream|Storage")


def overload(target: str) -> torch._ops.OpOverload:
    """The ATen overload of a name such as "aten.bmm.default".

    Raises:
        InvalidArchitecture: there is none, or a program may not call it.
    """
    space, _, rest = target.partition(".")
    name, _, variant = rest.partition(".")
    packet = getattr(torch.ops.aten, name, None) if space == "aten" else None
    found = getattr(packet, variant, None) if isinstance(packet, _Packet) else None
    if not isinstance(found, torch._ops.OpOverload):
        raise InvalidArchitecture(f"{target!r} is no ATen operation of torch {torch.__version__}")
    schema = found._schema
    results = [str(value.type) for value in schema.returns]
    allowed = (
        not schema.is_mutable
        and not _FORBIDDEN_NAMES.search(name)
        and results
        and all(kind in ("Tensor", "List[Tensor]") for kind in results)
        and not any(argument.name in _FORBIDDEN_ARGUMENTS for argument in schema.arguments)
    )
    if not allowed:
        raise InvalidArchitecture(f"{target!r} is not a function of tensors alone")
    return found


_Packet = torch._ops.OpOverloadPacket


class Backend(Protocol):
    """What a program's operands and calls become."""

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any: ...
    def slot(self, index: int) -> Any: ...
    def state(self, name: str) -> Any: ...
    def batch(self, factor: int) -> Any: ...
    def dtype(self) -> Any: ...
    def device(self) -> Any: ...


def replay(program: Mapping[str, Any], backend: Backend) -> Any:
    """Runs a program (of valid form) on a backend and returns its result.

    Raises:
        InvalidArchitecture: it calls what it may not.
    """
    values: list[Any] = []

    def operand(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [operand(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if "step" in value:
            made = values[value["step"]]
            item = value.get("item")
            return made if item is None else backend.call(operator.getitem, (made, item), {})
        if "slot" in value:
            return backend.slot(value["slot"])
        if "state" in value:
            return backend.state(value["state"])
        if "batch" in value:
            return backend.batch(value["batch"])
        if "tensor" in value:
            return constant(value, backend)
        if "data" in value:
            return backend.call(_decoded, (dict(value), backend.device()), {})
        if "device" in value:
            return backend.device()
        return backend.dtype() if value["dtype"] == "input" else getattr(torch, value["dtype"])

    for target, args, kwargs in program["steps"]:
        function = overload(target)
        _check_arguments(function, args, kwargs)
        named = {key: operand(value) for key, value in kwargs.items()}
        values.append(backend.call(function, operand(args), named))
    return operand(program["result"])


def _check_arguments(
    function: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Refuses arguments that the operation lacks, or that choose a device or a layout by themselves."""
    declared = {argument.name: str(argument.type) for argument in function._schema.arguments}
    unknown = next((key for key in kwargs if key not in declared), None)
    if unknown is not None or len(args) > len(declared):
        what = f"no argument {unknown[:40]!r}" if unknown else f"at most {len(declared)} arguments"
        raise InvalidArchitecture(f"'{function}' takes {what}")
    for name, value in {**dict(zip(declared, args, strict=False)), **kwargs}.items():
        chosen = value is not None and not isinstance(value, Mapping)
        if chosen and re.search(f"{_FORBIDDEN_TYPES.pattern}|Device", declared[name]):
            raise InvalidArchitecture(f"'{function}' is given its own {name}, which no program may")


def constant(value: Mapping[str, Any], backend: Backend) -> Any:
    """The tensor of a small constant."""
    options = {"dtype": getattr(torch, value["dtype"]), "device": backend.device()}
    flat = backend.call(torch.tensor, (list(value["tensor"]),), options)
    shape = list(value["shape"])
    return flat if len(shape) == 1 else backend.call(torch.reshape, (flat, shape), {})


def encoded(tensor: torch.Tensor) -> list[str]:
    """The bytes of a tensor as pieces of base64 text."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    text = base64.b64encode(raw).decode()
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _decoded(value: Mapping[str, Any], device: torch.device) -> torch.Tensor:
    raw = bytearray(base64.b64decode("".join(value["data"])))
    flat = torch.frombuffer(raw, dtype=getattr(torch, value["dtype"]))
    return flat.reshape(value["shape"]).to(device)


class Tensors:
    """Runs a program on tensors.

    Args:
        slots: [B, *shape] each; may be empty for programs of states alone.
        states: what `state` operands name.
    """

    def __init__(self, slots: Sequence[torch.Tensor], states: State) -> None:
        self.slots, self.states = slots, states
        tensors = [*slots, *states.values()]
        self.first = tensors[0] if tensors else torch.zeros(())

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def slot(self, index: int) -> torch.Tensor:
        return self.slots[index]

    def state(self, name: str) -> torch.Tensor:
        return self.states[name]

    def batch(self, factor: int) -> int:
        return factor * self.first.shape[0]

    def dtype(self) -> torch.dtype:
        return self.first.dtype

    def device(self) -> torch.device:
        return self.first.device


class Wiring:
    """Adds a program's calls to a graph.

    Args:
        graph: is added to.
        slots: the nodes of the inputs.
        names: the path of each state.
    """

    def __init__(self, graph: fx.Graph, slots: Sequence[fx.Node], names: Mapping[str, str]) -> None:
        self.graph, self.slots, self.names = graph, slots, names

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> fx.Node:
        return self.graph.call_function(function, tuple(args), kwargs)

    def slot(self, index: int) -> fx.Node:
        return self.slots[index]

    def state(self, name: str) -> fx.Node:
        return self.graph.get_attr(self.names[name])

    def batch(self, factor: int) -> fx.Node:
        size = self.graph.call_method("size", (self.slots[0], 0))
        return size if factor == 1 else self.call(operator.mul, (size, factor), {})

    def dtype(self) -> fx.Node:
        return self.call(getattr, (self.slots[0], "dtype"), {})

    def device(self) -> fx.Node:
        return self.call(getattr, (self.slots[0], "device"), {})


def fold(key: str, program: Mapping[str, Any], state: State) -> torch.Tensor:
    """The values of a folded weight.

    Args:
        key: its name in the student's state, for the message.
        program: how it is computed.
        state: the teacher's.

    Raises:
        WeightsError: the state lacks what the program reads.
    """
    names = dict.fromkeys(operands(program, "state"))
    for name in names:
        if name not in state:
            raise WeightsError(
                f"the weights to inherit from have neither {key!r} nor {name!r}, which it is computed from; "
                "pass the teacher that the architecture was traced from"
            )
    with torch.no_grad():
        return replay(program, Tensors((), {name: state[name].detach() for name in names}))
