"""What the networks of `embedding_gradient` know of students that they have not seen: rank correlations on really trained ones.

    python -m benchmarks.embedding_ranks                                # both complete tables; minutes
    python -m benchmarks.embedding_ranks --tables digits_resnet14 --budgets 0.05 --set fit_steps=100

Only rows of the tables, never their surrogates. Five-fold cross-validation: f_a against the measured value (exp(-loss) within a budget, else the
accuracy), f_p against the parameters; and f_p on 200 architectures that no network has seen, of sizes from half the budget to twice it
(within a budget all students have almost one size, and there is little to rank).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.tabular import TABLES
from raysearch.architecture import SearchSpace
from raysearch.tables import Table
from raysearch.threads import torch_threads
from searchers.embedding_gradient.algorithm import EmbeddingGradientAlgorithm
from searchers.embedding_gradient.domain import make_domain
from searchers.embedding_gradient.fitting import FOLDS, Fitter, Learned
from searchers.embedding_gradient.options import StepOptions

COMPLETE = ("digits_resnet14", "fashion_vgg11")
NUM_UNSEEN = 200


def rho(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Spearman's correlation; NaN of fewer than three."""
    return float(np.asarray(spearmanr(a, b))[0]) if len(a) > 2 else float("nan")


def trained(table: Table, budget: float | None) -> tuple[list[str], np.ndarray]:
    """The students of a budget, and their mean values over seeds."""
    found: dict[str, tuple[str, list[float]]] = {}
    for row in table.records:
        if row["budget"] == budget:
            value = row["accuracy"][-1] if budget is None else np.exp(-row["loss"][-1])
            found.setdefault(row["architecture_id"], (row["architecture"], []))[1].append(value)
    texts = [text for text, _ in found.values()]
    return texts, np.array([np.mean(values) for _, values in found.values()])


def line(table: Table, budget: float | None, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """The correlations of one budget's students."""
    space = table.space(None if budget is None else {"params": budget})
    texts, values = trained(table, budget)
    algorithm = EmbeddingGradientAlgorithm(space, seed=seed, **options)
    return {"budget": budget, "students": len(texts)} | correlations(
        space, algorithm.step_options, texts, values, seed
    )


def correlations(
    space: SearchSpace, options: StepOptions, texts: list[str], values: np.ndarray, seed: int
) -> dict[str, float]:
    """f_a, f_p and f_p on unseen architectures of other sizes; all by models that have not seen what they are asked."""
    domain = make_domain(space, options)
    learned = Learned(domain.rows(texts), values, domain.sizes(texts, "params"))
    fitter = Fitter(domain, options)
    rows, sizes = domain.cloud(NUM_UNSEEN, "params", np.random.default_rng([seed, 99]))
    assert sizes is not None, "parameters are exact"
    fold = np.random.default_rng(seed).permutation(len(texts)) % FOLDS
    a_hat, p_hat, p_unseen = np.zeros(len(texts)), np.zeros(len(texts)), []
    with torch_threads(1):
        for part in range(FOLDS):
            out = fold == part
            model = fitter.fit(learned[~out], seed, lambda: False, keep=False)
            Y = model.embed(learned.rows[out])
            a_hat[out] = model.predict(Y)[0]
            p_hat[out] = model.networks.f_p(Y)[0].numpy()
            found = model.networks.f_p(model.embed(rows))[0].numpy()
            p_unseen.append(rho(found, sizes))
    return {
        "f_a": rho(a_hat, values),
        "f_p": rho(p_hat, learned.sizes),
        "f_p, all sizes": float(np.mean(p_unseen)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=list(COMPLETE))
    parser.add_argument(
        "--budgets", nargs="+", type=float, help="default: all of the table's, and none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=NUMBER")
    given = parser.parse_args()
    options = {name: int(value) for name, _, value in (one.partition("=") for one in given.set)}
    print("| table | budget | students | f_a, value | f_p, params | f_p, all sizes |")
    print("|---|---|---|---|---|---|")
    for name in given.tables:
        table = Table.read(TABLES / f"{name}.parquet")
        known = {row["budget"] for row in table.records}
        asked = [one or None for one in given.budgets or ()]
        for budget in asked or sorted(known, key=lambda one: one or 2.0):
            one = line(table, budget, options, given.seed)
            share = "none" if budget is None else format(budget, ".0%")
            numbers = (one[key] for key in ("f_a", "f_p", "f_p, all sizes"))
            cells = " | ".join(f"{number:.2f}" for number in numbers)
            print(f"| {name} | {share} | {one['students']} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
