"""Pictures of a run as files of their own: `python -m raysearch plot`.

`filters`: the first filters of the encoder and of the decoder that Architecture Compression has learned (figures 3 and 4 of the paper).
`losses`: L, L_d, L_a and L_p of every training of them (equations 12 to 15).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysearch.errors import ConfigError, OutputError, RunFolderError
from raysearch.report.embedding import (
    EMBEDDING_FOLDER,
    LOSSES,
    LOSSES_FILE,
    WEIGHTS_FILE,
    plot_losses,
    read_refits,
    shown_refits,
    with_curve,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("filters", "losses")
FORMATS = ("png", "svg", "pdf")

FILTERS = {
    "encoder": ("encoder.first.weight",),
    "decoder": ("decoder.first.weight", "decoder.blocks.0.conv.weight"),
}
"""Part -> the tensors of which the first that is a convolution's [filters, features, positions] is drawn."""

COLOURS = {
    "ink": "#1c1d1f",
    **{
        f"value{step}": colour
        for step, colour in enumerate(("#c3d5e4", "#9dbfdb", "#75a3c7", "#2f78ad", "#083f6b"))
    },
}

Array = NDArray[np.float64]


def plot(run_folder: Path | str, kind: str, output: Path | str | None = None) -> Path:
    """Draws a picture of a run whose method has an embedding.

    Args:
        run_folder: of the run.
        kind: of `KINDS`.
        output: a file whose ending says the format; None: `RUN/embedding/KIND.png`.

    Returns:
        The file.

    Raises:
        ConfigError: the kind or the format is not known.
        RunFolderError: the folder is no run's, has no embedding, or a damaged one.
        OutputError: the file cannot be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"--kind: {kind!r} is not known; choose one of {', '.join(KINDS)}")
    folder = Path(run_folder)
    file = folder / EMBEDDING_FOLDER / f"{kind}.png" if output is None else Path(output)
    if file.suffix[1:] not in FORMATS:
        raise ConfigError(
            f"--output: {file.name!r} ends in no known format; choose one of {', '.join(FORMATS)}"
        )
    needed = folder / (WEIGHTS_FILE if kind == "filters" else LOSSES_FILE)
    if not (folder / "config.yaml").is_file():
        raise RunFolderError(f"{folder} is not a run's folder: it has no config.yaml")
    if not needed.is_file():
        raise RunFolderError(
            f"{needed}: missing; the end of a search with search.method=embedding_gradient writes it"
        )
    figure = _filters(needed) if kind == "filters" else _losses(folder)
    _write(figure, file)
    return file


def tiles(filters: Array) -> Array:
    """One picture of many filters side by side, about as high as wide, NaN between them.

    Args:
        filters: [n, height, width].
    """
    number, height, width = filters.shape
    columns = min(number, max(1, round(math.sqrt(number * (height + 1) / (width + 1)))))
    rows = -(-number // columns)
    picture = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), np.nan)
    for place, one in enumerate(filters):
        top, left = (place // columns) * (height + 1) + 1, (place % columns) * (width + 1) + 1
        picture[top : top + height, left : left + width] = one
    return picture


def _filters(file: Path) -> Figure:
    figure = _figure(11, 5.8)
    panels = figure.subplots(1, len(FILTERS))
    for axes, (part, filters) in zip(panels, _read_filters(file).items(), strict=True):
        limit = float(np.abs(filters).max()) or 1.0
        image = axes.imshow(
            tiles(filters),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            aspect="auto",
            interpolation="none",
        )
        axes.set_axis_off()
        shape = " x ".join(map(str, filters.shape[1:]))
        title = f"{part}: the {len(filters)} filters of its first convolution, {shape} each"
        axes.set_title(title, fontsize=9)
        figure.colorbar(image, ax=axes, shrink=0.6)
    return figure


def _read_filters(file: Path) -> dict[str, Array]:
    """The filters of each part: [n, features, positions]."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors: Mapping[str, NDArray[np.float32]] = load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunFolderError(f"{file}: damaged ({error}); restore it or run again") from error
    found = {}
    for part, names in FILTERS.items():
        name = next((name for name in names if name in tensors and tensors[name].ndim == 3), None)
        if name is None:
            raise RunFolderError(
                f"{file}: holds no first filters of the {part} ({' or '.join(names)}); run again"
            )
        found[part] = tensors[name].astype(np.float64)
    return found


def _losses(folder: Path) -> Figure:
    try:
        refits = read_refits(folder)
    except ValueError as error:
        raise RunFolderError(f"{folder}: {error}; restore it or run again") from error
    shown = {name: shown_refits(found) for name in LOSSES if (found := with_curve(refits, name))}
    if not shown:
        raise RunFolderError(
            f"{folder / LOSSES_FILE}: holds no losses; the search was too short for a refit"
        )
    figure = _figure(10, 7)
    panels = figure.subplots(2, 2).flat
    for axes, name in zip(panels, LOSSES, strict=True):
        if name in shown:
            plot_losses(axes, shown[name], name, COLOURS)
        axes.set_title(f"{name}: {LOSSES[name]}", fontsize=9)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, constrained_layout=True)
    FigureCanvasAgg(figure)
    return figure


def _write(figure: Figure, file: Path) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(draft, format=file.suffix[1:])
        os.replace(draft, file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OutputError(
            f"--output: {str(file)!r} cannot be written ({error.strerror}); choose another file"
        ) from error
