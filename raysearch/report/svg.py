"""The look of the report's figures: matplotlib drawings that become inline SVG which follows the page's colours and font.

A figure is drawn in stand-in colours, one for each role of the palette. In the SVG they are replaced by the page's CSS variables, so
one drawing serves light and dark. The palette (Okabe and Ito) stays apart for the colour-blind; marks differ in shape as well.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from raysearch.report.markup import Html, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (5.6, 3.7)  # inches at 72 points; small, so that text stays readable on a phone
NUM_METHODS = 8
"""Methods in a drawing that have a colour of their own; more share them and differ in their lines."""
NUM_VALUES = 5
"""Steps of the scale from the poorest to the best value."""
ROLES = (
    "ink",
    "muted",
    "grid",
    "search",
    "best",
    "uniform",
    "random",
    "teacher",
    "budget",
    "paper",
    *(f"method{place}" for place in range(NUM_METHODS)),
    *(f"value{place}" for place in range(NUM_VALUES)),
)
COLOUR = {role: f"#0102{place + 16:02x}" for place, role in enumerate(ROLES)}
"""Role -> its stand-in; style.css gives each role its colours."""

ORIGIN_ROLES = ("uniform", "random")  # origins of a student with a colour of their own
MAX_LABEL = 28  # characters of a legend's entry
MAX_POINTS = 1000  # marks of one kind in a figure, so that the page stays small
Points = TypeVar("Points", list[Any], NDArray[Any])

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": COLOUR["muted"],
    "axes.labelcolor": COLOUR["ink"],
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": COLOUR["grid"],
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "text.color": COLOUR["ink"],
    "xtick.color": COLOUR["muted"],
    "ytick.color": COLOUR["muted"],
    "xtick.labelcolor": COLOUR["ink"],
    "ytick.labelcolor": COLOUR["ink"],
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handletextpad": 0.5,
    "figure.constrained_layout.use": True,
}


def draw(name: str, plot: Callable[[Axes], None], *, alt: str) -> Html:
    """Draws one figure.

    Args:
        name: unique on the page; becomes a part of the drawing's ids.
        plot: draws on the axes it is given.
        alt: what the figure shows, for who cannot see it.

    Returns:
        An `svg` element; the same input gives the same bytes.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's own fonts draw the text
        figure = Figure(figsize=SIZE)
        FigureCanvasSVG(figure)
        plot(figure.add_subplot())
        return _inline(_svg_text(figure), name, alt)


def thinned(items: Points) -> Points:
    """Every k-th item, so that at most `MAX_POINTS` are left."""
    return items[:: max(1, -(-len(items) // MAX_POINTS))]


def clipped(label: str) -> str:
    """A label that leaves room for the drawing."""
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"


def percent_axis(axes: Axes) -> None:
    """Shares on the vertical axis read as 95 %."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")


def whole_axis(axes: Axes) -> None:
    """Whole numbers only on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _svg_text(figure: Figure) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return file.getvalue()


def _inline(text: str, name: str, alt: str) -> Html:
    """Strips what a page does not need (prologue, sizes, fonts), makes ids unique, and lets CSS colour the rest."""
    box = re.search(r'viewBox="([^"]*)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="', f' id="{name}-', body)
    body = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", body).replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    for role, colour in COLOUR.items():
        body = body.replace(colour, f"var(--{role})")
    body = re.sub(r"\s*\n\s*", " ", body)
    return element(
        "svg",
        Html(body),
        viewBox=box.group(1) if box else None,
        role="img",
        aria_label=alt,
    )
