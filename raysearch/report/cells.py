"""Derived cells as drawings (Yang 2019, figures 5-1 and 5-2): what a super-network's switches left, the discarded paths dashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from raysearch.report.markup import Html, element
from raysearch.report.records import Json
from raysearch.report.svg import COLOUR, NUM_METHODS, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_INPUTS = 2
CELLS = {"normal": "The normal cell", "reduction": "The reduction cell"}
SHORT = {
    "identity": "id",
    "sep_conv_3x3": "sep 3",
    "sep_conv_5x5": "sep 5",
    "dil_conv_3x3": "dil 3",
    "dil_conv_5x5": "dil 5",
    "max_pool_3x3": "max",
    "avg_pool_3x3": "avg",
}
"""Operations as a legend has room for them."""
HEIGHTS = (0.35, -1.0, 0.75, -0.25)
MAX_BLOCKS = 80


class Path(NamedTuple):
    """One operation from a node to a later one."""

    source: int
    target: int
    operation: str


def cell_figures(history: Json) -> list[Html]:
    """The drawings of a history's genotype: both cells, or the paths that are left of each block's tree."""
    genotype = history.get("genotype")
    if not isinstance(genotype, Mapping):
        return []
    offered = paths_by_group(history)
    found = []
    for kind, title in CELLS.items():
        kept = _paths(genotype.get(kind))
        if kept:
            found.append(_cell(kind, title, kept, offered.get(kind, kept)))
    blocks = genotype.get("blocks")
    if isinstance(blocks, list) and blocks:
        trees = list(offered.values())
        found.append(_trees([_paths(block) for block in blocks], trees[0] if trees else []))
    return found


def paths_by_group(history: Json) -> dict[str, list[Path]]:
    """The paths that the super-network had, by the group of its switches' names ("normal/0->2/sep_conv_3x3"); zero-nodes are none."""
    found: dict[str, list[Path]] = {}
    switches = history.get("switches")
    for name in switches if isinstance(switches, Mapping) else ():
        group, _, rest = str(name).partition("/")
        edge, _, operation = rest.partition("/")
        source, arrow, target = edge.partition("->")
        if arrow and source.isdecimal() and target.isdecimal() and operation != "zero":
            found.setdefault(group, []).append(Path(int(source), int(target), operation))
    return found


def _paths(values: object) -> list[Path]:
    """What is a path of a list of [source, target, operation]."""
    found = []
    for value in values if isinstance(values, list) else ():
        match value:
            case [int(source), int(target), str(operation)]:
                found.append(Path(source, target, operation))
    return found


def _cell(kind: str, title: str, kept: Sequence[Path], offered: Sequence[Path]) -> Html:
    discarded = [path for path in offered if path not in kept]
    listed = ", ".join(f"{path.source} to {path.target} {path.operation}" for path in kept)
    drawing = draw(
        f"bayesnas-{kind}",
        lambda axes: _plot_cell(axes, kept, discarded),
        alt=f"{title}: {listed}.",
    )
    text = f"{title}: {len(kept)} of {len(kept) + len(discarded)} paths are left; discarded ones are dashed."
    return element("figure", drawing, element("figcaption", text))


def _plot_cell(axes: Axes, kept: Sequence[Path], discarded: Sequence[Path]) -> None:
    from matplotlib.patches import FancyArrowPatch

    last = max(path.target for path in (*kept, *discarded))
    places = {node: place_of(node) for node in range(last + 2)}
    axes.grid(visible=False)
    axes.set_axis_off()
    operations = list(dict.fromkeys(path.operation for path in (*kept, *discarded)))
    colours = {
        name: COLOUR[f"method{place % NUM_METHODS}"]
        for place, name in enumerate(sorted(operations))
    }
    for path in (*discarded, *kept):
        is_kept = path in kept
        # the paths of an edge fan out, each operation always to the same side
        bend = (
            0.5 * (operations.index(path.operation) - (len(operations) - 1) / 2) / len(operations)
        )
        axes.add_patch(
            FancyArrowPatch(
                places[path.source],
                places[path.target],
                connectionstyle=f"arc3,rad={bend:.3f}",
                arrowstyle="-|>" if is_kept else "-",
                mutation_scale=7,
                color=colours[path.operation] if is_kept else COLOUR["grid"],
                linestyle="-" if is_kept else "--",
                linewidth=1.4 if is_kept else 0.6,
                shrinkA=9,
                shrinkB=9,
            )
        )
    for node in range(NUM_INPUTS, last + 1):
        axes.plot(
            *zip(places[node], places[last + 1], strict=True), color=COLOUR["muted"], linewidth=0.5
        )
    names = ["k-2", "k-1", *map(str, range(NUM_INPUTS, last + 1)), "out"]
    for node, (x, y) in places.items():
        axes.text(
            x,
            y,
            names[node],
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round", "facecolor": COLOUR["paper"], "edgecolor": COLOUR["muted"]},
        )
    for name in dict.fromkeys(path.operation for path in kept):
        axes.plot([], [], color=colours[name], label=SHORT.get(name, name))
    axes.legend(loc="lower left", ncols=4, handlelength=1.2)
    axes.set_xlim(-0.4, places[last + 1][0] + 0.4)
    axes.set_ylim(-2.1, 1.7)


def place_of(node: int) -> tuple[float, float]:
    """Where a node stands: inputs at the left, the others in their order, at heights that keep straight lines off other nodes."""
    if node < NUM_INPUTS:
        return 0.0, 0.9 - 1.8 * node
    place = node - NUM_INPUTS
    return float(place + 1), HEIGHTS[place % len(HEIGHTS)]


def _trees(blocks: Sequence[Sequence[Path]], offered: Sequence[Path]) -> Html:
    """Blocks against paths: a dot where the path is left, a ring where it is discarded."""
    shown = list(blocks)[:MAX_BLOCKS]
    names = list(dict.fromkeys([*offered, *(path for block in shown for path in block)]))
    left = sum(map(len, blocks))

    def plot(axes: Axes) -> None:
        for is_kept in (False, True):
            marks = [
                (place, row)
                for place, block in enumerate(shown, 1)
                for row, path in enumerate(names)
                if (path in block) is is_kept
            ]
            if marks:
                at, rows = zip(*marks, strict=True)
                face = COLOUR["best"] if is_kept else "none"
                edge = COLOUR["best" if is_kept else "muted"]
                label = "left" if is_kept else "discarded"
                axes.scatter(
                    at, rows, s=14, facecolor=face, edgecolor=edge, linewidths=0.7, label=label
                )
        labels = [f"{p.source}→{p.target} {SHORT.get(p.operation, p.operation)}" for p in names]
        axes.set_yticks(range(len(names)), labels)
        axes.invert_yaxis()
        axes.set_xlabel("block")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)

    alt = f"Of {len(blocks)} blocks' {len(names)} paths {left} are left."
    drawing = draw("bayesnas-trees", plot, alt=alt)
    return element("figure", drawing, element("figcaption", f"{alt} Rings are discarded paths."))
