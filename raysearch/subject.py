"""What is compressed: data, teacher, graph and space, as the configuration names them. No method, no training, no Ray."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raysearch.architecture import Architecture, SearchSpace
from raysearch.config import Config
from raysearch.data import DataSet, from_arrays, load_data
from raysearch.errors import ConfigError, DataError, InputError
from raysearch.models import build, check_forward, load_teacher, trace
from raysearch.models.latency import LatencyMeter
from raysearch.models.tracing.capture import reason

ArrayPair = tuple[Any, Any]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def load_data_set(
    config: Config,
    arrays: tuple[ArrayPair, ArrayPair | None] | None = None,
    *,
    teacher: nn.Module | None = None,
    shape: Sequence[int] | None = None,
) -> DataSet:
    """The configured data set, or the arrays that take its place; raises DataError.

    Args:
        teacher: the module in memory that is to be fed; of one dimension, it tells [N, C, L] from [N, H, W].
        shape: of one input, where it is known from before; None: `teacher.input_shape`, which may say nothing.
    """
    options = config.data
    sample = shape or config.teacher.input_shape or _sample(arrays, teacher)
    common: dict[str, Any] = {
        "validation": options.validation,
        "augment": options.augment,
        "seed": config.data_seed,
        "sample": sample,
    }
    if arrays is not None:
        return from_arrays(*arrays, mode=options.mode, resize=options.resize, **common)
    return load_data(
        options.name, path=options.path, mode=options.mode, resize=options.resize, **common
    )


def _sample(
    arrays: tuple[ArrayPair, ArrayPair | None] | None, teacher: nn.Module | None
) -> tuple[int | None, ...] | None:
    """What the first convolution of a teacher in memory tells of a sample's shape: how many channels, and of three axes that two are meant."""
    if arrays is None or teacher is None:
        return None
    first = next((one for one in teacher.modules() if isinstance(one, _CONVOLUTIONS)), None)
    num_axes = getattr(arrays[0][0], "ndim", 0)
    if first is None or num_axes not in (3, 4):
        return None
    if num_axes == 3:
        return (None, None) if isinstance(first, nn.Conv1d) else None
    return (first.in_channels, None, None)


def input_shape(config: Config, data: DataSet) -> tuple[int, ...]:
    """The shape of one input; raises DataError where the configured one is not the data's."""
    asked = config.teacher.input_shape
    if asked is not None and tuple(asked) != tuple(data.shape):
        raise DataError(
            f"teacher.input_shape: {asked}, but images of {data.name!r} are {list(data.shape)}; "
            "use data.resize or data.mode, or leave teacher.input_shape out"
        )
    return tuple(data.shape)


def load_graph(
    config: Config,
    num_classes: int | None,
    shape: tuple[int, ...],
    teacher: nn.Module | None = None,
    *,
    notes: list[str] | None = None,
) -> tuple[nn.Module, Architecture]:
    """The teacher in evaluation mode and in float32, and its graph; of several outputs only the logits are left.

    A module of the caller's stays as it is: what is returned is a network of its own with the same weights.

    Args:
        num_classes: of the data; None: what the network has by default.
        shape: of one input.
        teacher: a module that takes the place of `teacher.model`.
        notes: gets a sentence where the teacher was cast to float32.

    Raises:
        InputError: one sentence that names the teacher and what is wrong with it.
    """
    index = config.teacher.output_index
    if teacher is not None:
        check_module(teacher)
        _refuse_two_weights(config)
    name = config.teacher.model if teacher is None else type(teacher).__name__
    try:
        made = _load_teacher(config, num_classes, shape) if teacher is None else teacher
        module = _in_float32(made, notes)
        check_forward(module, shape, num_classes, index)
        architecture = trace(module, shape, output_index=index)
        # from here on the teacher has one output, and is not the caller's own object; the same bit for bit
        if index is not None or module is teacher:
            module = build(architecture, inherit_from=module)
    except InputError as error:
        text = str(error)
        if name not in text and "teacher.weights" not in text:
            text = f"teacher.model {name!r}: {text}"
        raise type(error)(text.replace(" output_index", " teacher.output_index")) from error
    return module.eval(), architecture


def check_module(teacher: object) -> None:
    """Raises ConfigError where a teacher in memory is not a module, with what to do about what it is."""
    if isinstance(teacher, nn.Module):
        if "_parameters" not in vars(teacher):
            raise ConfigError(
                f"teacher: {type(teacher).__name__} is no complete module: its __init__ must call super().__init__() first"
            )
        return
    if isinstance(teacher, type):
        what, remedy = f"the class {teacher.__name__}", "give an instance of it with its weights"
    elif isinstance(teacher, Mapping):
        what, remedy = (
            "a mapping such as a state_dict, which has no network",
            "load it into the network with load_state_dict, and give that",
        )
    elif isinstance(teacher, Path):
        what, remedy = (
            f"the path {str(teacher)!r}",
            "name the network, and give the file as config={'teacher': {'weights': ...}}",
        )
    elif inspect.isroutine(teacher):
        what, remedy = f"the function {teacher.__name__}", "call it, and give the module it returns"
    else:
        what, remedy = (
            f"of type {type(teacher).__name__}",
            "give a torch.nn.Module, or a name such as 'resnet14'",
        )
    raise ConfigError(f"teacher: it is {what}, but a trained module is needed; {remedy}")


def _refuse_two_weights(config: Config) -> None:
    if config.teacher.weights is not None:
        raise ConfigError(
            f"teacher.weights: {config.teacher.weights!r} is set, but the teacher is a module in memory with weights of its own; "
            "load the file into the module, or set teacher.weights to null"
        )


def _in_float32(module: nn.Module, notes: list[str] | None) -> nn.Module:
    """The module, or a copy of it in float32 where its parameters have another precision: images and students are float32."""
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if not kinds:
        return module
    names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    try:
        cast = copy.deepcopy(module).float()
    except Exception as error:  # a user's module may refuse to be copied with anything
        raise ConfigError(
            f"teacher: {type(module).__name__} is {names} and cannot be copied to be cast ({reason(error)}); "
            "give it as module.float()"
        ) from error
    if notes is not None:
        notes.append(f"the teacher's {names} weights were cast to float32")
    return cast


def _load_teacher(config: Config, num_classes: int | None, shape: tuple[int, ...]) -> nn.Module:
    """The configured teacher; one without weights is initialised from its seed."""
    weights = config.teacher.weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.teacher_seed)
        return load_teacher(
            config.teacher.model,
            num_classes=num_classes,
            input_shape=shape,
            weights=Path(weights) if weights else None,
            output_index=config.teacher.output_index,
        )


def space_arguments(config: Config) -> dict[str, Any]:
    """Keyword arguments of `SearchSpace`, the budget left out."""
    space = config.space
    return {
        "operations": tuple(space.operations),
        "grouping": space.grouping,
        "divisor": space.divisor,
        "min_channels": space.min_channels,
    }


def make_space(
    config: Config, architecture: Architecture, measured: Path | None = None
) -> SearchSpace:
    """The students of a teacher within the configured budget; raises BudgetError where there are none.

    Args:
        measured: a file of earlier measurements of latency, which later ones are added to.
    """
    budget = config.limits
    wanted = "latency_ms" in budget or "latency_ms" in config.distill.report
    meter = LatencyMeter(latency_device(config), measured) if wanted else None
    return SearchSpace(
        architecture, **space_arguments(config), budget=budget or None, latency=meter
    )


def latency_device(config: Config) -> str:
    """Where latency is measured: `resources.device`, "auto" being CUDA where this machine has it."""
    return "cuda" if torch.cuda.is_available() and config.resources.device != "cpu" else "cpu"
