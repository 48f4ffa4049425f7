"""The peak memory of a run: driver, Ray's processes and workers together.

    python benchmarks/memory.py                 # the default run
    python benchmarks/memory.py search.trials=8

Proportional set sizes are summed over the process tree once a second (shared pages, such as the object store's, count once).
Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def children() -> dict[int, list[int]]:
    """The processes of the machine by their parent."""
    tree: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it has ended
            continue
        parent = int(text.rpartition(")")[2].split()[1])
        tree.setdefault(parent, []).append(int(stat.parent.name))
    return tree


def descendants(root: int) -> list[int]:
    """A process and all that come from it."""
    tree, found, todo = children(), [], [root]
    while todo:
        process = todo.pop()
        found.append(process)
        todo += tree.get(process, [])
    return found


def memory(process: int) -> tuple[str, int]:
    """(name, proportional set size in bytes) of a process."""
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return "", 0
    return name, next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, "-m", "raysearch", "run", f"run.storage={storage}", "run.name=m"]
        run = subprocess.Popen([*command, *sys.argv[1:]], stdout=subprocess.DEVNULL)
        peak, parts = 0, {}
        while run.poll() is None:
            found = [memory(process) for process in descendants(run.pid)]
            total = sum(size for _, size in found)
            if total > peak:
                peak, parts = total, {}
                for name, size in found:
                    parts[name] = parts.get(name, 0) + size
            time.sleep(1)
        summary = json.loads((Path(storage) / "m" / "summary.json").read_text())
    print(f"{'peak of all processes':32} {peak / 2**20:8.0f} MiB")
    for name, size in sorted(parts.items(), key=lambda part: -part[1])[:8]:
        print(f"  {name:30} {size / 2**20:8.0f} MiB")
    print(f"{'actor starts':32} {summary['actor_starts']:8}")
    print(f"{'wall time':32} {summary['seconds']['total']:8.0f} s")


if __name__ == "__main__":
    main()
