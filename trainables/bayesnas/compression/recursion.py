"""The thesis's diagonal recursion for the Hessian of the weights (Yang 2019, 4-7 to 4-13), for fidelity.

Notation, for one image
    h_i, h_j   the diagonal of the loss's Hessian with regard to what a layer reads and writes
    g          the gradient of the loss with regard to what an activation writes
    a          what a layer reads
    linear:       H_W = h_j a^2,   h_i = (W^2)^T h_j                                             (4-7 to 4-9)
    convolution:  the same at every place, summed over places
    element-wise: h_i = sigma'(z)^2 h_j + sigma''(z) g                                            (4-10)
    pooling, sums, BatchNorm with fixed statistics: the square of each coefficient

It is exact for the last linear layer and for chains of width one; in between it leaves out what couples the numbers of a layer.
DEVIATION: the mean of (4-13) over places is a sum, as the loss has it; what comes out negative is set to zero (`gamma < C` has no square root).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.functional import one_hot

from raysearch.errors import ConfigError
from raysearch.models.calls import UNARY
from trainables.bayesnas.compression.curvature import (
    Measurable,
    conv_gradients,
    measurable,
    normalised,
)

Output = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(logits [B, K], labels [B]) -> the diagonal of the Hessian, and the gradient, of each image's loss, both [B, K]."""

_ELEMENTWISE = frozenset(UNARY) - {"add", "sub", "rsub", "mul", "div"}
_MEANS = ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean")
_CHOICES = (
    "max_pool1d", "max_pool2d", "adaptive_max_pool2d", "flatten", "dropout", "cat", "permute", "reshape",
    "getitem", "contiguous", "narrow", "index_select", "pad", "feature_dropout", "add", "sum",
)  # fmt: skip


def cross_entropy_output(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """p (1 - p) and p - y of softmax cross-entropy."""
    chances = logits.softmax(dim=1)
    return chances * (1 - chances), chances - one_hot(labels, logits.shape[1])


@torch.no_grad()
def recursive_diagonal(
    module: fx.GraphModule,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    output: Output = cross_entropy_output,
) -> dict[str, torch.Tensor]:
    """The recursion's diagonal for the weight of every measurable layer, a mean over images.

    Args:
        module: what `raysearch.models.build` makes; it is run in evaluation mode.
        batches: (images [B, C, H, W], labels [B]).
        output: where the recursion starts.

    Raises:
        ConfigError: the network has an operation that the recursion does not know.
    """
    layers = measurable(module)
    totals = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    was_training = module.training
    module.eval()
    seen = 0
    for images, labels in batches:
        seen += len(images)
        _Backward(module, layers, totals).run(images, labels, output)
    module.train(was_training)
    return {name: (total / max(1, seen)).clamp_(min=0) for name, total in totals.items()}


class _Recorder(fx.Interpreter):
    """Runs a network and keeps what each node got and gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.got: dict[fx.Node, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.got[n] = self.fetch_args_kwargs_from_env(n)
        return super().run_node(n)


class _Backward:
    def __init__(
        self,
        module: fx.GraphModule,
        layers: Mapping[str, Measurable],
        totals: Mapping[str, torch.Tensor],
    ) -> None:
        self.module = module
        self.layers = layers
        self.totals = totals
        self.signals: dict[fx.Node, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, images: torch.Tensor, labels: torch.Tensor, output: Output) -> None:
        recorder = _Recorder(self.module)
        logits = recorder.run(images)
        for node in reversed(list(self.module.graph.nodes)):
            if node.op == "output":
                self.send(node.args[0], *output(logits, labels))
            elif (
                node.op in ("call_module", "call_function", "call_method") and node in self.signals
            ):
                self.step(node, recorder.got[node])

    def send(self, node: Any, curvature: torch.Tensor, gradient: torch.Tensor) -> None:
        if not isinstance(node, fx.Node):
            return
        earlier = self.signals.get(node)
        if earlier is not None:
            curvature, gradient = earlier[0] + curvature, earlier[1] + gradient
        self.signals[node] = curvature, gradient

    def step(self, node: fx.Node, got: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        curvature, gradient = self.signals.pop(node)
        args, kwargs = got
        if node.op == "call_module":
            layer = self.module.get_submodule(str(node.target))
            if isinstance(layer, Measurable):
                self.weigh(str(node.target), layer, args[0], curvature)
                back = _pull(_squared(layer, args[0]), args[0], curvature)
                self.send(node.args[0], back, _pull(layer, args[0], gradient))
                return
            function: Callable[..., Any] = layer
            name = type(layer).__name__.lower()
        else:
            function = (
                getattr(torch.Tensor, str(node.target)) if node.op == "call_method" else node.target  # pyright: ignore[reportAssignmentType]
            )
            name = function.__name__
        self.through(node, name, function, args, kwargs, (curvature, gradient))

    def through(
        self,
        node: fx.Node,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        signals: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """An operation without weights."""
        curvature, gradient = signals
        tensors = list(_tensors(args))
        nodes = list(_nodes(node.args))
        name = name.rstrip("_").replace("maxpool", "max_pool").replace("avgpool", "avg_pool")
        name = name.replace("logsigmoid", "log_sigmoid").replace("boundfunction", "")
        if name == "add" and any(not isinstance(arg, torch.Tensor) for arg in args[:2]):
            name = "neg"  # a constant is added: element-wise
        if name in _ELEMENTWISE and len(tensors) == 1:
            first, second = _derivatives(lambda x: function(x, *args[1:], **kwargs), tensors[0])
            self.send(nodes[0], first.square() * curvature + second * gradient, first * gradient)
            return
        known = name in _CHOICES or name in _MEANS
        if not known or function in (operator.mul,):
            raise ConfigError(
                f"search.options.hessian is 'recursive', but the recursion does not know {name!r} ({node.name}): use 'ggn'"
            )

        def of(*values: torch.Tensor) -> torch.Tensor:
            return function(*_with(args, values), **kwargs)

        pull = torch.func.vjp(of, *tensors)[1]
        scale = 1.0
        if name in _MEANS:  # every coefficient is one over the number of terms
            scale = curvature[0].numel() / tensors[0][0].numel()
        for source, back, down in zip(nodes, pull(curvature), pull(gradient), strict=True):
            self.send(source, back * scale, down)

    def weigh(
        self, name: str, layer: Measurable, read: torch.Tensor, curvature: torch.Tensor
    ) -> None:
        total = self.totals[name]
        if isinstance(layer, nn.Linear):
            total += torch.einsum("...o,...i->oi", curvature, read.square())
        elif isinstance(layer, nn.Conv1d | nn.Conv2d):
            total += conv_gradients(layer, read.square(), curvature).sum(0).view_as(total)
        else:
            found = curvature * normalised(layer, read).square()
            total += (found.flatten(2).sum(2) if found.ndim > 2 else found).sum(0)


def _squared(layer: Measurable, read: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The layer with the squares of its coefficients."""
    if isinstance(layer, nn.Linear):
        return lambda x: functional.linear(x, layer.weight.square())
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return lambda x: layer._conv_forward(x, layer.weight.square(), None)
    assert layer.running_var is not None
    shape = (1, -1, *[1] * (read.ndim - 2))
    factor = layer.weight.square() / (layer.running_var + layer.eps)
    return lambda x: x * factor.view(shape)


def _pull(
    function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, signal: torch.Tensor
) -> torch.Tensor:
    return torch.func.vjp(function, at)[1](signal)[0]


def _derivatives(
    function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """sigma' and sigma'' of an element-wise function."""

    def slope(x: torch.Tensor) -> torch.Tensor:
        return torch.func.vjp(function, x)[1](torch.ones_like(x))[0]

    found = torch.func.vjp(slope, at)
    return found[0], found[1](torch.ones_like(found[0]))[0]


def _tensors(values: Any) -> Iterable[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _nodes(values: Any) -> Iterable[fx.Node]:
    for value in values:
        if isinstance(value, fx.Node):
            yield value
        elif isinstance(value, list | tuple):
            yield from _nodes(value)


def _with(values: Any, tensors: Iterable[torch.Tensor]) -> tuple[Any, ...]:
    """The arguments with other tensors in the places of theirs."""
    given = iter(tensors)

    def put(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return next(given)
        return [put(one) for one in value] if isinstance(value, list | tuple) else value

    return tuple(put(value) for value in values)
