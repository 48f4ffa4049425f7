"""The parts `weights` and `epoch` of `benchmarks.bayesnas`: what a structured compression's curvature and epochs cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import fx, nn
from torch.nn.functional import cross_entropy

from raysearch.bayesnas.compression import CompressionSettings
from raysearch.data import distillation_data, from_arrays
from raysearch.models import build, load_teacher, trace
from trainables.bayesnas.compression.curvature import diagonal
from trainables.bayesnas.compression.gates import Gates
from trainables.bayesnas.compression.places import find_places
from trainables.bayesnas.compression.run import CompressionRun
from trainables.bayesnas.recursion import recursive_diagonal
from trainables.context import DistillationContext
from trainables.recipe import Recipe
from trainables.training import Training

Medians = Callable[[Mapping[str, Callable[[], float]], int], dict[str, float]]

CASES = (
    ("lenet300", (1, 28, 28), 128),
    ("lenet5", (1, 28, 28), 64),
    ("resnet14", (1, 8, 8), 64),
    ("resnet20", (3, 32, 32), 32),
)
IMAGES, BATCH = 1024, 128


def weights(rounds: int, medians: Medians) -> list[str]:
    """The lines of the part `weights`."""
    lines = [
        "| network | backward, ms | one draw | and gates | exact | recursive |",
        "|---|---|---|---|---|---|",
    ]
    for name, shape, batch in CASES:
        torch.manual_seed(0)
        teacher = load_teacher(name, num_classes=10, input_shape=shape)
        architecture = trace(teacher, shape)
        module, gates = build(architecture, inherit_from=teacher), Gates(find_places(architecture))
        assert isinstance(module, fx.GraphModule)
        images, labels = torch.randn(batch, *shape), torch.randint(10, (batch,))
        generator = torch.Generator().manual_seed(0)
        contestants: dict[str, Callable[[], float]] = {
            "backward": lambda m=module, x=images, y=labels: _backward(m, x, y),
            "one draw": _timed(
                lambda m=module, x=images, g=generator: diagonal(m, [x], generator=g)
            ),
            "and gates": _timed(
                lambda m=module, x=images, g=generator, o=gates: diagonal(
                    m, [x], generator=g, observer=o
                )
            ),
            "exact": _timed(lambda m=module, x=images: diagonal(m, [x], draws=None)),
            "recursive": _timed(
                lambda m=module, x=images, y=labels: recursive_diagonal(m, [(x, y)])
            ),
        }
        found = medians(contestants, rounds)
        cells = " | ".join(
            f"{found[one] / found['backward']:.2f}" for one in contestants if one != "backward"
        )
        lines.append(
            f"| {name}, {'x'.join(map(str, shape))}, batch {batch} | {1e3 * found['backward']:.1f} | {cells} |"
        )
    return lines


def epoch(rounds: int, medians: Medians) -> list[str]:
    """The lines of the part `epoch`: LeNet-5, an epoch under the penalty against a plain one; updates apart, which come once in several epochs."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (IMAGES + 200, 1, 28, 28), dtype=np.uint8)
    answers = rng.integers(0, 10, IMAGES + 200)
    data = from_arrays((pixels, answers), validation=200, augment="none")
    torch.manual_seed(0)
    teacher = load_teacher("lenet5", num_classes=10, input_shape=(1, 28, 28))
    architecture = trace(teacher, (1, 28, 28))
    settings = CompressionSettings(interval=1, updates=10**6, loss="ce", batch_size=BATCH, conv_groups=("shape", "filter"), images=BATCH)  # fmt: skip
    context = DistillationContext(
        teacher=architecture.to_json(),
        teacher_weights={key: value.numpy() for key, value in teacher.state_dict().items()},
        space={"divisor": 1},
        data=distillation_data(data, None, num_views=1),
        recipes={"search": Recipe(loss="ce").to_dict()},
    )
    run = CompressionRun(context, settings, lam=1e-12)
    run.train_epoch()  # the first update: from then on the penalty works
    recipe = Recipe(
        loss="ce",
        epochs=10**6,
        lr=0.05,
        batch_size=BATCH,
        schedule="cosine",
        nesterov=False,
        views=1,
    )
    plain = Training(build(architecture, inherit_from=teacher), context.device_data, recipe)
    found = medians(
        {"plain": _timed(plain.train_epoch), "penalised": _timed(run._training.train_epoch)}, rounds
    )
    ratio = found["penalised"] / found["plain"]
    return [f"plain epoch {found['plain']:.2f} s, under the penalty {ratio:.2f} times as long"]


def _backward(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    module.train()
    loss = cross_entropy(module(images), labels)
    start = time.process_time()
    loss.backward()
    return time.process_time() - start


def _timed(function: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.process_time()
        function()
        return time.process_time() - start

    return run
