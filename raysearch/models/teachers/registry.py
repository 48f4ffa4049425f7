"""Teachers by name: built-in networks, those of torchvision and timm, and a user's own callable."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from raysearch.errors import ConfigError, DataError, TraceError, UnsupportedTeacher
from raysearch.models.teachers import chain, lenet, resnet, shufflenet, vgg
from raysearch.models.teachers.libraries import (
    check_images,
    suggest,
    timm_network,
    torchvision_network,
    without_heads,
)
from raysearch.models.tracing.capture import describe, evaluation, reason, select, try_forward
from raysearch.models.weights import apply_weights, load_weights

Maker = Callable[[str, int, Sequence[int]], nn.Module]

BUILT_IN: Mapping[str, Maker] = {
    **dict.fromkeys(resnet.CONFIGURATIONS, resnet.resnet),
    **dict.fromkeys(vgg.CONFIGURATIONS, vgg.vgg),
    **dict.fromkeys(chain.CONFIGURATIONS, chain.chain),
    **dict.fromkeys(lenet.CONFIGURATIONS, lenet.lenet),
    **dict.fromkeys(shufflenet.CONFIGURATIONS, shufflenet.named),
}
"""Name -> (name, classes, input shape) -> module."""


def load_teacher(
    model: str,
    *,
    num_classes: int | None,
    input_shape: Sequence[int],
    weights: str | Path | None = None,
    output_index: int | str | None = None,
) -> nn.Module:
    """Makes a teacher and, where a file is given, loads its weights.

    Args:
        model: a built-in name, "torchvision:NAME", "timm:NAME", or "package.module:callable", which is called with
            `num_classes` and `input_shape` where its signature takes them and returns the module.
        num_classes: K of the logits [B, K]; None: the network's own default (10 of a built-in one).
        input_shape: [C, H, W] of the images.
        weights: a safetensors file or a saved state_dict.
        output_index: which output holds the logits where the teacher returns several.

    Raises:
        MissingPackageError: the network is timm's, which is not installed.
        ConfigError: the name is unknown, or the callable does not give a module.
        DataError: the network does not take images of this shape.
        WeightsError: the file cannot be read or does not fit.
    """
    shape = tuple(input_shape)
    prefix, _, name = model.partition(":")
    state = load_weights(weights) if weights is not None else None
    if not name:
        module = _built_in(model, num_classes, shape)
    elif prefix == "torchvision":
        module = torchvision_network(name, num_classes, shape)
        state = state and without_heads(name, state)
    elif prefix == "timm":
        module = timm_network(name, num_classes, shape)
    else:
        module = _own(model, num_classes, shape)
    if state is not None:
        apply_weights(module, state, repr(str(weights)))
    check_forward(module, shape, num_classes, output_index)
    return module


def check_forward(
    module: nn.Module,
    input_shape: Sequence[int],
    num_classes: int | None,
    output_index: int | str | None = None,
) -> int:
    """Runs a batch of two images, and returns the number of classes.

    Raises:
        DataError: the module does not take such images.
        UnsupportedTeacher: it takes batches of another size only.
        TraceError: it returns several outputs and `output_index` does not say which, or no tensor.
        ConfigError: it does not return logits [B, num_classes].
    """
    shape = tuple(input_shape)
    with evaluation(module):
        try:
            outputs = try_forward(module, shape, 2)
        except UnsupportedTeacher:
            raise
        except TraceError as error:
            cause = error.__cause__ or error
            raise DataError(
                f"the teacher does not take images of shape {list(shape)}: {describe(module, cause)} raises {reason(cause)}; "
                "set data.resize or data.mode, or choose another teacher.model"
            ) from error
    logits = select(outputs, output_index)
    classes = num_classes or "K"
    found = ["batch", *logits.shape[1:]] if logits.shape[:1] == (2,) else list(logits.shape)
    if logits.shape[:1] != (2,) or logits.ndim != 2:
        raise ConfigError(
            f"the teacher's output has shape {found}, but logits [batch, {classes}] are needed; "
            "end it with a layer that gives one number a class"
        )
    if num_classes is not None and logits.shape[1] != num_classes:
        raise ConfigError(
            f"the teacher's output has shape {found}, but the data have {num_classes} classes; give it {num_classes} outputs"
        )
    return logits.shape[1]


def _built_in(model: str, num_classes: int | None, shape: tuple[int, ...]) -> nn.Module:
    if model not in BUILT_IN:
        raise ConfigError(
            f"teacher.model is {model!r}, which is unknown{suggest(model, BUILT_IN)}; built in are "
            f"{', '.join((*resnet.CONFIGURATIONS, *vgg.CONFIGURATIONS, *chain.CONFIGURATIONS, *lenet.CONFIGURATIONS))}, "
            f"{shufflenet.NAMES}; "
            "torchvision:NAME, timm:NAME and package.module:callable are understood too"
        )
    check_images(model, shape)
    return BUILT_IN[model](model, num_classes or 10, shape)


def _own(model: str, num_classes: int | None, shape: tuple[int, ...]) -> nn.Module:
    make = _import(model)
    values: dict[str, Any] = {"input_shape": shape}
    if num_classes is not None:
        values = {"num_classes": num_classes, **values}
    accepted = {key: value for key, value in values.items() if key in _accepted(make, values)}
    try:
        module = make(**accepted)
    except Exception as error:  # a user's callable may raise anything; it is re-raised as our own
        raise ConfigError(
            f"teacher.model {model!r} raises {reason(error)}; it is called with "
            f"{', '.join(accepted) if accepted else 'no arguments'}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"teacher.model {model!r} returns {type(module).__name__}, but a torch.nn.Module is needed"
        )
    return module


def _import(model: str) -> Callable[..., Any]:
    module_name, _, attribute = model.partition(":")
    _make_here_importable()
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        raise ConfigError(
            f"teacher.model {model!r}: there is no module {missing!r}; run from its folder or install it"
        ) from error
    except Exception as error:  # importing runs the user's code; it is re-raised as our own
        raise ConfigError(
            f"teacher.model {model!r}: importing {module_name} raises {reason(error)}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ConfigError(
                f"teacher.model {model!r}: {module_name} has no {attribute!r}{suggest(part, dir(value))}"
            )
        value = getattr(value, part)
    if not callable(value) or isinstance(value, nn.Module):
        raise ConfigError(
            f"teacher.model {model!r} is {type(value).__name__}, but a function or class that returns a module is needed"
        )
    return value


def _make_here_importable() -> None:
    """Adds the current folder behind all others, as `python -m` has it in front; what a teacher imports later is found too."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _accepted(make: Callable[..., Any], names: Mapping[str, Any]) -> set[str]:
    """Which keyword arguments a callable takes."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some built-in callables have no signature
        return set()
    kinds = {p.kind for p in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return set(names)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, p in parameters.items() if p.kind in by_name}
