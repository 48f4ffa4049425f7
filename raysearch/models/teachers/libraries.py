"""Teachers of other libraries by name: torchvision's and timm's classifiers, for the data's classes and channels."""

from __future__ import annotations

import difflib
import operator
import warnings
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

import torch
from torch import nn

from raysearch.errors import ConfigError, DataError, MissingPackageError
from raysearch.models.tracing.capture import reason

_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""torchvision networks with heads that only training uses: they are left out, from weights files too."""


def torchvision_network(name: str, num_classes: int | None, shape: tuple[int, ...]) -> nn.Module:
    """A network of torchvision with fresh weights; num_classes None: the 1,000 of ImageNet."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ConfigError(
            f"teacher.model is 'torchvision:{name}', which torchvision {torchvision.__version__} does not have"
            f"{suggest(name, names)}; torchvision.models.list_models() lists its names"
        )
    if shape[:1] != (3,):
        raise DataError(
            f"teacher.model 'torchvision:{name}' takes images of 3 channels, but the data have {shape[0] if shape else 0}; "
            "set data.mode=RGB"
        )
    options: dict[str, Any] = (
        {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    )
    if num_classes is not None:
        options["num_classes"] = num_classes
    return torchvision.models.get_model(name, weights=None, **options)


def without_heads(name: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A torchvision network's weights without those of heads that only training uses."""
    heads = _AUXILIARY.get(name, ())
    return {key: tensor for key, tensor in state.items() if not key.startswith(tuple(heads))}


def check_images(model: str, shape: tuple[int, ...]) -> None:
    """Raises DataError where the data are no images."""
    if len(shape) != 3:
        raise DataError(
            f"teacher.model {model!r} takes images [channels, height, width], but the data's shape is {list(shape)}"
        )


def timm_network(name: str, num_classes: int | None, shape: tuple[int, ...]) -> nn.Module:
    """A network of timm with fresh weights, for images of any number of channels; nothing is downloaded."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"teacher.model is 'timm:{name}', but timm is not installed; pip install 'raysearch[timm]'"
        ) from error
    # a tag names pretrained weights ("resnet18.a1_in1k"); other sources than timm's own list would be fetched
    family = name.partition(".")[0]
    names = timm.list_models()
    if family not in names:
        raise ConfigError(
            f"teacher.model is 'timm:{name}', which timm {timm.__version__} does not have"
            f"{suggest(name, names)}; timm.list_models() lists its names"
        )
    check_images(f"timm:{name}", shape)
    options: dict[str, Any] = {"in_chans": shape[0]}
    if num_classes is not None:
        options["num_classes"] = num_classes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old names, which it still understands
            return timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # each of its networks raises what it likes; it is re-raised as ours
        raise ConfigError(
            f"teacher.model 'timm:{name}' cannot be made with {', '.join(f'{k}={v}' for k, v in options.items())}: "
            f"{reason(error)}; choose another network, or data.mode=RGB"
        ) from error


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint at the most similar known name, or nothing; of equally similar ones that which begins the same for longest."""
    close = difflib.get_close_matches(name, known := list(known), n=max(1, len(known)))
    if not close:
        return ""

    def likeness(other: str) -> tuple[float, int]:
        # the order in which difflib itself asks: its ratio is not symmetric
        shared = list(takewhile(bool, map(operator.eq, other, name)))
        return difflib.SequenceMatcher(None, other, name).ratio(), len(shared)

    return f" (did you mean {max(close, key=likeness)!r}?)"
