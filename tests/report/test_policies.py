"""The report's section on policies: data from the folder alone, and from a source run where there is one."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from raysearch.report.html import render_report, write_report
from raysearch.report.policies import batch_rewards, means, of_stage, policies, source_of
from raysearch.report.run_folder import RunFolder

LAYERS = [
    {"layer": "conv1<b>", "type": "conv", "stage": "remove", "keep": 0.25},
    {"layer": "relu", "type": "act", "stage": "remove", "keep": 0.75},
    {"layer": "conv1<b>", "type": "conv", "stage": "shrink", "factor": "filters", "ratio": 0.4},
]
HISTORY = [
    {"stage": stage, "iteration": i, "mean_reward": reward + 0.1 * i, "baseline": 0.0}
    for stage, reward in (("remove", 0.2), ("shrink", 0.5))
    for i in range(4)
]


def learn(folder, shift=0.0, policy=True):
    """Makes the search of a written run one that two policies made: 5 students an iteration."""
    file = folder / "observations.jsonl"
    whole, _, torn = file.read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines()]
    for place, line in enumerate(lines):
        half = len(lines) // 2
        line["method_stage"] = "remove" if place < half else "shrink"
        line["iteration"] = place % half // 5
        line["compression"] = 1 - line["num_params"] / 10_000
        if line["value"] is not None:
            line["value"] += shift
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    if policy:
        (folder / "policy").mkdir(exist_ok=True)
        history = [{**row, "mean_reward": row["mean_reward"] + shift} for row in HISTORY]
        text = json.dumps({"history": history, "layers": LAYERS})
        (folder / "policy" / "policy.json").write_text(text)
    return folder


@pytest.fixture
def learned(complete):
    return learn(complete)


def text_of(html):
    return re.sub(r"<[^>]+>", " ", html)


def test_a_run_without_policies_has_no_such_section(complete):
    assert policies(RunFolder.read(complete)) is None
    assert "What the policies learned" not in render_report(RunFolder.read(complete))


def test_both_stages_are_drawn_and_the_probabilities_listed(learned):
    page = write_report(learned).read_text()
    assert page.count("What the policies learned") == 1
    for stage in ("Layer removal", "Layer shrinkage"):
        assert stage in page
    assert 'id="policy-remove-' in page
    assert 'id="policy-shrink-' in page
    words = text_of(page)
    assert "25 %" in words
    assert "75 %" in words
    assert "filters" in words
    assert "40 %" in words
    assert "conv1<b>" not in page  # escaped
    assert write_report(learned).read_text() == page


def test_means_are_those_of_the_iterations_of_full_students(learned):
    run = RunFolder.read(learned)
    lines = [json.loads(line) for line in (learned / "observations.jsonl").read_text().splitlines()]
    for stage in ("remove", "shrink"):
        full = [x for x in lines if x["method_stage"] == stage and x["status"] == "full"]
        rows = of_stage(run, stage)
        assert [row.value for row in rows] == [line["value"] for line in full]
        for quantity in ("value", "accuracy", "compression"):
            for iteration, mean in means(rows, quantity):
                values = [line[quantity] for line in full if line["iteration"] == iteration]
                assert mean == pytest.approx(sum(values) / len(values))


def test_the_sentence_names_smallest_largest_and_both_ends(learned):
    run = RunFolder.read(learned)
    rows = of_stage(run, "remove")
    sizes = sorted(row.num_params for row in rows)
    values = [row.value for row in rows]
    part = len(values) // 5
    words = text_of(str(policies(run)))
    assert f"The smallest has {sizes[0]:,} parameters" in words
    assert f"the largest {sizes[-1]:,} parameters" in words
    assert f"first fifth is {sum(values[:part]) / part:.3f}" in words
    assert f"of the last {sum(values[-part:]) / part:.3f}" in words


def test_rewards_of_batches_are_the_method_s_own_where_it_noted_them(learned):
    run = RunFolder.read(learned)
    noted = [(row["iteration"], row["mean_reward"]) for row in HISTORY if row["stage"] == "remove"]
    assert batch_rewards(run, "remove") == noted
    shutil.rmtree(learned / "policy")
    run = RunFolder.read(learned)
    assert batch_rewards(run, "remove") == means(of_stage(run, "remove"), "value")


def test_a_run_that_is_still_going_shows_what_its_log_has(partial):
    learn(partial, policy=False)
    page = render_report(RunFolder.read(partial))
    assert "Layer removal" in page
    assert "as the policy is at the end" not in page


def with_source(folder, source):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["search"]["warm_start"] = str(source)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_transfer_shows_the_curves_of_both(learned, fake_run, tmp_path):
    source = learn(fake_run.but(seed=1).write(tmp_path / "the-source"), shift=0.05)
    with_source(learned, source)
    page = render_report(RunFolder.read(learned))
    assert "With and without transfer" in page
    assert 'id="transfer-remove-' in page
    assert 'id="transfer-shrink-' in page
    assert "the-source" in text_of(page)
    found = source_of(RunFolder.read(learned))
    assert found is not None
    assert found.name == "the-source"


def test_a_source_that_is_gone_is_left_out(learned, tmp_path):
    with_source(learned, tmp_path / "gone")
    run = RunFolder.read(learned)
    assert source_of(run) is None
    assert "With and without transfer" not in render_report(run)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"history": 3, "layers": {}}',
        '{"layers": [3, {"stage": "remove", "keep": "x"}]}',
    ],
)
def test_a_damaged_policy_is_left_out(learned, text):
    (learned / "policy" / "policy.json").write_text(text)
    page = render_report(RunFolder.read(learned))
    assert "Layer removal" in page
    assert "as the policy is at the end" not in page
