"""The embedding's losses in the report, and the pictures of it that are files of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import save_file

from raysearch.errors import ConfigError, OutputError, RunFolderError
from raysearch.report import write_report
from raysearch.report.embedding import LOSSES, MAX_REFITS, loss_figure, read_refits, shown_refits
from raysearch.report.plots import plot, tiles

TITLE = "How the embedding was learned"


def history(num_observations: int, num_steps: int = 12) -> dict:
    steps = [10 * step for step in range(num_steps)]
    falling = [float(np.exp(-step / 40)) for step in steps]
    losses = {name: [value * (1 + place) for value in falling] for place, name in enumerate(LOSSES)}
    return {"num_observations": num_observations, "steps": steps, **losses}


def weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    names = {
        "encoder.first.weight": (96, 14, 3),
        "decoder.first.weight": (64, 32),  # linear: no filters
        "decoder.blocks.0.conv.weight": (48, 24, 3),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in names.items()}


@pytest.fixture
def learned(complete: Path) -> Path:
    """A finished run of a method with an embedding, three refits."""
    folder = complete / "embedding"
    folder.mkdir()
    found = {"refits": [history(10), history(20), history(30)]}
    (folder / "embedding.json").write_text(json.dumps(found))
    save_file(weights(np.random.default_rng(0)), folder / "embedding.safetensors")
    return complete


def test_the_report_draws_the_four_losses_of_every_refit(learned: Path) -> None:
    text = write_report(learned).read_text()
    assert TITLE in text
    section = text[text.index(TITLE) :]
    for name in LOSSES:
        drawing = re.search(rf'<svg[^>]*aria-label="{name} over.*?</svg>', section, re.DOTALL)
        assert drawing, name
        root = ElementTree.fromstring(drawing.group())
        colours = set(re.findall(r"var\(--value\d\)", ElementTree.tostring(root, "unicode")))
        assert colours == {"var(--value0)", "var(--value2)", "var(--value4)"}
    assert "trained 3 times, the last time on 30" in section
    assert write_report(learned).read_text() == text


def test_other_methods_have_no_such_section(complete: Path) -> None:
    assert TITLE not in write_report(complete).read_text()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"refits": 3}',
        '{"refits": [3]}',
        '{"refits": [{"num_observations": 3, "steps": [1, 2], "L": [1]}]}',
        '{"refits": [{"steps": []}]}',
    ],
)
def test_a_damaged_file_is_named_and_left_out(learned: Path, content: str) -> None:
    (learned / "embedding/embedding.json").write_text(content)
    text = write_report(learned).read_text()
    assert "embedding/embedding.json is damaged and is left out" in text
    assert TITLE not in text
    with pytest.raises(RunFolderError, match=r"embedding.json cannot be read.*; restore"):
        plot(learned, "losses")


def test_losses_that_are_no_numbers_are_left_out(learned: Path) -> None:
    odd = history(40)
    odd["L_p"] = [None] * 12
    odd["L_a"][3] = None
    (learned / "embedding/embedding.json").write_text(json.dumps({"refits": [odd]}))
    refits = read_refits(learned)
    assert loss_figure(refits, "L_p") is None
    assert loss_figure(refits, "L_a") is not None
    assert plot(learned, "losses").stat().st_size > 10_000


def test_of_many_refits_the_first_and_the_last_are_drawn() -> None:
    refits = list(range(10, 1010, 10))
    few = shown_refits(refits)  # pyright: ignore[reportArgumentType] - any list will do
    assert len(few) == MAX_REFITS
    assert (few[0], few[-1]) == (refits[0], refits[-1])
    gaps = np.diff([refits.index(one) for one in few])
    assert gaps.max() - gaps.min() <= 1


# Files of their own


@pytest.mark.parametrize("kind", ["filters", "losses"])
@pytest.mark.parametrize(
    ("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_a_plot_is_a_file_of_the_format_that_is_asked_for(
    learned: Path, tmp_path: Path, kind: str, ending: str, begins: bytes
) -> None:
    file = plot(learned, kind, tmp_path / f"picture.{ending}")
    assert file.read_bytes().startswith(begins)
    if ending == "png":
        assert plot(learned, kind) == learned / "embedding" / f"{kind}.png"


def test_tiles_show_every_filter_once_with_nothing_between() -> None:
    filters = np.random.default_rng(0).normal(size=(7, 4, 3))
    picture = tiles(filters)
    assert np.sort(picture[np.isfinite(picture)]).tolist() == np.sort(filters.ravel()).tolist()
    windows = np.lib.stride_tricks.sliding_window_view(picture, (4, 3)).reshape(-1, 4, 3)
    for one in filters:
        assert sum(np.array_equal(one, window) for window in windows) == 1
    height, width = tiles(np.zeros((96, 14, 3))).shape
    assert 0.5 < height / width < 2


def test_what_is_asked_for_wrongly_is_one_sentence(
    learned: Path, complete: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--kind: 'curves' is not known; choose one of filters"):
        plot(learned, "curves")
    with pytest.raises(ConfigError, match=r"--output: 'a.gif' ends in no known format"):
        plot(learned, "losses", tmp_path / "a.gif")
    with pytest.raises(OutputError, match=r"--output: .* cannot be written"):
        plot(learned, "losses", tmp_path / "none" / "a.png")
    with pytest.raises(RunFolderError, match="is not a run's folder"):
        plot(tmp_path, "losses")
    save_file(
        {"encoder.first.weight": np.zeros((3, 2, 1), np.float32)},
        learned / "embedding/embedding.safetensors",
    )
    with pytest.raises(RunFolderError, match="no first filters of the decoder"):
        plot(learned, "filters")
    (learned / "embedding/embedding.safetensors").write_bytes(b"torn")
    with pytest.raises(RunFolderError, match="damaged"):
        plot(learned, "filters")
    (learned / "embedding/embedding.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"missing; .*search.method=embedding_gradient"):
        plot(learned, "filters")


def test_the_command_says_what_it_wrote_and_loads_nothing_heavy(learned: Path) -> None:
    code = (
        "import sys; from raysearch.cli import app\n"
        f"app(['plot', {str(learned)!r}, '--kind', 'losses'], standalone_mode=False)\n"
        "assert not {'torch', 'ray'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"written: {learned / 'embedding/losses.png'}\n"
    command = [sys.executable, "-m", "raysearch", "plot", str(learned), "--kind", "x"]
    wrong = subprocess.run(command, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr == "raysearch: --kind: 'x' is not known; choose one of filters, losses\n"
