"""The benchmark of incumbents, with an objective that is known in closed form."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.incumbents import Judge, _read, make, search, table
from benchmarks.judges import StoppingJudge
from searchers.algorithm import Observation
from searchers.evolution import EvolutionAlgorithm
from searchers.testing import make_chain_space


def make_judge() -> Judge:
    space = make_chain_space((8, 8, 8))

    def observe(edits: str, seed: int) -> Observation:
        """The more parameters the better; a search sees it with an error that a new seed has not."""
        luck = 0.0 if seed > 1000 else len(edits) % 3
        return Observation(edits, float(space.apply(edits).num_params) + luck, 1.0, "full")

    judge = SimpleNamespace(space=space, observe=observe)
    judge.mean = lambda edits: observe(edits, 1001).value
    return cast(Judge, judge)


@pytest.mark.parametrize("method", ["random", "evolution"])
def test_the_incumbent_is_the_one_that_looked_best_judged_without_its_luck(method):
    judge = make_judge()
    row = search(judge, make(method, judge.space, 0, None), 0, 20)
    assert len(row["values"]) == 20
    assert set(row["incumbents"]) == {"8", "16", "20"}
    for mark, value in row["incumbents"].items():
        seen = max(row["values"][: int(mark)])
        assert seen - 2 <= value <= seen
        assert value == row["sizes"][mark]


def test_weak_students_are_stopped_at_half_of_their_epochs_and_are_never_incumbents():
    """Each is better than the one before but the last, which is the worst of all."""

    def observe(edits: str, seed: int) -> Observation:
        value = float(edits)
        return Observation(edits, value, 1.0, "full", (value - 3, value - 2, value - 1, value))

    judge = StoppingJudge(cast(Judge, SimpleNamespace(space=None, observe=observe)))
    found = [judge.observe(str(value), 0) for value in (1, 2, 3, 4, 0)]
    assert [one.status for one in found] == ["full"] * 4 + ["stopped"]
    assert (found[-1].curve, found[-1].value, found[-1].fidelity) == ((-3.0, -2.0), -2.0, 0.5)


def test_a_method_may_be_given_with_options():
    algorithm = make("evolution:population=5,tournament=2", make_judge().space, 0, None)
    assert isinstance(algorithm, EvolutionAlgorithm)
    assert (algorithm.population, algorithm.tournament) == (5, 2)


def test_a_transfer_needs_a_source():
    with pytest.raises(SystemExit, match="--source"):
        make("transfer", make_judge().space, 0, None)


def test_a_torn_line_is_left_and_the_table_has_means(tmp_path):
    file = tmp_path / "rows.jsonl"
    row: dict[str, Any] = {"problem": "p", "budget": None, "method": "gp", "evaluations": 8}
    lines = [
        row | {"seed": seed, "incumbents": {"8": value}, "propose_s": 1.0}
        for seed, value in enumerate((0.5, 0.7))
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn', "utf-8")
    rows = _read(file)
    assert rows == lines
    assert "| p | none | gp | 2 | 8: 0.6000 ± 0.1000 | 1.0 |" in table(rows)
