"""What a traced graph depends on, as one hash: the code that runs, every attribute, the weights, the input, and us.

In doubt there is no hash: a module with a hook, a class typed into a notebook, or an attribute of a kind that is not known here is
traced every time.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import platform
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from raysearch.version import __version__

MAX_FILES = 200
"""A module whose code is spread over more of the user's files than this is traced every time."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
_NAMED = (torch.dtype, torch.device, torch.memory_format, BuiltinFunctionType, range, slice)
_OURS = ("models", "architecture")
_OUR_ROOT = Path(__file__).resolve().parents[2]


class _Unknown(Exception):
    """Something that no hash can be made of."""


def trace_key(
    module: nn.Module, input_shape: tuple[int, ...], output_index: int | str | None
) -> str | None:
    """A hash that is equal only where tracing gives the same graph; None where that cannot be told."""
    try:
        digest = hashlib.blake2b(digest_size=20)
        for part in _parts(module, input_shape, output_index):
            digest.update(part)
            digest.update(b"\0")
        return digest.hexdigest()
    except (_Unknown, RecursionError):
        return None


def _parts(
    module: nn.Module, input_shape: tuple[int, ...], output_index: int | str | None
) -> Iterator[bytes]:
    yield repr((__version__, platform.python_version(), torch.__version__)).encode()
    yield repr((input_shape, output_index)).encode()
    yield _our_code()
    modules = dict(module.named_modules(remove_duplicate=False))
    first = {id(child): path for path, child in reversed(modules.items())}
    describe = _Describer(first)
    for path, child in modules.items():
        yield repr((path, first[id(child)])).encode()
        if first[id(child)] == path:
            yield describe.module(child).encode()
    yield from _states(module)
    yield from _sources({type(child) for child in modules.values()})


def _states(module: nn.Module) -> Iterator[bytes]:
    """Names, sharing and contents of all parameters and buffers."""
    seen: dict[int, str] = {}
    states = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in states:
        owner = seen.setdefault(id(tensor), name)
        yield repr((name, owner, isinstance(tensor, nn.Parameter))).encode()
        if owner == name:
            yield from _tensor(tensor)


def _tensor(tensor: torch.Tensor) -> Iterator[bytes]:
    if (
        type(tensor) not in (torch.Tensor, nn.Parameter, nn.Buffer)
        or tensor.layout != torch.strided
    ):
        raise _Unknown
    yield repr((tensor.dtype, tuple(tensor.shape), tensor.device.type)).encode()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    yield flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


class _Describer:
    """Values as text that is equal only for equal values.

    Attributes:
        paths: id of each module of the network -> its path.
    """

    def __init__(self, paths: Mapping[int, str]) -> None:
        self.paths = paths

    def module(self, module: nn.Module) -> str:
        """A module's class and its own attributes; children and tensors are told elsewhere."""
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
            raise _Unknown
        own = {}
        for name, value in vars(module).items():
            if "hooks" in name and name.startswith("_"):
                if value and "forward" in name:
                    raise _Unknown
            elif name not in ("training", "_parameters", "_buffers", "_modules"):
                own[name] = value
        return f"{self.kind(type(module))} {self(own)} {sorted(module._non_persistent_buffers_set)}"

    def kind(self, kind: type) -> str:
        """A class: its name, its bases, and the code of its methods where torch or Python do not bring it."""
        bases = [base for base in kind.__mro__ if base not in (object, nn.Module)]
        return " ".join(
            f"{base.__module__}.{base.__qualname__}"
            + ("" if _is_given(base.__module__) else self._methods(base))
            for base in bases
        )

    def _methods(self, kind: type) -> str:
        parts = []
        for name, value in sorted(vars(kind).items()):
            function = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
            if isinstance(function, FunctionType):
                parts.append(f"{name}={self(function)}")
            elif isinstance(value, _PLAIN):
                parts.append(f"{name}={value!r}")
        return f"[{' '.join(parts)}]"

    def __call__(self, value: Any) -> str:
        text = self._leaf(value)
        if text is not None:
            return text
        if isinstance(value, nn.Module):
            if id(value) not in self.paths:
                raise _Unknown
            return f"module {self.paths[id(value)]!r}"
        if isinstance(value, torch.Tensor):
            return hashlib.blake2b(b" ".join(_tensor(value))).hexdigest()
        if isinstance(value, np.ndarray) and value.dtype != object:
            return f"{value.dtype} {value.shape} {hashlib.blake2b(value.tobytes()).hexdigest()}"
        if isinstance(value, Mapping):
            inside = (f"{self(key)}: {self(item)}" for key, item in value.items())
        elif isinstance(value, Set):
            inside = sorted(self(item) for item in value)
        elif isinstance(value, list | tuple):
            inside = (self(item) for item in value)
        elif is_dataclass(value):
            inside = (f"{f.name}={self(getattr(value, f.name))}" for f in fields(value))
        else:
            raise _Unknown
        return f"{type(value).__qualname__}({', '.join(inside)})"

    def _leaf(self, value: Any) -> str | None:
        if isinstance(value, enum.Enum) or type(value) in _PLAIN or isinstance(value, np.generic):
            return f"{type(value).__qualname__} {value!r}"
        if isinstance(value, _NAMED):
            return f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value)!r}"
        if isinstance(value, type):
            return self.kind(value)
        if isinstance(value, functools.partial):
            return f"partial {self(value.func)} {self(value.args)} {self(value.keywords)}"
        if isinstance(value, MethodType):
            return f"method {self(value.__func__)} of {self(value.__self__)}"
        if isinstance(value, FunctionType):
            return self._function(value)
        return None

    def _function(self, function: FunctionType) -> str:
        name = f"{function.__module__}.{function.__qualname__}"
        if _is_given(function.__module__):
            return name
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        held = [
            f"{c.__module__}.{c.__qualname__}" if isinstance(c, type) else self(c) for c in cells
        ]
        defaults = (function.__defaults__, function.__kwdefaults__)
        return f"{name} {_code(function.__code__)} {self(defaults)} {held}"


def _code(code: CodeType) -> str:
    """What a function does, without where it stands."""
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _is_given(module: str | None) -> bool:
    """Whether Python or torch bring it: their versions tell all."""
    top = (module or "").partition(".")[0]
    return top == "torch" or top in sys.stdlib_module_names


@functools.cache
def _our_code() -> bytes:
    """The code that traces and describes graphs, so that a graph of an older state of it is not taken."""
    digest = hashlib.blake2b()
    for folder in _OURS:
        for file in sorted((_OUR_ROOT / folder).rglob("*.py")):
            digest.update(str(file.relative_to(_OUR_ROOT)).encode() + file.read_bytes())
    return digest.digest()


def _sources(kinds: set[type]) -> Iterator[bytes]:
    """The files of the user's modules that the classes stand in or that those use; of installed packages their versions."""
    todo = sorted({base.__module__ for kind in kinds for base in kind.__mro__})
    seen: set[str] = set()
    packages: dict[str, str] = {}
    files = 0
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in seen or (_is_given(name) and name != "__main__") or top == "raysearch":
            continue
        seen.add(name)
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if module is None or file is None:
            raise _Unknown  # typed into a session
        if {"site-packages", "dist-packages"} & set(Path(file).parts):
            packages[top] = str(getattr(sys.modules.get(top), "__version__", ""))
            continue
        files += 1
        if files > MAX_FILES or not file.endswith(".py"):
            raise _Unknown
        yield name.encode() + _file(file) + repr(_constants(module)).encode()
        todo += sorted(_used(module))
    yield repr(sorted(packages.items())).encode()


def _file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _Unknown from error


def _constants(module: ModuleType) -> list[tuple[str, str]]:
    """The plain values among a module's names, which may be set from outside."""
    found = vars(module).items()
    return sorted((k, repr(v)) for k, v in found if type(v) in _PLAIN and not k.startswith("__"))


def _used(module: ModuleType) -> set[str]:
    """The modules that a module's names come from; those without a file bring no code of the user's."""
    values = list(vars(module).values())
    names = {
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in values
        if isinstance(value, ModuleType | type | FunctionType)
    }
    return {name for name in names if name and getattr(sys.modules.get(name), "__file__", None)}
