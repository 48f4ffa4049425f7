"""What a student gains from the channels that it inherits: nothing, the first, or the most important ones by each measure.

    python benchmarks/inheritance.py --data FOLDER      # parquet files of Fashion-MNIST, or of any set of that size

Two teachers: the digits' ResNet-14, and a small VGG on 4,000 images of FOLDER at 14x14. For each, random students at 5 % and 20 % of
the teacher's parameters; each student is built with each choice of channels, evaluated as it is, evaluated with BatchNorm re-calibrated,
and trained twice from there: for 2 epochs (a trial) and for 8 (a finish), both annealed. One core, about ten minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from raysearch import load_config, prepare
from raysearch.architecture import Architecture, SearchSpace
from raysearch.cluster import TrialResources
from raysearch.data import load_data
from raysearch.errors import WeightsError
from raysearch.models import build
from raysearch.models.keep import ChannelRanking
from raysearch.models.scores import RANKINGS, channel_scores
from raysearch.models.teachers.vgg import VGG
from raysearch.problem import Problem, space_arguments
from raysearch.teaching import labelled_batches, make_context, teach
from trainables.recipe import Recipe
from trainables.training import Training, evaluate_batches, recalibrate

CHOICES = ("none", *RANKINGS)
BUDGETS = (0.05, 0.2)
SHORT, LONG = 2, 8
COLUMNS = ("sliced", "calibrated", "short", "long")
Row = dict[str, Any]


def digits_problem() -> Problem:
    return prepare(load_config({"data": {"validation": 500}}))


def folder_problem(folder: Path, num_images: int) -> Problem:
    """A small VGG on some images of a folder at 14x14; as many again are for validation."""
    whole = load_data("parquet", path=folder, resize=14, validation=0.2)
    rows = np.random.default_rng(0).permutation(len(whole.train))[: 2 * num_images]
    images, labels = whole.train.images[rows], whole.train.labels[rows]
    config = load_config({"data": {"validation": num_images}, "teacher": {"epochs": 15}})
    torch.manual_seed(0)
    shape = images.shape[1:]
    module = VGG(((24, 2), (48, 2), (96, 2)), whole.num_classes, shape)
    test = (whole.test.images[:1000], whole.test.labels[:1000])
    problem = prepare(config, teacher=module, data=((images, labels), test))
    return dataclasses.replace(problem, has_weights=False)  # so that it is trained


def measure(name: str, problem: Problem, num_students: int) -> Iterator[Row]:
    """Every student with every choice of channels."""
    card = teach(problem)
    resources = TrialResources(cpus=1, gpus=0, concurrency=1, device="cpu")
    context = make_context(problem, card, resources)
    state = context.teacher_state
    rankings = dict(_rankings(problem, state))
    arguments = space_arguments(problem.config)
    for budget in BUDGETS:
        space = SearchSpace(problem.architecture, **arguments, budget={"params": budget})
        for number, edits in enumerate(space.sample(num_students, seed=0)):
            student = space.apply(edits)
            for choice in ("none", *rankings):
                start = time.process_time()
                yield {
                    "teacher": name,
                    "teacher_accuracy": card["accuracy"],
                    "budget": budget,
                    "student": number,
                    "choice": choice,
                    **_student(context, student, rankings.get(choice)),
                    "seconds": round(time.process_time() - start, 2),
                }


def _rankings(
    problem: Problem, state: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, ChannelRanking]]:
    for name in RANKINGS:
        start = time.process_time()
        try:
            scores = channel_scores(
                name, problem.architecture, state, lambda: labelled_batches(problem)
            )
        except WeightsError as error:
            print(f"{name} is left out: {error}")
            continue
        print(f"{name}: scored in {time.process_time() - start:.2f} CPU s")
        yield name, ChannelRanking(problem.architecture, scores)


def _student(context: Any, student: Architecture, ranking: ChannelRanking | None) -> Row:
    """Accuracies and cross-entropies before training, and after a short and a long one."""

    def start() -> torch.nn.Module:
        torch.manual_seed(0)
        if ranking is None:
            return build(student)
        return build(student, inherit_from=context.teacher_state, keep=ranking.keep(student))

    data = context.device_data
    found: Row = {}
    module = start()
    found["sliced"] = evaluate_batches(module, data.validation)["accuracy"]
    recalibrate(module, data.train)
    found["calibrated"] = evaluate_batches(module, data.validation)["accuracy"]
    for name, epochs in (("short", SHORT), ("long", LONG)):
        recipe = Recipe.from_dict({**context.recipes["search"], "epochs": epochs})
        training = Training(start(), data, recipe)
        for _ in range(epochs):
            training.train_epoch()
        metrics = training.validate()
        found[name], found[f"{name}_loss"] = metrics["accuracy"], metrics["loss"]
    return found


def summarise(rows: Sequence[Row]) -> list[Row]:
    """For each teacher, budget and choice: means, differences to `first` with standard errors, and rank correlations."""
    lines = []
    for teacher, budget in dict.fromkeys((row["teacher"], row["budget"]) for row in rows):
        here = [row for row in rows if (row["teacher"], row["budget"]) == (teacher, budget)]
        for choice in dict.fromkeys(row["choice"] for row in here):
            own = [row for row in here if row["choice"] == choice]
            line: Row = {"teacher": teacher, "budget": budget, "choice": choice}
            line |= {key: float(np.mean([row[key] for row in own])) for key in COLUMNS}
            line |= differences(here, choice)
            losses = [-row["short_loss"] for row in own]
            line["rank"] = rank_correlation(losses, [row["long"] for row in own])
            lines.append(line)
    return lines


def differences(rows: Sequence[Row], choice: str) -> Row:
    """How much more accurate students are than with the first channels: paired means and standard errors."""
    keys = ("teacher", "budget", "student")
    base = {tuple(row[key] for key in keys): row for row in rows if row["choice"] == "first"}
    found: Row = {}
    for column in ("calibrated", "short", "long"):
        gains = [
            row[column] - base[tuple(row[key] for key in keys)][column]
            for row in rows
            if row["choice"] == choice
        ]
        found[f"{column}_gain"] = float(np.mean(gains))
        found[f"{column}_se"] = float(np.std(gains, ddof=1) / len(gains) ** 0.5)
    return found


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; not a number where all values of one side are equal."""
    return float(pd.Series(first).rank().corr(pd.Series(second).rank()))


def table(lines: Sequence[Row], pooled: Mapping[str, Row], notes: Sequence[str]) -> str:
    """The result as Markdown."""
    text = ["# What a student gains from the channels that it inherits", "", *notes, ""]
    for (teacher, budget), group in itertools.groupby(
        lines, key=lambda line: (line["teacher"], line["budget"])
    ):
        text += [f"## {teacher}, {budget:.0%} of the parameters", ""]
        text += [
            "| channels | sliced | re-calibrated | 2 epochs | 8 epochs | 2 epochs - first | 8 epochs - first | rank |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for line in group:
            cells = [f"{line[column]:.3f}" for column in COLUMNS]
            cells += [_gain(line, column) for column in ("short", "long")]
            text.append(f"| {line['choice']} | {' | '.join(cells)} | {line['rank']:.2f} |")
        text.append("")
    text += ["## All students: difference to the first channels", ""]
    text += ["| channels | re-calibrated | 2 epochs | 8 epochs |", "|---|---|---|---|"]
    for choice, line in pooled.items():
        cells = [_gain(line, column) for column in ("calibrated", "short", "long")]
        text.append(f"| {choice} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _gain(line: Row, column: str) -> str:
    return f"{line[f'{column}_gain']:+.3f} ± {line[f'{column}_se']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder of parquet files; without it, digits")
    parser.add_argument("--images", type=int, default=4000, help="of the folder, for training")
    parser.add_argument("--students", type=int, default=8, help="for each teacher and budget")
    parser.add_argument("--out", type=Path, help="a folder for inheritance.json and inheritance.md")
    options = parser.parse_args()

    torch.set_num_threads(1)
    start = time.process_time()
    problems = {"digits, ResNet-14": digits_problem}
    if options.data:
        problems[f"{options.data.name}, VGG"] = lambda: folder_problem(options.data, options.images)
    rows: list[Row] = []
    for name, make in problems.items():
        for row in measure(name, make(), options.students):
            rows.append(row)
            shown = " ".join(f"{key} {row[key]:.3f}" for key in COLUMNS)
            print(f"{name} {row['budget']:.0%} #{row['student']} {row['choice']:8} {shown}")
    lines = summarise(rows)
    choices = dict.fromkeys(row["choice"] for row in rows)
    pooled = {choice: differences(rows, choice) for choice in choices}
    accuracies = {row["teacher"]: row["teacher_accuracy"] for row in rows}
    notes = [
        f"{options.students} random students each; teachers: "
        + "; ".join(f"{name} {value:.3f}" for name, value in accuracies.items())
        + f". {platform.machine()}, one thread, torch {torch.__version__}, {time.process_time() - start:.0f} CPU s.",
        "",
        "Validation accuracies; differences are paired by student (mean ± standard error); rank: Spearman's correlation of the "
        "cross-entropy after 2 epochs with the accuracy after 8.",
    ]
    text = table(lines, pooled, notes)
    print(text)
    if options.out:
        (options.out / "inheritance.md").write_text(text, encoding="utf-8")
        content = {"pooled": pooled, "summary": lines, "rows": rows}
        (options.out / "inheritance.json").write_text(
            json.dumps(content, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
