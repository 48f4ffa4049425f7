"""The teacher's ATen graph, captured with `torch.export`; every refusal names the module and the reason.

The capture is non-strict, in evaluation mode and without gradients, on a batch of 7 whose size is left dynamic: 7 is unlikely to
be written in a model by chance, and a batch axis that comes back as a plain number shows that the code fixes it.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, free_symbols
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo

from raysearch.architecture.ops import Shape
from raysearch.architecture.programs import MAX_CONSTANT
from raysearch.errors import TraceError, UnsupportedTeacher

EXAMPLE_BATCH = 7
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_OTHER_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Capture:
    """A captured teacher.

    Attributes:
        nodes: the computation in order, ATen calls only.
        input: the node of the image batch.
        output: the node of the logits.
        states: node -> name in the state_dict, of parameters and buffers.
        parameters: those of `states` that are parameters (not buffers).
        constants: those of `states` that no state_dict has, with their values: tensors made in forward, small buffers that are
            not persistent.
    """

    nodes: tuple[fx.Node, ...]
    input: fx.Node
    output: fx.Node
    states: Mapping[fx.Node, str]
    parameters: frozenset[str]
    constants: Mapping[fx.Node, torch.Tensor] = field(default_factory=dict)


@contextlib.contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own training flag, and every buffer, is put back."""
    if any(is_lazy(state) for state in (*module.parameters(), *module.buffers())):
        raise TraceError(
            f"{type(module).__name__} has layers whose sizes are not known yet; run it once on an input first"
        )
    if any(state.is_meta for state in (*module.parameters(), *module.buffers())):
        raise TraceError(
            f"{type(module).__name__} is on the meta device, so its weights have no values; load them first"
        )
    flags = {child: child.training for child in module.modules()}
    compiled = {child: child._compiled_call_impl for child in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    try:
        module.eval()
    except NotImplementedError as error:
        raise TraceError(
            f"{type(module).__name__} cannot be put into evaluation mode; give the module that it was exported from"
        ) from error
    # what is computed in another order rounds differently, so that no graph would give the same logits
    torch.backends.mha.set_fastpath_enabled(False)
    for child in compiled:
        child._compiled_call_impl = None
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for child, call in compiled.items():
            child._compiled_call_impl = call
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
        for child, flag in flags.items():
            child.training = flag


def example(module: nn.Module, input_shape: Shape, batch: int = EXAMPLE_BATCH) -> torch.Tensor:
    """A reproducible random batch [B, *input_shape] on the module's device and in its precision."""
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    images = torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(batch))
    return images if like is None else images.to(like.device, like.dtype)


def select(outputs: Any, output_index: int | str | None) -> Any:
    """The logits among what a forward pass returned.

    Raises:
        TraceError: it is not a tensor, or one of several and `output_index` does not say which.
    """
    if output_index is not None:
        outputs = _pick(outputs, output_index)
    if output_index is not None and isinstance(outputs, (list, tuple, Mapping)):
        raise TraceError(
            f"output {output_index!r} of the teacher holds {len(outputs)} outputs {_keys(outputs)}, but it must be the tensor "
            "of logits itself; return it at the top"
        )
    if isinstance(outputs, (list, tuple, Mapping)):
        raise TraceError(
            f"the teacher returns {len(outputs)} outputs {_keys(outputs)}; set output_index to the one that holds the logits"
        )
    if not isinstance(outputs, (torch.Tensor, fx.Node)):
        raise TraceError(
            f"the teacher returns {type(outputs).__name__}, but a tensor [batch, classes] is needed"
        )
    return outputs


def _pick(outputs: Any, output_index: int | str) -> Any:
    if isinstance(output_index, str) and output_index in getattr(outputs, "_fields", ()):
        return getattr(outputs, output_index)  # a named tuple
    if not isinstance(outputs, (list, tuple, Mapping)):  # an index would pick an image of the batch
        tensor = isinstance(outputs, (torch.Tensor, fx.Node))
        raise TraceError(
            f"output_index is {output_index!r}, but the teacher returns one {type(outputs).__name__}; "
            + ("leave it out" if tensor else "return a tuple or a dict, or the logits alone")
        )
    try:
        return outputs[output_index]  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (LookupError, TypeError) as error:
        raise TraceError(
            f"output_index is {output_index!r}, but the teacher returns outputs {_keys(outputs)}; choose one of them"
        ) from error


def _keys(outputs: Any) -> list[Any]:
    if hasattr(outputs, "_fields"):
        return list(outputs._fields)
    return list(outputs) if isinstance(outputs, Mapping) else list(range(len(outputs)))


def capture(module: nn.Module, input_shape: Shape, output_index: int | str | None) -> Capture:
    """Captures an unwrapped module that is in evaluation mode."""
    if not any(True for _ in module.parameters()):
        raise TraceError(f"{type(module).__name__} has no parameters, so there is nothing to learn")
    select(try_forward(module, input_shape), output_index)
    program = _export(module, input_shape)
    captured = _read(program, output_index)
    _refuse_fixed_batch(program, captured.input, module)
    _refuse_memory(captured)
    return captured


def module_label(path: str, kind: str) -> str:
    """How messages name a module: its path and class."""
    return f"module {path!r} ({kind})" if path else kind


def describe(module: nn.Module, error: BaseException) -> str:
    """The innermost module of `module` in which `error` was raised, as messages name it."""
    paths = {id(child): path for path, child in module.named_modules()}
    label = module_label("", type(module).__name__)
    frame = error.__traceback__
    while frame is not None:
        owner = frame.tb_frame.f_locals.get("self")
        if id(owner) in paths and isinstance(owner, nn.Module):
            label = module_label(paths[id(owner)], type(owner).__name__)
        frame = frame.tb_next
    return label


def reason(error: BaseException) -> str:
    """An error as part of a sentence: its type and the first line of its text."""
    plain = _ANSI.sub("", str(error))
    text = next((line.strip() for line in plain.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def try_forward(module: nn.Module, input_shape: Shape, batch: int = EXAMPLE_BATCH) -> Any:
    """Runs the module once on real tensors: what fails here is the user's to mend.

    Raises:
        UnsupportedTeacher: it takes a batch of another size.
        TraceError: it takes no such input; `__cause__` is its own error.
    """
    try:
        return module(example(module, input_shape, batch))
    except Exception as error:  # a user's forward may raise anything; it is re-raised as our own
        where, why = describe(module, error), reason(error)
        for other in _OTHER_BATCHES:
            if _accepts(module, input_shape, other):
                raise UnsupportedTeacher(
                    f"{where} works on a batch of {other} but not of {batch}: the batch size is written in "
                    f"its code ({why}); use x.shape[0] or -1 instead"
                ) from error
        remedy = "set the input shape that the teacher was made for"
        if "required positional argument" in why or "required keyword-only argument" in why:
            remedy = "a teacher must take one batch of images and nothing else"
        raise TraceError(
            f"{where} rejects an input of shape {list(input_shape)}: {why}; {remedy}"
        ) from error


def _accepts(module: nn.Module, input_shape: Shape, batch: int) -> bool:
    try:
        module(example(module, input_shape, batch))
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError):
        return False
    return True


def _export(module: nn.Module, input_shape: Shape) -> ExportedProgram:
    level = logging.getLogger("torch").level
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # its own reports repeat what we raise
    try:
        with _no_collection(), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return export(
                module,
                (example(module, input_shape),),
                dynamic_shapes=_dynamic(module),
                strict=False,
            )
    except Exception as error:  # export raises errors of many kinds; each is re-raised as our own
        where = describe(module, error)
        if isinstance(error, GuardOnDataDependentSymNode) or "data-dependent" in str(error):
            raise UnsupportedTeacher(
                f"{where} has control flow that depends on the values of a tensor, so there is no one graph to compress"
            ) from error
        raise UnsupportedTeacher(
            f"{where} cannot be captured by torch.export: {reason(error)}"
        ) from error
    finally:
        logging.getLogger("torch").setLevel(level)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector: export makes so many small objects that it takes a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _dynamic(module: nn.Module) -> Any:
    """A dynamic batch axis, in the structure of the parameters of `forward`."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    variadic = parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    return (({0: Dim.AUTO},),) if variadic else ({0: Dim.AUTO},)


def _read(program: ExportedProgram, output_index: int | str | None) -> Capture:
    kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    states: dict[fx.Node, str] = {}
    parameters: set[str] = set()
    constants: dict[fx.Node, torch.Tensor] = {}
    images: list[fx.Node] = []
    nodes: list[fx.Node] = []
    leaves: list[Any] = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = kinds[node.name]
            if spec.kind is InputKind.USER_INPUT:
                images.append(node)
            else:
                states[node] = spec.target or node.name
                if spec.kind is InputKind.PARAMETER:
                    parameters.add(states[node])
                value = program.constants.get(states[node])
                if isinstance(value, torch.Tensor) and (
                    spec.kind is InputKind.CONSTANT_TENSOR or value.numel() <= MAX_CONSTANT
                ):
                    constants[node] = value
        elif node.op == "output":
            leaves = list(node.args[0])
        else:
            nodes.append(node)
    outputs = _structure(leaves, program)
    logits = select(outputs, output_index)
    return Capture(tuple(nodes), images[0], logits, states, frozenset(parameters), constants)


def _structure(leaves: Sequence[Any], program: ExportedProgram) -> Any:
    """The graph's outputs in the shape in which the module returned them."""
    spec = program.call_spec.out_spec
    mutated = len(leaves) - (spec.num_leaves if spec else len(leaves))
    return pytree.tree_unflatten(list(leaves[mutated:]), spec) if spec else leaves[mutated:]


def _refuse_fixed_batch(program: ExportedProgram, images: fx.Node, module: nn.Module) -> None:
    batch = images.meta["val"].shape[0]
    symbols = free_symbols(batch)
    ranges = [program.range_constraints[s] for s in symbols if s in program.range_constraints]
    if not symbols or any(span.lower > 2 or span.upper < int_oo for span in ranges):
        raise UnsupportedTeacher(
            f"{type(module).__name__} fixes the batch size in its code (a reshape to a number, or a comparison with one); "
            "use x.shape[0] or -1 instead"
        )


def _refuse_memory(captured: Capture) -> None:
    for node in captured.nodes:
        written = node.args[0] if is_in_place(node) else None
        if isinstance(written, fx.Node) and written in captured.states:
            raise UnsupportedTeacher(
                f"{_owner(captured.states[written])} changes {captured.states[written]!r} during evaluation, so its output "
                "depends on what it saw before"
            )


def is_in_place(node: fx.Node) -> bool:
    """Whether the call overwrites its first argument."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.name.endswith("_")


def _owner(state: str) -> str:
    path = state.rpartition(".")[0]
    return f"module {path!r}" if path else "the teacher"
