"""The table, the tests of significance, the verdicts and the figures, made anew from all cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.peer_methods.cells import OURS, PEERS, Row

LEVEL = 0.05
"""Of significance, after the correction."""
ROUNDING = 1e-9

FAIRNESS = """\
All peers have the same trained teacher, split of the data, views and cached teacher logits, the same recipe (a short training, then the full
one from its weights) and the same limit on all parameters, BatchNorm's included. Every student is counted by our tracer, not by the peer.
The seed varies search and training; teacher and split are fixed for a problem, so that cells of one seed are pairs. CPU seconds are those of all
processes, and include the teacher's logits, our Ray's start and a peer's own interpreter; they leave out the teacher's training.

| peer | as it is used here |
|---|---|
| raysearch | `raysearch.compress` with the default configuration, without its own baselines; the best of its finalists by validation. `raysearch-METHOD`: the same with another method |
| uniform | our uniformly scaled student, with the teacher's channels that our runs inherit; short and full training |
| torch-pruning-l2 | group L2 norms, one global ranking; its pruner class, progressively as in its authors' scripts, until our count fits; steps that shrink with the network, and a last one that ends when it fits, use the budget better than equal ones |
| torch-pruning-taylor | the same with first-order Taylor importance from a fresh batch of 128 before each step, and isomorphic rankings |
| modelopt-fastnas | `mtp.prune` as in its guide, scored by validation accuracy, in its own interpreter; channel divisor 1 instead of 32 (these teachers are narrow); its limit, which leaves BatchNorm out, is searched until the real count fits |
| modelopt-fastnas-conv | the same on an equal network whose classifier is a 1x1 convolution: otherwise it freezes the last stage's channels |
| optuna-tpe | TPE over a width and a depth for each stage, the budget as its constraint; students over it are rejected before training and not counted; as many trials and full trainings as ours, slices of the teacher's weights, the same signal (cross-entropy); the uniform network is enqueued first |
| ...-long | the same student, its full training stretched to the CPU seconds of our run (planned by the fastest epoch of its short training, so rather more than less) |
"""


def write_summary(rows: Sequence[Row], folder: Path, head: Sequence[str]) -> str:
    """Writes peers.md, peers.csv and a figure for each problem; returns the text of peers.md.

    Args:
        head: lines under the title: command, machine, versions.
    """
    table = pd.DataFrame(rows).sort_values(["problem", "budget", "peer", "seed"])
    text = ["# Our answer beside what people use today", "", *head, ""]
    for problem, cells in table.groupby("problem", sort=False):
        text += _section(str(problem), cells, folder)
    text += ["## Fairness", "", FAIRNESS]
    folder.mkdir(parents=True, exist_ok=True)
    flat = table.drop(columns=["effort", "teacher"])
    flat.to_csv(folder / "peers.csv", index=False)
    (folder / "peers.md").write_text("\n".join(text), encoding="utf-8")
    return "\n".join(text)


def _section(problem: str, cells: pd.DataFrame, folder: Path) -> list[str]:
    teacher = cells["teacher"].iloc[0]
    draw(problem, cells, folder / f"peers-{problem}.png")
    text = [f"## {problem}", ""]
    text += [
        f"Teacher: {teacher['num_params']:,} parameters, {teacher['accuracy']:.4f} on validation. ![accuracies](peers-{problem}.png)",
        "",
    ]
    for budget, here in cells.groupby("budget"):
        lines = compare(here)
        text += [f"### {budget:.0%} of the parameters ({here['limit'].iloc[0]:,})", ""]
        text += [_verdict(lines), ""]
        text += [
            "| peer | seeds | test | validation | parameters | MACs | budget held | trials | CPU s | ours - peer, test | p (Holm) |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        text += [_line(line) for line in lines]
        text.append("")
    return text + _all_budgets(cells)


def _all_budgets(cells: pd.DataFrame) -> list[str]:
    """Differences over all budgets together: more pairs, so that smaller differences show."""
    if cells["budget"].nunique() < 2:
        return []
    lines = [line for line in compare(cells) if "gain" in line]
    text = ["### All budgets together", "", "| peer | pairs | ours - peer, test | p (Holm) |"]
    text.append("|---|---|---|---|")
    for line in lines:
        gain = _shown(line["gain"], sign="+")
        text.append(f"| {line['peer']} | {line['pairs']} | {gain} | {line['p']:.3f} |")
    return [*text, ""]


def compare(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """One line a peer of one problem, in the order of `PEERS`; differences are paired by budget and seed.

    p-values are those of paired t-tests, corrected by Holm over the peers of these cells.
    """
    lines = []
    own = _accuracies(cells, OURS)
    for peer in [name for name in PEERS if name in set(cells["peer"])]:
        of_peer = cells[cells["peer"] == peer]
        solved = of_peer[of_peer["status"] == "ok"]
        line: dict[str, Any] = {"peer": peer, "seeds": len(of_peer), "solved": len(solved)}
        line["notes"] = of_peer["notes"].iloc[0]
        line["cpu_seconds"] = of_peer["cpu_seconds"].mean()
        if len(solved):
            line |= {key: _mean(solved[key]) for key in ("test_accuracy", "accuracy")}
            line |= {key: solved[key].mean() for key in ("num_params", "macs", "trials")}
            line["held"] = bool(solved["within_budget"].all())
        theirs = _accuracies(cells, peer)
        pairs = sorted(set(own) & set(theirs))
        if peer != OURS and pairs:
            gains = [own[pair] - theirs[pair] for pair in pairs]
            line |= {"gain": _mean(gains), "p": paired_p(gains), "pairs": len(gains)}
        lines.append(line)
    tested = [line for line in lines if "p" in line]
    for line, p in zip(tested, holm([line["p"] for line in tested]), strict=True):
        line["p"] = p
    return lines


def paired_p(gains: Sequence[float]) -> float:
    """Two-sided p of a paired t-test; 1 where there is nothing to test.

    That is so with one pair, and with the same difference in all pairs (few test images make it likely), of which t would be infinite.
    """
    if len(gains) < 2 or np.ptp(gains) < ROUNDING:
        return 1.0
    return float(stats.ttest_1samp(gains, 0.0)[1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979)."""
    order = np.argsort(p_values)
    corrected, highest = np.ones(len(p_values)), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = highest
    return corrected.tolist()


def draw(problem: str, cells: pd.DataFrame, path: Path) -> None:
    """Test accuracy against the budget, a line a peer with standard errors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    shown = [name for name in PEERS if name in set(cells["peer"])]
    for number, peer in enumerate(shown):
        solved = cells[(cells["peer"] == peer) & (cells["status"] == "ok")]
        points = [
            (budget, *_mean(here["test_accuracy"])) for budget, here in solved.groupby("budget")
        ]
        if points:
            budgets, means, errors = (
                np.array(column, float) for column in zip(*points, strict=True)
            )
            width = 2.5 if peer == OURS else 1.0
            errors = np.nan_to_num(errors)
            axes.errorbar(
                budgets * 100 * 1.01 ** (number - len(shown) / 2),  # side by side
                means,
                errors,
                label=peer,
                linewidth=width,
                marker="os^vDPX"[number % 7],
                linestyle="--" if peer.endswith("-long") else "-",
                color=plt.get_cmap("tab20")(number % 20),
            )
    axes.set(
        xscale="log", xlabel="% of the teacher's parameters", ylabel="test accuracy", title=problem
    )
    ticks = sorted(100 * budget for budget in set(cells["budget"]))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    figure.legend(fontsize="small", loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _accuracies(cells: pd.DataFrame, peer: str) -> dict[tuple[float, int], float]:
    """Test accuracies by budget and seed."""
    solved = cells[(cells["peer"] == peer) & (cells["status"] == "ok")]
    keys = zip(solved["budget"], solved["seed"], strict=True)
    return dict(zip(keys, solved["test_accuracy"], strict=True))


def _mean(values: Any) -> tuple[float, float]:
    """(mean, standard error); the error of one value is not a number."""
    array = np.asarray(values, float)
    error = array.std(ddof=1) / len(array) ** 0.5 if len(array) > 1 else float("nan")
    return float(array.mean()), float(error)


def _line(line: Mapping[str, Any]) -> str:
    seeds = f"{line['solved']} of {line['seeds']}"
    if not line["solved"]:
        cpu = f"{line['cpu_seconds']:.0f}"
        cells = [line["peer"], seeds, f"no solution: {line['notes']}", *[""] * 5, cpu, "", ""]
        return "| " + " | ".join(cells) + " |"
    gain = _shown(line["gain"], sign="+") if "gain" in line else ""
    p = f"{line['p']:.3f}" if "p" in line else ""
    cells = [
        line["peer"],
        seeds,
        _shown(line["test_accuracy"]),
        _shown(line["accuracy"]),
        f"{line['num_params']:,.0f}",
        f"{line['macs']:,.0f}",
        "yes" if line["held"] else "**no**",
        f"{line['trials']:.0f}",
        f"{line['cpu_seconds']:.0f}",
        gain,
        p,
    ]
    return "| " + " | ".join(cells) + " |"


def _shown(value: tuple[float, float], sign: str = "") -> str:
    mean, error = value
    return f"{mean:{sign}.4f}" + (f" ± {error:.4f}" if np.isfinite(error) else "")


def _verdict(lines: Sequence[Mapping[str, Any]]) -> str:
    """One sentence that claims no more than the tests show."""
    others = [line for line in lines if "gain" in line]
    if not others:
        return "Verdict: nothing to compare yet."
    own = next(line for line in lines if line["peer"] == OURS)
    best = max(others, key=lambda line: line["test_accuracy"][0])
    clear = [line for line in others if line["p"] < LEVEL]
    parts = (
        ("significantly better than", [one["peer"] for one in clear if one["gain"][0] > 0]),
        ("significantly worse than", [one["peer"] for one in clear if one["gain"][0] < 0]),
        (
            f"not told apart by {own['solved']} seed{'s' * (own['solved'] != 1)} from",
            [one["peer"] for one in others if one["p"] >= LEVEL],
        ),
    )
    found = [f"{words} {', '.join(names)}" for words, names in parts if names]
    text = f"Verdict: ours {_shown(own['test_accuracy'])}, the best other ({best['peer']}) {_shown(best['test_accuracy'])}; "
    text += f"ours is {'; '.join(found)}."
    without = [line["peer"] for line in lines if not line["solved"]]
    return text + (f" No student within the budget: {', '.join(without)}." if without else "")
