"""The command line: a thin layer over `raysearch.api`.

Exit status: 0 done, 1 a run that failed, 2 bad input (one sentence on stderr), 130 interrupted and 143 after SIGTERM (both resumable).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysearch.errors import InputError, RaysearchError, RunInterrupted

if TYPE_CHECKING:
    from raysearch.config import Config

app = typer.Typer(
    name="raysearch",
    help="Search for a small student that keeps a trained teacher's accuracy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Configuration overrides.")
]


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turns our errors into one sentence and an exit status."""
    try:
        yield
    except RunInterrupted as error:
        _fail(str(error), error.status)
    except KeyboardInterrupt as error:
        _fail("interrupted before the run began", getattr(error, "status", 130))
    except InputError as error:
        _fail(str(error), 2)
    except RaysearchError as error:
        _fail(str(error), 1)


def _fail(message: str, status: int) -> None:
    typer.echo(f"raysearch: {message}", err=True)
    raise typer.Exit(status)


def _version(asked: bool) -> None:
    if asked:
        from raysearch.version import __version__

        typer.echo(f"raysearch {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Search for a small student that keeps a trained teacher's accuracy."""


@app.command()
def run(
    config: Annotated[
        str | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="None: the digits example."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run a configuration: teacher, search, full training, report."""
    with _exit_codes():
        from raysearch.api import run as run_config

        _show(run_config(_configured(config, overrides)).path)


@app.command()
def inspect(
    config: Annotated[
        str | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="None: the digits example."),
    ] = None,
    overrides: Overrides = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of tables.")
    ] = False,
) -> None:
    """Show layers, channel groups, students and their costs, before any compute is spent."""
    with _exit_codes():
        from raysearch.api import inspect as inspect_config
        from raysearch.errors import BudgetError

        found = inspect_config(_configured(config, overrides))
        if json:
            from json import dumps

            typer.echo(dumps(found.to_dict(), indent=2, allow_nan=False))
        else:
            from rich.console import Console

            from raysearch.inspection_view import inspection_view

            # a file or a pipe has no width of its own, and nothing need be folded there
            Console(width=None if sys.stdout.isatty() else 160).print(inspection_view(found))
        if found.problem:
            raise BudgetError(found.problem)


@app.command()
def resume(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    overrides: Overrides = None,
) -> None:
    """Continue a run that was cut, or extend a finished one (search.trials=64)."""
    with _exit_codes():
        from raysearch.api import resume as resume_run

        _show(resume_run(folder, overrides or []).path)


@app.command()
def report(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
) -> None:
    """Write report.html and results.csv anew, also for a run that is not finished; of a comparison its page and tables."""
    with _exit_codes():
        from raysearch.comparing.manifest import MANIFEST
        from raysearch.report import write_report, write_results_table

        if (Path(folder) / MANIFEST).is_file():
            from raysearch.comparison import report as write_comparison

            typer.echo(write_comparison(folder).path / "compare.html")
            return
        write_results_table(Path(folder))
        typer.echo(write_report(Path(folder)))


@app.command()
def compare(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG.yaml]", help="None: the digits example, or the table's own."
        ),
    ] = None,
    overrides: Overrides = None,
    methods: Annotated[
        str, typer.Option(help="Names or package.module:Class, joined by commas.")
    ] = "",
    seeds: Annotated[str, typer.Option(help="How many, or which ones: 3,5,7.")] = "3",
    equal: Annotated[
        str, typer.Option(help="What is equal for all searches: trials, epochs or seconds.")
    ] = "trials",
    metric: Annotated[
        str,
        typer.Option(
            help="What the verdict is about: auto, value, reward, accuracy, loss, test_accuracy or test_loss."
        ),
    ] = "auto",
    table: Annotated[
        str | None,
        typer.Option(help="A table of trained students to replay; nothing is trained."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the folder; one that exists is continued.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Where the folder goes.", show_default="run.storage")
    ] = None,
) -> None:
    """Compare search methods: the same budget for all, several seeds, and what can be told apart."""
    with _exit_codes():
        from raysearch.comparison import compare as compare_methods

        file, given = _split(config, overrides)
        done = compare_methods(
            file,
            methods,
            seeds,
            equal=equal,
            metric=metric,
            table=table,
            name=name,
            storage=storage,
            overrides=given,
        )
        _show_comparison(done.path, metric)


@app.command()
def export(
    folder: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a run, or of a student.")
    ],
    format: Annotated[str, typer.Option(help="onnx, torch or source.", show_default=False)] = "",
    student: Annotated[str, typer.Option(help="best, or a number such as 002.")] = "best",
    output: Annotated[
        str | None,
        typer.Option(help="The file, or for source the folder.", show_default="RUN/export"),
    ] = None,
) -> None:
    """Write a finished student for other programs: ONNX, a torch.export program, or Python source."""
    with _exit_codes():
        from raysearch.api import export as export_student
        from raysearch.formatting import file_size

        done = export_student(folder, format, output, student=student)
        typer.echo(f"written: {done.path} ({file_size(done.size_bytes)})")
        typer.echo(
            f"checked: the trained student's logits, to {done.difference:.1g} of their scale"
        )
        typer.echo(f"input: {done.takes}")
        typer.echo(f"load: {done.load}")


@app.command()
def plot(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    kind: Annotated[
        str,
        typer.Option(
            help="filters (of encoder and decoder) or losses (of every refit).", show_default=False
        ),
    ] = "",
    output: Annotated[
        str | None,
        typer.Option(help="A .png, .svg or .pdf file.", show_default="RUN/embedding/KIND.png"),
    ] = None,
) -> None:
    """Draw what an embedding_gradient search has learned."""
    with _exit_codes():
        from raysearch.report.plots import plot as draw

        typer.echo(f"written: {draw(folder, kind, output)}")


@app.command()
def methods(
    method: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD]", help="Its options: name or package.module:Class."),
    ] = None,
) -> None:
    """List the search methods, and where they come from; or the options of one (search.options)."""
    from searchers.registry import METHODS

    if method is not None:
        with _exit_codes():
            _show_options(method)
        return
    rows = [(name, one.summary, one.paper) for name, one in METHODS.items()]
    rows += [("package.module:Class", "your own (see searchers.algorithm.Algorithm)", "")]
    _show_table(("method", "what it does", "source"), rows)


def _show_options(method: str) -> None:
    """The options of a method, their defaults and meanings."""
    from searchers.manual import options_of

    options = options_of(method)
    if not options:
        typer.echo(f"{method} has no options")
        return
    rows = [(one.name, _default(one.default), one.text) for one in options]
    _show_table(("search.options", "default", "meaning"), rows)


def _default(value: object) -> str:
    """As a configuration spells it."""
    import inspect
    import json

    if value is inspect.Parameter.empty:
        return "none: must be given"
    return json.dumps(value, default=str)


def _show_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for title in titles:
        table.add_column(title)
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console().print(table)


def _configured(config: str | None, overrides: list[str] | None) -> Config:
    """The configuration of a file and overrides, of which the first may stand in the file's place."""
    from raysearch.config import load_config

    return load_config(*_split(config, overrides))


def _split(config: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """The file, if there is one, and the overrides."""
    given = list(overrides or [])
    if config is not None and "=" in config and not Path(config).exists():
        return None, [config, *given]
    return config, given


def _show(folder: Path) -> None:
    """The end of a run on the terminal: a small table, the verdict, and where the report is."""
    from rich.console import Console

    from raysearch.api import Result
    from raysearch.report import terminal_table

    console = Console()
    console.print(terminal_table(folder))
    summary = Result.read(folder).summary
    console.print(summary["verdict"], highlight=False)
    if summary.get("budget_use"):
        console.print(summary["budget_use"], highlight=False)
    for note in summary["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"student: {folder / 'best'}", highlight=False, soft_wrap=True)


def _show_comparison(folder: Path, metric: str) -> None:
    """The end of a comparison on the terminal: ranks and scores, the verdict, and where the page is."""
    from rich.console import Console

    from raysearch.comparing.results import read_results
    from raysearch.comparing.terminal import terminal_table

    contents = read_results(folder, metric)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(terminal_table(contents))
    console.print(contents.main.verdict, highlight=False)
    console.print(f"page: {folder / 'compare.html'}", highlight=False, soft_wrap=True)


def main() -> None:
    """The entry point."""
    # before torch is imported: threads that spin while they wait starve the trials beside them
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # gpytorch's dependencies still script functions, and PyTorch says so on every import
    warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
    sys.exit(app())
