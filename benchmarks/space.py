"""What candidates cost before anything is trained: sampling, encoding and counting thousands of them.

    OMP_NUM_THREADS=1 python benchmarks/space.py                     # all teachers
    OMP_NUM_THREADS=1 python benchmarks/space.py --teachers resnet34 densenet121 --candidates 2000

Times are CPU seconds of the process, all threads together, best of several. Every teacher's counts and encodings are compared with those of the
students that `SearchSpace.apply` makes. Aims (for 8,000 candidates of a ResNet-34): sampled, encoded in the compact form and counted
(parameters and MACs) within 0.5 s; within 2 s with repair to a budget; encoded densely, in chunks, within 1 s.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from raysearch.architecture import Architecture, SearchSpace
from raysearch.architecture.encoding import encode_architecture
from raysearch.architecture.view import view
from raysearch.errors import TraceError
from raysearch.models import load_teacher, trace

ESNAC = "resnet34 (CIFAR, ESNAC)"
TEACHERS = (
    ESNAC,
    *("resnet18", "resnet34", "vgg19_bn", "resnet50", "mobilenet_v2", "googlenet"),
    *("shufflenet_v2_x0_5", "efficientnet_b0", "inception_v3", "densenet121", "densenet201"),
)
RESULTS = Path(__file__).parent / "results" / "space"
COLUMNS = {
    "teacher": "teacher",
    "layers": "L",
    "edges": "edges",
    "groups": "groups",
    "skip_pairs": "skip pairs",
    "edits": "edits",
    "trace_s": "trace",
    "sample_s": "sample",
    "compact_s": "compact",
    "count_s": "params + MACs",
    "per_candidate_us": "the three, us each",
    "repair_s": "sample + repair",
    "dense_s": "dense",
}
CHUNK_BYTES = 2**25


def teacher_architecture(name: str) -> Architecture:
    """Builds and traces a teacher, with random weights."""
    if name == ESNAC:
        shape = (3, 32, 32)
        return trace(load_teacher("resnet34", num_classes=100, input_shape=shape), shape)
    size = 75 if name == "inception_v3" else 64
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torchvision.models.get_model(name, weights=None, **options)
    return trace(module, (3, size, size))


def best_s(run: Callable[[], object], repeats: int) -> float:
    """The least CPU seconds of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def check(space: SearchSpace) -> None:
    """The fast numbers of some candidates against those of their networks."""
    batch = space.sample(8, seed=1)
    compact, params, macs = space.encode_compact(batch), space.num_params(batch), space.macs(batch)
    students = [space.apply(edits) for edits in batch]
    assert [student.num_params for student in students] == params.tolist()
    assert [student.macs for student in students] == macs.tolist()
    assert np.array_equal(compact.dense(), space.encode(batch))
    for student, dense in zip(students, compact.dense(types=compact.vocabulary), strict=True):
        assert np.array_equal(encode_architecture(student, types=compact.vocabulary), dense)


def measure(name: str, num: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    start = time.process_time()
    teacher = teacher_architecture(name)
    trace_s = time.process_time() - start
    options: dict[str, Any] = {"grouping": "by_size", "divisor": 1} if name == ESNAC else {}
    space = SearchSpace(teacher, **options)
    limited = SearchSpace(teacher, budget={"params": 0.1}, **options)
    check(space)
    batch = space.sample(num, seed=0)
    sizes = [group.size for group in space.groups]
    edits = batch.remove.sum() + (batch.widths != sizes).sum() + len(batch.skip_rows)
    compact = space.encode_compact(batch)
    seconds = {
        "sample_s": best_s(lambda: space.sample(num, seed=0), repeats),
        "compact_s": best_s(lambda: space.encode_compact(batch), repeats),
        "count_s": best_s(lambda: (space.num_params(batch), space.macs(batch)), repeats),
    }
    repair_s = best_s(lambda: limited.sample(num, seed=0), 1)
    chunk = max(1, CHUNK_BYTES // compact[:1].dense().nbytes)
    dense_s = best_s(
        lambda: [compact[k : k + chunk].dense().shape for k in range(0, num, chunk)], 2
    )
    return {
        "teacher": name,
        "layers": len(view(teacher).listed),
        "edges": len(compact.edges),
        "groups": len(space.groups),
        "skip_pairs": len(space.skip_pairs),
        "edits": round(edits / num, 1),
        "trace_s": round(trace_s, 2),
        **{key: round(value, 4) for key, value in seconds.items()},
        "per_candidate_us": round(sum(seconds.values()) / num * 1e6, 2),
        "repair_s": round(repair_s, 3),
        "dense_s": round(dense_s, 3),
    }


def growth(rows: list[dict[str, Any]], *counted: str) -> dict[str, float]:
    """How the cost of a candidate grows with what is counted: exponent of a power law, and line through all teachers."""
    size = np.array([sum(row[name] for name in counted) for row in rows])
    cost = np.array([row["per_candidate_us"] for row in rows])
    exponent, _ = np.polyfit(np.log(size), np.log(cost), 1)
    slope, constant = np.polyfit(size, cost, 1)
    rest = cost - (constant + slope * size)
    return {
        "exponent": round(float(exponent), 3),
        "slope_us": round(float(slope), 4),
        "constant_us": round(float(constant), 3),
        "r2": round(float(1 - rest.var() / cost.var()), 4),
        "least_us": round(float((cost / size).min()), 4),
        "most_us": round(float((cost / size).max()), 4),
    }


def markdown(figures: dict[str, Any]) -> str:
    """The table as text."""
    lines = [
        "# What candidates cost before anything is trained",
        "",
        f"Machine: {figures['machine']}; Python {figures['python']}, numpy {figures['numpy']}, torch {figures['torch']}.",
        "Command: `OMP_NUM_THREADS=1 python benchmarks/space.py`. "
        f"CPU seconds for {figures['candidates']:,} candidates, best of {figures['repeats']}.",
        "Repair is to a tenth of the teacher's parameters (one run); the dense form is float32, n = max(128, L), "
        f"written from the compact one in chunks of {CHUNK_BYTES >> 20} MiB.",
        "",
        f"| {' | '.join(COLUMNS.values())} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    lines += [f"| {' | '.join(str(row[key]) for key in COLUMNS)} |" for row in figures["rows"]]
    lines += [f"\nRefused: {name}: {why}" for name, why in figures["refused"].items()]
    for name, fit in figures["growth"].items():
        lines += [
            "",
            f"Cost of a candidate (the three) against its {name}: exponent {fit['exponent']} of a power law; the line "
            f"{fit['constant_us']} + {fit['slope_us']} us for each (R^2 {fit['r2']}); on single teachers between "
            f"{fit['least_us']} and {fit['most_us']} us for each.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teachers", nargs="+", default=list(TEACHERS))
    parser.add_argument("--candidates", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="path of the .json and .md")
    options = parser.parse_args()

    torch.set_num_threads(1)
    rows, refused = [], {}
    for name in options.teachers:
        try:
            rows.append(measure(name, options.candidates, options.repeats))
            print(json.dumps(rows[-1]), flush=True)
        except TraceError as error:
            refused[name] = str(error)
            print(name, error, flush=True)
    figures = {
        "machine": f"{platform.machine()}, one core",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "candidates": options.candidates,
        "repeats": options.repeats,
        "rows": rows,
        "refused": refused,
        "growth": {
            "layers + edits": growth(rows, "layers", "edits"),
            "layers + edges + edits": growth(rows, "layers", "edges", "edits"),
        }
        if len(rows) > 2
        else {},
    }
    options.out.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    options.out.with_suffix(".md").write_text(markdown(figures), "utf-8")


if __name__ == "__main__":
    main()
