"""The verdict of a run in one sentence: what the search gained over the teacher scaled to the budget.

Selection never looks at the test part; the verdict only reports it. Two test accuracies of n images each have a difference with
the standard error sqrt(p(1 - p) / n + q(1 - q) / n) (binomial, the two taken as independent, which errs on the careful side because
both networks see the same images). A difference within two of them is noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from raysearch.formatting import count, percent

SIZE_TOLERANCE = (
    0.1  # sizes closer than this share are one size: students fill 90 % of a budget at least
)
NAMES = {
    "uniform": "the uniformly scaled teacher",
    "random": "random search",
    "prune": "torch-pruning",
}


def standard_error(first: float, second: float, num_test: int) -> float:
    """The standard error of the difference between two accuracies in [0, 1] on `num_test` images each."""
    variance = first * (1 - first) + second * (1 - second)
    return math.sqrt(variance / num_test)


def verdict(
    best: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], num_test: int | None
) -> str:
    """Says whether the search paid.

    Args:
        best: the chosen student's `test_accuracy` (in [0, 1]) and `num_params`, and, where known, its `origin` and
            `architecture_id`, which tell whether it is a baseline's network itself.
        baselines: the same by name; "uniform" is compared with, "random" where there is no uniform one.
        num_test: test images; None or 0 if not known, and then nothing is called noise.

    Returns:
        One sentence.
    """
    tested = {
        name: row
        for name, row in baselines.items()
        if row.get("test_accuracy") is not None and row.get("num_params") is not None
    }
    if best.get("test_accuracy") is None or best.get("num_params") is None:
        return "Nothing can be said about the gain of the search, because its student was not evaluated on the test part."
    rival = next((name for name in ("uniform", "random", *sorted(tested)) if name in tested), None)
    if rival is None:
        return (
            "What the search gained is not known, because no baseline was trained beside it: "
            f"its student reaches {_figures(best)}."
        )
    also = ""
    if rival == "uniform" and "random" in tested:
        also = f"; random search reached {_figures(tested['random'])}"
    return f"{_compare(best, rival, tested[rival], num_test)}{also}."


def _compare(
    best: Mapping[str, Any], name: str, rival: Mapping[str, Any], num_test: int | None
) -> str:
    """The sentence about one baseline, without its full stop."""
    label = NAMES.get(name, f"the baseline {name}")
    if _same_network(best, name, rival):
        return f"The search did not pay: the best student is the one of {label} ({_figures(best)})"
    gain = best["test_accuracy"] - rival["test_accuracy"]
    noise = (
        2 * standard_error(best["test_accuracy"], rival["test_accuracy"], num_test)
        if num_test
        else 0.0
    )
    clear = abs(gain) > noise + 1e-12  # rounding must not turn a tie into a gain
    change = best["num_params"] / max(1, rival["num_params"]) - 1
    side = 0 if abs(change) < SIZE_TOLERANCE else int(math.copysign(1, change))
    figures = f"{_figures(best)} against {_figures(rival)} for {label}"
    return f"{_judgement(int(math.copysign(1, gain)) if clear else 0, side, abs(change))}: {figures}, {_difference(gain, noise, clear, num_test)}"


def _judgement(gain: int, side: int, change: float) -> str:
    """The judgement by the sign of the gain (0: noise) and of the change of size (0: the same size)."""
    share = f"{100 * change:.0f} %"
    if gain > 0:
        return (
            f"The search traded size for accuracy, with {share} more parameters"
            if side > 0
            else "The search paid"
        )
    if gain == 0:
        if side < 0:
            return f"The search paid in size, with {share} fewer parameters at an equal accuracy"
        return "The search did not pay measurably"
    return (
        f"The search traded accuracy for size, with {share} fewer parameters"
        if side < 0
        else "The search did not pay"
    )


def _difference(gain: float, noise: float, clear: bool, num_test: int | None) -> str:
    points = f"{100 * gain:+.1f} points"
    if not num_test:
        return f"{points} (noise is not judged, because the number of test images is not known)"
    place = "beyond" if clear else "within"
    return f"{points}, {place} the noise of {num_test:,} test images (±{100 * noise:.1f})"


def _figures(row: Mapping[str, Any]) -> str:
    return (
        f"{percent(row['test_accuracy'])} on test with {count(int(row['num_params']))} parameters"
    )


def _same_network(best: Mapping[str, Any], name: str, rival: Mapping[str, Any]) -> bool:
    identity = best.get("architecture_id")
    return best.get("origin") == name or (
        identity is not None and identity == rival.get("architecture_id")
    )
