"""The report's section on runs: data from the folder alone."""

from __future__ import annotations

import json
import re

import pytest

from raysearch.report.bayesnas import bayesnas, chosen, read_histories
from raysearch.report.cells import Path, paths_by_group, place_of
from raysearch.report.html import render_report, write_report
from raysearch.report.run_folder import RunFolder


def layer(weights, kept, median):
    gamma = [0.0, median / 2, median, median * 2, median * 3]
    return {"groups": 8, "active": 4, "weights": weights, "kept": kept, "gamma": gamma}


def compression(number, lam, key):
    return {
        "kind": "compression",
        "run": number,
        "lam": lam,
        "epochs": [
            {
                "epoch": epoch,
                "accuracy": 0.9 - 0.01 * epoch,
                "loss": None,
                "active_groups": 40 - 5 * epoch,
                "num_params": 1000 - 100 * epoch,
                "entropy": 1.25,
            }
            for epoch in (1, 2, 3)
        ],
        "updates": [
            {
                "epoch": epoch,
                "layers": {"conv1<b>": layer(100, 75, 0.4), "fc": layer(200, 10, 0.01 / epoch)},
            }
            for epoch in (2, 3)
        ],
        "students": [{"architecture_id": key, "epoch": 2}, {"architecture_id": f"{key}2"}],
    }


def cells(number=0):
    names = [
        f"{i}->{j}/{name}" for i, j in ((0, 2), (1, 2)) for name in ("identity", "max_pool_3x3")
    ]
    switches = {
        f"{kind}/{name}": [0.3, 0.4 if place != 1 else 0.01]
        for kind in ("normal", "reduction")
        for place, name in enumerate([*names, "0->2/zero"])
    }
    kept = [[0, 2, "identity"], [1, 2, "identity"], [1, 2, "max_pool_3x3"]]
    genotype = {"kind": "cells", "normal": kept, "reduction": kept}
    epochs = [{"epoch": 1, "accuracy": 0.5, "active_switches": 6, "num_params": 50}]
    found = {"switches": switches, "genotype": genotype, "epochs": epochs, "students": []}
    return {"kind": "cells", "run": number, "lam": 0.01, **found}


def put(folder, *histories, records=()):
    (folder / "bayesnas").mkdir()
    for history in histories:
        file = folder / "bayesnas" / f"run-{history['run']:03d}.json"
        file.write_text(json.dumps(history))
    (folder / "runs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return RunFolder.read(folder)


def words_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.fixture
def compressed(complete):
    histories = [compression(0, 0.01, "a"), compression(1, 0.1, "b")]
    records = [
        {"run": 0, "value": 0.4, "status": "full", "lam": 0.01},
        {"run": 1, "value": 0.5, "status": "stopped", "lam": 0.1},
    ]
    return put(complete, *histories, records=records)


def test_a_search_without_runs_has_no_such_section(complete):
    run = RunFolder.read(complete)
    assert run.histories == ()
    assert bayesnas(run) is None
    assert "What the runs found" not in render_report(run)


def test_runs_of_a_compression_are_listed_and_drawn(compressed):
    page = write_report(compressed.path).read_text()
    words = words_of(page)
    assert "2 runs compressed the teacher, each with its own λ, and found 4 students" in words
    assert "0.01 full 3 87.0 % 700 25 1.25 2 (0)" in words
    assert "0.1 stopped 3 87.0 % 700 25 1.25 2 (0)" in words
    for name in ("bayesnas-active", "bayesnas-gamma", "bayesnas-kept"):
        assert f'id="{name}-' in page
    assert "Weights kept: conv1&lt;b&gt; 75.0 %, fc 5.0 %." in page
    assert "conv1<b>" not in page
    assert "are of run 1, λ = 0.1" in words  # the highest reward
    assert write_report(compressed.path).read_text() == page


def test_the_run_of_the_best_student_is_shown(complete):
    best = RunFolder.read(complete).best.architecture_id
    run = put(complete, compression(0, 0.01, best), compression(1, 0.1, "b"))
    assert chosen(run)["run"] == 0


def test_derived_cells_are_drawn_with_discarded_paths_dashed(complete):
    run = put(complete, cells())
    page = render_report(run)
    for name in ("bayesnas-switches", "bayesnas-normal", "bayesnas-reduction"):
        assert f'id="{name}-' in page
    assert "The normal cell: 3 of 4 paths are left; discarded ones are dashed." in page
    normal = page[page.index("The normal cell: 0 to 2 identity") :]
    assert "stroke-dasharray" in normal[: normal.index("</svg>")]
    assert "Prior variances γ of the 10 switches; the 2 dashed ones are pruned." in page


def test_the_trees_of_a_proxyless_network_are_drawn_block_by_block(complete):
    history = cells() | {
        "kind": "proxyless",
        "genotype": {"kind": "proxyless", "blocks": [[[0, 2, "identity"]], []]},
    }
    page = render_report(put(complete, history))
    assert 'id="bayesnas-trees-' in page
    assert "Of 2 blocks&#x27; 4 paths 1 are left. Rings are discarded paths." in page


def test_the_paths_of_a_super_network_are_read_from_its_switches():
    assert paths_by_group(cells())["normal"] == [
        Path(0, 2, "identity"),
        Path(0, 2, "max_pool_3x3"),
        Path(1, 2, "identity"),
        Path(1, 2, "max_pool_3x3"),
    ]
    assert paths_by_group({"switches": {"nonsense": [1.0], "a/b->c/d": [1.0]}}) == {}
    assert len({place_of(node) for node in range(8)}) == 8


@pytest.mark.parametrize(
    "history",
    [
        {},
        {
            "kind": "cells",
            "genotype": {"normal": [[1]], "blocks": 3},
            "switches": {"a": [], "b": 3},
        },
        {"kind": "compression", "updates": [3, {"epoch": 1, "layers": {"a": {"gamma": [1, 2]}}}]},
        {"kind": 3, "run": "x", "epochs": {"a": 1}, "students": "abc", "lam": "much"},
    ],
)
def test_whatever_a_history_holds_the_report_is_made(complete, history):
    (complete / "bayesnas").mkdir()
    (complete / "bayesnas" / "run-000.json").write_text(json.dumps(history))
    assert "What the runs found" in render_report(RunFolder.read(complete))


def test_a_torn_history_is_left_out_and_named(complete):
    run = put(complete, compression(0, 0.01, "a"))
    (complete / "bayesnas" / "run-001.json").write_text('{"kind": "comp')
    assert read_histories(complete)[1] == ["bayesnas/run-001.json"]
    again = RunFolder.read(run.path)
    assert len(again.histories) == 1
    assert "bayesnas/run-001.json is damaged and is left out." in again.problems
