"""Images a second of our student training against the ordinary way, side by side in one process.

    python -m benchmarks.training                                    # random images where a data set is needed
    python -m benchmarks.training --data FOLDER --out benchmarks/results/training.json
    python -m benchmarks.training --device cuda

Ours: `trainables.training.Training`, images resident on the device, fixed views, the teacher's logits cached once for all students.
The ordinary way: a `DataLoader` over PIL images as torchvision's data sets give them, `RandomCrop` and `RandomHorizontalFlip` where the
data set augments, `ToTensor`, `Normalize`, the teacher's forward in the loop, torch's plain optimiser; with 0, 1 and 2 worker
processes, of which the fastest counts. Where a data set does not augment, also a loader over tensors that were normalised before.

Both train the same student from the same weights with the same loss, optimiser, schedule and batch size, on the same images; an epoch of
one is timed after an epoch of the other, and the median over rounds is reported. What is learned is compared at the end.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.problems import problem_config
from raysearch import prepare
from raysearch.data import DataSet, distillation_data
from raysearch.data.augment import crop_pad
from raysearch.data.batches import DeviceBatches
from raysearch.data.dataset import Split
from raysearch.models import build
from raysearch.problem import Problem
from raysearch.teaching import teach
from trainables.recipe import Recipe
from trainables.training import Training, evaluate_batches, recalibrate

WORKERS = (0, 1, 2)
RANDOM_SHAPES = {"fashion_vgg11": (1, 28, 28), "cifar_resnet20": (3, 32, 32)}
RANDOM_TEACHER_EPOCHS = 2


@dataclass(frozen=True)
class Case:
    """What is trained: a problem's student.

    Attributes:
        share: of the teacher's parameters that the uniformly scaled student has; None: the teacher's own architecture.
        num_images: of the training part that an epoch passes over.
    """

    name: str
    problem: str
    share: float | None
    num_images: int


CASES = (
    Case("8x8 digits, ResNet-14 student of 5 %", "digits_resnet14", 0.05, 1_221),
    Case("8x8 digits, VGG-6 (288k)", "digits_vgg6", None, 1_221),
    Case("28x28 grey, VGG-11 student of 5 %", "fashion_vgg11", 0.05, 1_280),
    Case("32x32 colour, ResNet-20 student of 5 %", "cifar_resnet20", 0.05, 1_280),
)


class Pictures(Dataset):
    """PIL images and labels, each transformed when it is asked for, as torchvision's own data sets do."""

    def __init__(self, split: Split, transform: Callable[[Any], torch.Tensor]) -> None:
        self.images = np.ascontiguousarray(split.images.transpose(0, 2, 3, 1))  # [N, H, W, C]
        self.labels = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        pixels = self.images[index]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), self.labels[index]


def transform_of(data: DataSet) -> Callable[[Any], torch.Tensor]:
    """The data set's augmentation and normalisation by torchvision; the network sees the same numbers as with ours."""
    from torchvision import transforms

    steps: list[Any] = []
    if "crop" in data.augment:
        steps.append(transforms.RandomCrop(data.shape[1:], padding=crop_pad(data.shape)))
    if "flip" in data.augment:
        steps.append(transforms.RandomHorizontalFlip())
    unit = 255 * data.preprocessing.scale  # ToTensor divides by 255
    mean = [value / unit for value in data.preprocessing.mean]
    std = [value / unit for value in data.preprocessing.std]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])


class Ordinary:
    """The training that one would write: loader, teacher, student, loss, optimiser."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        loader: DataLoader,
        recipe: Recipe,
        device: str,
    ) -> None:
        self.module, self.teacher = student.to(device), teacher.to(device).eval()
        self.loader, self.recipe, self.device = loader, recipe, device
        self.optimizer = torch.optim.SGD(
            self.module.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
        )
        self.steps_done = 0

    def train_epoch(self) -> float:
        """One pass; returns the mean loss."""
        self.module.train()
        total, count = torch.zeros((), device=self.device), 0
        for images, labels in self.loader:
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            with torch.no_grad():
                answers = self.teacher(images)
            loss = self._loss(self.module(images), answers, labels)
            self._set_learning_rate()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip_norm)
            self.optimizer.step()
            total += loss.detach() * len(labels)
            count += len(labels)
        return float(total) / count

    def _loss(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The recipe's kd by torch's own functions."""
        alpha, heat = self.recipe.alpha, self.recipe.temperature
        soft = kl_div(
            log_softmax(student / heat, dim=1),
            softmax(teacher / heat, dim=1),
            reduction="batchmean",
        )
        return alpha * cross_entropy(student, labels) + (1 - alpha) * heat**2 * soft

    def _set_learning_rate(self) -> None:
        steps = len(self.loader)
        total = self.recipe.epochs * steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(min(self.steps_done, total - 1), total, steps)
        self.steps_done += 1


@dataclass
class Way:
    """One way of training, and its epochs' times.

    Attributes:
        train_epoch: trains one epoch and returns the mean loss.
        module: what it trains.
        seconds, cpu_seconds: of the timed epochs; the processor's time is that of this process, without a loader's workers.
        losses: of all epochs.
    """

    name: str
    train_epoch: Callable[[], float]
    module: nn.Module
    seconds: list[float]
    cpu_seconds: list[float]
    losses: list[float]

    def run(self, device: str, *, timed: bool) -> None:
        """One epoch."""
        _wait(device)
        wall, cpu = time.perf_counter(), time.process_time()
        self.losses.append(self.train_epoch())
        _wait(device)
        if timed:
            self.seconds.append(time.perf_counter() - wall)
            self.cpu_seconds.append(time.process_time() - cpu)


def random_images(shape: tuple[int, int, int], num_train: int) -> Any:
    """Random images that can be learned: a coarse pattern for each class under noise; ((x, y), (x_test, y_test))."""
    rng = np.random.default_rng(0)
    channels, height, width = shape
    coarse = rng.integers(0, 100, (10, channels, 4, 4))
    patterns = coarse.repeat(height // 4, axis=2).repeat(width // 4, axis=3)
    labels = rng.integers(0, 10, num_train + 1_000 + 200)
    noise = rng.integers(0, 156, (len(labels), *shape))
    images = (noise + patterns[labels]).astype(np.uint8)
    return (images[:-200], labels[:-200]), (images[-200:], labels[-200:])


def load(case: Case, data: Path | None, augment: dict[str, str]) -> tuple[Problem, str]:
    """The problem with a trained teacher, and what its images are."""
    share = case.share or 1.0
    if case.problem not in RANDOM_SHAPES or data is not None:
        problem = prepare(problem_config(case.problem, data, [f"budget.params={share}"]))
        images = problem.data.name.rpartition(":")[2]
    else:
        config = problem_config(case.problem, Path(), [f"budget.params={share}"])
        raw = config.model_dump()
        raw["data"] |= {"name": "arrays", "path": None, "augment": augment[case.problem]}
        raw["teacher"] |= {"epochs": RANDOM_TEACHER_EPOCHS}
        problem = prepare(
            type(config).model_validate(raw),
            data=random_images(RANDOM_SHAPES[case.problem], case.num_images),
        )
        images = "random"
    teach(problem)
    return problem, images


def make_ways(
    case: Case, problem: Problem, recipe: Recipe, device: str
) -> tuple[list[Way], dict[str, float]]:
    """All ways from the same initial student; and what caching the teacher's logits cost, in seconds."""
    part = problem.data.train
    few = slice(0, case.num_images)
    train = Split(part.images[few], part.labels[few], part.indices[few], part.source)
    data = replace(problem.data, train=train)
    start = time.perf_counter()
    resident = distillation_data(data, problem.teacher, num_views=recipe.views, device=device).to(
        device
    )
    _wait(device)
    cached_s = time.perf_counter() - start
    ours = Training(_student(case, problem), resident, recipe)
    ways = [_way("ours", lambda: ours.train_epoch()["train_loss"], ours.module)]
    sets: list[tuple[str, Dataset, Sequence[int]]] = [
        ("pictures", Pictures(train, transform_of(data)), WORKERS)
    ]
    if data.augment == "none":
        inputs = data.preprocessing(torch.from_numpy(train.images))
        sets.append(("tensors", TensorDataset(inputs, torch.from_numpy(train.labels)), (0,)))
    for name, dataset, counts in sets:
        for workers in counts:
            loader = DataLoader(
                dataset,
                batch_size=recipe.batch_size,
                shuffle=True,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=device == "cuda",
            )
            plain = Ordinary(_student(case, problem), problem.teacher, loader, recipe, device)
            ways.append(_way(f"{name}, {workers} workers", plain.train_epoch, plain.module))
    return ways, {"teacher_logits_s": cached_s, "views": resident.train.num_views}


def measure(case: Case, options: argparse.Namespace, augment: dict[str, str]) -> dict[str, Any]:
    """Trains all ways in turns."""
    problem, images = load(case, options.data, augment)
    epochs = options.rounds + 1
    recipe = Recipe.from_dict(problem.config.distill.recipe(len(problem.data.train)))
    recipe = replace(recipe, epochs=epochs, batch_size=options.batch_size or recipe.batch_size)
    device = options.device
    ways, cached = make_ways(case, problem, recipe, device)
    for epoch in range(epochs):
        for way in ways:
            way.run(device, timed=epoch > 0)
    num_images = min(case.num_images, len(problem.data.train))
    rows = [_row(way, num_images, problem, device) for way in ways]
    ours, plain = rows[0], [row for row in rows if row["way"].startswith("pictures")]
    best = max(plain, key=lambda row: row["images_per_s"])
    alone = plain[0]
    return {
        "case": case.name,
        "images": images,
        "augment": problem.data.augment,
        "num_images": num_images,
        "student_params": sum(weight.numel() for weight in ways[0].module.parameters()),
        "teacher_params": problem.architecture.num_params,
        "batch_size": recipe.batch_size,
        "epochs": epochs,
        "ratio": round(ours["images_per_s"] / best["images_per_s"], 2),
        "ratio_cpu": round(ours["images_per_cpu_s"] / alone["images_per_cpu_s"], 2),
        "best_ordinary": best["way"],
        **{name: round(value, 3) for name, value in cached.items()},
        "ways": rows,
    }


def _row(way: Way, num_images: int, problem: Problem, device: str) -> dict[str, Any]:
    """The way's speed, and what its student has learned."""
    data = problem.data
    batches = {
        part: DeviceBatches(split.images, split.labels, data.preprocessing, device=device)
        for part, split in (("train", data.train), ("validation", data.validation))
    }
    recalibrate(way.module, batches["train"])
    learned = evaluate_batches(way.module, batches["validation"])
    return {
        "way": way.name,
        "images_per_s": round(num_images / statistics.median(way.seconds), 1),
        "images_per_cpu_s": round(num_images / statistics.median(way.cpu_seconds), 1),
        "losses": [round(loss, 4) for loss in way.losses],
        "validation_accuracy": round(learned["accuracy"], 4),
        "validation_loss": round(learned["loss"], 4),
    }


def _student(case: Case, problem: Problem) -> nn.Module:
    """The same student with the same weights each time: torch's own initialisation."""
    architecture = problem.architecture
    if case.share is not None:
        architecture = problem.space.apply(problem.space.uniform())
    torch.manual_seed(0)
    return build(architecture)


def _way(name: str, train_epoch: Callable[[], float], module: nn.Module) -> Way:
    return Way(name, train_epoch, module, [], [], [])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def table(results: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| case | images | ours, images/s | ordinary, images/s (best of workers) | ratio | ratio of processor time, no workers | accuracy ours / ordinary |"
    yield "|---|---|---|---|---|---|---|"
    for result in results:
        by_name = {row["way"]: row for row in result["ways"]}
        ours, best = by_name["ours"], by_name[result["best_ordinary"]]
        accuracies = f"{ours['validation_accuracy']:.3f} / {best['validation_accuracy']:.3f}"
        yield (
            f"| {result['case']} | {result['images']} | {ours['images_per_s']:,.0f} | "
            f"{best['images_per_s']:,.0f} ({result['best_ordinary'].split(', ')[1]}) | {result['ratio']:.2f} | "
            f"{result['ratio_cpu']:.2f} | {accuracies} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="folder with fashion_mnist/ and cifar10/; else random images"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training process")
    parser.add_argument(
        "--rounds", type=int, default=5, help="timed epochs of each way, after one for warming up"
    )
    parser.add_argument("--batch-size", type=int, help="in place of the recipe's")
    parser.add_argument("--cases", nargs="*", help="problems; default: all")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU: the CPU is measured")
        options.device = "cpu"
    torch.set_num_threads(options.threads)

    augment = {"fashion_vgg11": "crop", "cifar_resnet20": "flip_crop"}
    results = []
    for case in CASES:
        if options.cases and case.problem not in options.cases:
            continue
        result = measure(case, options, augment)
        results.append(result)
        print(f"{result['case']}: {result['ratio']}")
        for row in result["ways"]:
            print("  ", json.dumps(row))
    print("\n".join(table(results)))
    figures = {
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": options.threads,
        "rounds": options.rounds,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "results": results,
    }
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
