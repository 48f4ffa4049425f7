"""Who counts as a method's final student, and what its search had spent by each evaluation."""

import numpy as np

from raysearch.comparing.records import (
    cell_row,
    cells_frame,
    evaluation_rows,
    evaluations_frame,
    failed_row,
    finalists,
)


def student(name, valued):
    search = None if valued is None else {"reward": valued}
    return {"architecture_id": name, "search": search}


def ids(students):
    return [one["architecture_id"] for one in students]


def test_a_student_that_the_search_never_saw_does_not_count_for_it():
    ranked = [student("uniform", None), student("b", 0.5), student("c", 0.7)]
    assert ids(finalists(ranked, 3)) == ["b", "c"]


def test_every_method_gets_equally_many_finalists_those_it_valued_most():
    ranked = [student("uniform", 0.4), student("b", 0.5), student("c", 0.7), student("d", 0.6)]
    assert ids(finalists(ranked, 3)) == ["b", "c", "d"]
    ranked[0] = student("uniform", 0.65)
    assert ids(finalists(ranked, 3)) == ["uniform", "c", "d"]


RECORDS = [
    {"value": 0.2, "status": "full", "epochs_done": 4, "seconds": 1.0, "propose_s": 0.5},
    {"value": 0.9, "status": "stopped", "epochs_done": 2, "seconds": 0.5, "propose_s": 0.0},
    {"value": None, "status": "failed"},
    {"value": 0.3, "status": "full", "epochs_done": 4, "seconds": 1.5, "cpu_seconds": 1.25},
]


def test_the_best_so_far_counts_full_trainings_alone():
    rows = evaluation_rows("p", "gp", 3, RECORDS)
    assert [row["best"] for row in rows] == [0.2, 0.2, 0.2, 0.3]
    assert [row["epochs_spent"] for row in rows] == [4, 6, 6, 10]
    assert [row["seconds_spent"] for row in rows] == [1.5, 2.0, 2.0, 3.5]
    frame = evaluations_frame(rows)
    assert list(frame["evaluation"]) == [1, 2, 3, 4]
    assert np.isnan(frame["value"][2])


def test_a_cell_sums_what_its_search_spent():
    row = cell_row("p", "gp", 3, RECORDS)
    assert (row["trials"], row["full"], row["stopped"], row["failed"]) == (4, 2, 1, 1)
    assert (row["value"], row["epochs"], row["seconds"]) == (0.3, 10, 3.0)
    assert (row["cpu_seconds"], row["propose_s"]) == (1.25, 0.5)


def test_a_failed_cell_has_no_scores():
    frame = cells_frame([cell_row("p", "gp", 3, RECORDS), failed_row("p", "gp", 4, "no luck")])
    assert list(frame["status"]) == ["done", "failed"]
    assert np.isnan(frame["value"][1])
