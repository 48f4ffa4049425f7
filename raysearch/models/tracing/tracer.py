"""A teacher as an `Architecture`: captured, canonicalised, and proved on numbers."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence

import torch
from torch import nn

from raysearch.architecture.graph import Architecture
from raysearch.architecture.ops import Shape
from raysearch.architecture.strides import mark_copies
from raysearch.errors import InvalidArchitecture, TraceError, UnsupportedTeacher, WeightsError
from raysearch.models.build import build
from raysearch.models.tracing.cache import keep_trace, read_trace
from raysearch.models.tracing.canonicalise import canonicalise
from raysearch.models.tracing.capture import capture, evaluation, example, select
from raysearch.models.tracing.identity import trace_key
from raysearch.models.weights import misfits
from raysearch.models.wrappers import unwrap

_CHECKED_BATCHES = (2, 5)
_CHECKED_AGAIN = (3,)
"""A graph that was kept is proved on this alone: that it is this module's is known from its key."""


def trace(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    output_index: int | str | None = None,
    cache: bool = True,
) -> Architecture:
    """Captures a teacher as it computes in evaluation mode.

    The module is left as it was: weights, buffers and every training flag. What evaluation does not show is not captured:
    stochastic depth is gone, dropout stays. Operations that we do not know are replayed as they are (`opaque` layers); weights that are
    computed from parameters are folded into plain ones.

    Args:
        module: the teacher; takes one tensor [B, *input_shape] and returns logits [B, K].
        input_shape: the shape of one input, without the batch.
        output_index: which output holds the logits where the teacher returns a tuple, list or dict.
        cache: the same module with the same weights is captured once and then read from the user's cache folder, and proved
            on numbers again; False: neither read nor kept.

    Raises:
        TraceError: the teacher rejects the input, has several outputs, or returns no tensor.
        UnsupportedTeacher: control flow on data, the batch size in the code, images that are not independent, or a captured graph
            that does not give the teacher's logits.
    """
    if not isinstance(module, nn.Module):
        raise TraceError(f"a torch.nn.Module is needed, but {type(module).__name__} was given")
    if "_parameters" not in vars(module):
        raise TraceError(
            f"{type(module).__name__} is no complete module: its __init__ must call super().__init__() first"
        )
    shape = _checked_shape(input_shape)
    teacher = unwrap(module)
    with evaluation(teacher):
        key = trace_key(teacher, shape, output_index) if cache else None
        kept = _kept(key, teacher, shape, output_index)
        if kept is not None:
            return kept
        captured = capture(teacher, shape, output_index)
        architecture = mark_copies(canonicalise(captured, teacher, shape))
        _prove(architecture, teacher, output_index, _CHECKED_BATCHES)
    if key is not None:
        keep_trace(key, architecture)
    return architecture


def _kept(
    key: str | None, teacher: nn.Module, shape: Shape, output_index: int | str | None
) -> Architecture | None:
    """The graph of an earlier capture, where it still gives the teacher's logits."""
    architecture = read_trace(key) if key is not None else None
    if architecture is None or architecture.input_shape != shape:
        return None
    if any(found is not None for _, found, _ in misfits(architecture, teacher.state_dict())):
        return None
    try:
        _prove(architecture, teacher, output_index, _CHECKED_AGAIN)
    except (TraceError, WeightsError):  # a capture says what is wrong, or mends it
        return None
    return architecture


def _checked_shape(input_shape: Sequence[int]) -> Shape:
    try:
        shape = tuple(operator.index(size) for size in input_shape)
    except TypeError:
        shape = ()
    if not shape or any(size < 1 for size in shape):
        raise TraceError(
            f"input_shape is {input_shape!r}, but positive sizes without the batch are needed, such as (3, 32, 32)"
        )
    return shape


def _prove(
    architecture: Architecture,
    teacher: nn.Module,
    output_index: int | str | None,
    batches: Sequence[int],
) -> None:
    """The rebuilt network must give the teacher's own logits, bit for bit (on a CPU)."""
    try:
        rebuilt = build(architecture, inherit_from=teacher).eval()
    except InvalidArchitecture as error:
        raise UnsupportedTeacher(f"{type(teacher).__name__} cannot be rebuilt: {error}") from error
    for batch in batches:
        images = example(teacher, architecture.input_shape, batch)
        expected = select(
            teacher(images.clone()), output_index
        )  # a teacher may write into its input
        found = rebuilt(images)
        if not bool(torch.isfinite(expected).all()):
            raise TraceError(
                f"{type(teacher).__name__} gives logits that are not finite; check its weights"
            )
        same = (
            torch.equal(found, expected) if images.device.type == "cpu" else _close(found, expected)
        )
        same = same or (
            _close(found, expected) and _only_rounds(architecture, teacher, output_index)
        )
        if batch == max(_CHECKED_BATCHES) and _has_opaque(architecture):
            _prove_independence(teacher, images, expected, output_index)
        if not same:
            raise UnsupportedTeacher(
                f"{type(teacher).__name__}: the captured graph does not give the teacher's logits "
                f"(largest difference {_difference(found, expected)}); it may be random in evaluation, write into views, or "
                "compute in another precision or memory format than its weights have"
            )


def _has_opaque(architecture: Architecture) -> bool:
    return any(layer.op == "opaque" for layer in architecture.layers)


def _prove_independence(
    teacher: nn.Module, images: torch.Tensor, logits: torch.Tensor, output_index: int | str | None
) -> None:
    """The logits of an image must not depend on the other images: operations without a rule are only known by their numbers."""
    alone = select(teacher(images[:2].clone()), output_index)
    rounding = 1e-3 if images.dtype in (torch.float32, torch.float64) else 0.1
    scale = float(logits.float().abs().max())
    if float((logits[:2].float() - alone.float()).abs().max()) > rounding * max(scale, 1e-6):
        raise UnsupportedTeacher(
            f"{type(teacher).__name__}: the logits of an image depend on the other images of the batch, so its images are not independent"
        )


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Accelerators choose among kernels that round differently."""
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def _only_rounds(
    architecture: Architecture, teacher: nn.Module, output_index: int | str | None
) -> bool:
    """Whether two networks whose logits are nearly the same are one in double precision.

    Channels last in memory, and kernels that are fused, add in another order; a wrong network is wrong in any precision.
    """
    try:
        wide = copy.deepcopy(teacher).double()
        images = example(wide, architecture.input_shape)
        expected = select(wide(images.clone()), output_index)
        found = build(architecture, inherit_from=wide).eval()(images)
    except Exception:  # noqa: BLE001  # what cannot be computed in double precision proves nothing, so the teacher is refused
        return False
    scale = float(expected.abs().max())
    return found.shape == expected.shape and bool(
        (found - expected).abs().max() <= 1e-11 * max(scale, 1.0)
    )


def _difference(found: torch.Tensor, expected: torch.Tensor) -> str:
    if found.shape != expected.shape:
        return f"shapes {list(found.shape)} and {list(expected.shape)}"
    return f"{float((found - expected).abs().max()):.3g}"


__all__ = ["trace"]
