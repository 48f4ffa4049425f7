"""Where the time of a run goes: the share of training, and what the rest is.

    python -m benchmarks.share                              # the default run
    python -m benchmarks.share --long                       # trained for about ten minutes: less than 10 % may be anything else
    python -m benchmarks.share search.trials=8 --out share.json

Each run is a process of its own, as a user starts it. Training is the teacher's, and the trials' steps (one epoch and its validation
each) divided by the number of trials at once; a slot that has nothing left to do is not training.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LONG = ("distill.epochs=72", "finish.epochs=360")
"""Trains the default run's students long enough for about ten minutes on two cores."""


def timed_run(overrides: list[str]) -> tuple[dict[str, Any], float]:
    """(summary.json, seconds from the start of the process to its end) of one run."""
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, "-m", "raysearch", "run", f"run.storage={storage}", "run.name=s"]
        start = time.perf_counter()
        subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - start
        return json.loads((Path(storage) / "s" / "summary.json").read_text("utf-8")), wall_s


def breakdown(summary: dict[str, Any], wall_s: float) -> dict[str, float]:
    """Seconds by part; they add up to the wall time."""
    phases = dict(summary["seconds"])
    total, trials_s = phases.pop("total"), phases.pop("trials")
    teacher_s = phases["teacher"] if summary["teacher"]["weights"] == "trained" else 0.0
    steps_s = summary["training_s"] - teacher_s
    return {
        "start of the process, first imports": wall_s - total,
        **phases,
        "trials: training": steps_s,
        "trials: start of workers, Tune's loop, idle slots": trials_s - steps_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--long", action="store_true", help="train six times longer")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("overrides", nargs="*", help="configuration overrides")
    options = parser.parse_args()

    overrides = [*(LONG if options.long else ()), *options.overrides]
    load_before = os.getloadavg()[0]
    summary, wall_s = timed_run(overrides)
    parts = breakdown(summary, wall_s)
    share = summary["training_s"] / wall_s
    print("| part | seconds | share |\n|---|---|---|")
    for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"| {name} | {seconds:.1f} | {100 * seconds / wall_s:.1f} % |")
    print(f"| all | {wall_s:.1f} | |")
    print(
        f"training: {100 * share:.1f} % of the wall time; the teacher's weights: {summary['teacher']['weights']}"
    )
    figures = {
        "command": ["raysearch", "run", *overrides],
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "load_before": round(load_before, 1),
        "wall_s": round(wall_s, 1),
        "training_share": round(share, 3),
        "seconds": {name: round(seconds, 2) for name, seconds in parts.items()},
        "versions": summary["versions"],
    }
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
