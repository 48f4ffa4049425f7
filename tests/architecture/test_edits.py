"""The text of edits and the arrays of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.architecture import Edits, EditsBatch
from raysearch.errors import InvalidArchitecture

indices = st.lists(st.integers(0, 20_000), max_size=60)


@given(indices, st.lists(st.integers(1, 100_000), max_size=20), indices)
def test_text_gives_back_the_same_edits(remove, widths, skips):
    edits = Edits(tuple(remove), tuple(widths), tuple(skips))
    assert Edits.from_text(str(edits)) == edits
    assert hash(Edits.from_text(str(edits))) == hash(edits)


def test_order_and_repetition_do_not_count():
    assert Edits((3, 1, 3), (4,), (9, 2)) == Edits((1, 3), (4,), (2, 9, 2))
    assert Edits(tuple(np.array([1, 2])), tuple(np.array([4]))) == Edits((1, 2), (4,))


def test_edits_of_a_large_network_stay_under_a_kilobyte():
    rng = np.random.default_rng(0)
    edits = Edits(
        tuple(np.flatnonzero(rng.random(430) < 0.7)),
        tuple(rng.integers(1, 1024, 120)),
        tuple(np.flatnonzero(rng.random(4830) < 0.05)),
    )
    assert len(str(edits)) < 1000
    assert str(edits).isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "e1",
        "e1.",
        "e1..",
        "e2.A.B.C",
        "e1.A.B",
        "e1.A.B.C.D",
        "e1.*..",
        "e1..é.",
        "e1..g.",
        "e1...ggggggggA",
        "e1.BA..",
        "e1..gA.",
        "x" * 100,
    ],
)
def test_text_that_is_not_canonical_is_refused(text):
    with pytest.raises(InvalidArchitecture):
        Edits.from_text(text)


@pytest.mark.parametrize("field", ["remove", "widths", "skips"])
def test_negative_numbers_are_refused(field):
    with pytest.raises(InvalidArchitecture, match=f"{field} .* negative"):
        Edits(**{field: (3, -1)})


def test_a_batch_gives_its_edits_back():
    edits = [Edits((1, 4), (3, 5), (7, 9)), Edits((), (2, 2)), Edits((0,), (1, 1), (0,))]
    batch = EditsBatch.from_edits(edits)
    assert list(batch) == edits
    assert batch[-1] == edits[-1]
    assert list(batch[1:]) == edits[1:]
    assert list(batch[np.array([2, 0, 0])]) == [edits[2], edits[0], edits[0]]
    assert list(batch[np.array([True, False, True])]) == [edits[0], edits[2]]
    with pytest.raises(IndexError):
        batch[3]


def test_batches_join():
    first = EditsBatch.from_edits([Edits((1,), (3,), (2,)), Edits((), (4,), (1,))])
    second = EditsBatch.from_edits([Edits((9,), (5,), (0, 3))])
    joined = EditsBatch.concatenate([first, second, first])
    assert list(joined) == [*first, *second, *first]


def test_edits_of_different_spaces_do_not_stack():
    with pytest.raises(InvalidArchitecture, match="several spaces"):
        EditsBatch.from_edits([Edits((), (1,)), Edits((), (1, 2))])
