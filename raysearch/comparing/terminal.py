"""The small table that a comparison ends with on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysearch.comparing.page import Contents, score
from raysearch.comparing.records import METRICS, numbers, only
from raysearch.formatting import MISSING, decimal

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = ("value", "accuracy", "test_accuracy")


def terminal_table(contents: Contents) -> Table:
    """Methods by their mean rank, with their mean scores and costs."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    main = contents.main
    metrics = [name for name in dict.fromkeys((*SHOWN, main.metric)) if name in contents.analyses]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("method", overflow="fold", min_width=7)
    titles = ["mean rank", *(METRICS[name].label for name in metrics)]
    for title in (*titles, "seeds", "trials", "epochs", "CPU s", "proposing s"):
        table.add_column(title, justify="right")
    done = only(contents.cells, "status", "done")
    for method in main.methods:
        rows = only(done, "method", method)
        cells = [decimal(main.ranks.get(method), 2)]
        cells += [score(name, contents.analyses[name].means[method]) for name in metrics]
        cells.append(str(len(rows)))
        for key, digits in (("trials", 0), ("epochs", 0), ("cpu_seconds", 1), ("propose_s", 2)):
            values = numbers(rows, key)
            cells.append(f"{values.mean():,.{digits}f}" if len(values) else MISSING)
        table.add_row(Text(method), *cells)
    return table
