"""The text of edits and the arrays of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.architecture import Edits, EditsBatch
from raysearch.errors import InvalidArchitecture

indices = st.lists(st.integers(0, 20_000), max_size=60)
inputs = st.dictionaries(
    st.integers(0, 5000), st.lists(st.integers(0, 3000), min_size=1, max_size=30), max_size=4
)


@given(indices, st.lists(st.integers(1, 100_000), max_size=20), indices, inputs)
def test_text_gives_back_the_same_edits(remove, widths, skips, inputs):
    kept = tuple((layer, tuple(places)) for layer, places in inputs.items())
    edits = Edits(tuple(remove), tuple(widths), tuple(skips), kept)
    assert str(edits).count(".") == (4 if inputs else 3)
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


def test_texts_without_inputs_are_as_they_always_were():
    assert str(Edits((0, 7), (3, 40), (2, 5))) == "e1.BC.DoB.CC"
    assert str(Edits((0, 7), (3, 40), (2, 5), ((1, (0, 6)),))) == "e1.BC.DoB.CC.BCBB"


def test_every_input_of_a_lenet_costs_a_sixth_of_a_character():
    rng = np.random.default_rng(0)
    sizes = {2: 784, 4: 300, 6: 100}
    kept = tuple((layer, tuple(np.flatnonzero(rng.random(n) < 0.3))) for layer, n in sizes.items())
    assert len(str(Edits((), (300, 100), (), kept[:1]))) < 150
    assert len(str(Edits((), (300, 100), (), kept))) < 230


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
        "e1....",
        "e1.....",
        "e1....B",
        "e1....BC",
        "e1....BCB",
        "e1....BAB",
        "e1....BA",
        "e1....BCBA",
        "e1....BBBBBB",
        "e1....CBBBBB",
        "e1....Bg",
        "e1....BB*",
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


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (((3, (1, -1)),), "inputs .* negative"),
        (((-3, (1,)),), "inputs .* negative"),
        (((3, ()),), "leave layer 3 none"),
        (((3, (1,)), (3, (2,))), "name layer 3 twice"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(inputs, message):
    with pytest.raises(InvalidArchitecture, match=message):
        Edits(inputs=inputs)


def test_the_order_of_inputs_does_not_count():
    mixed = Edits(inputs=((4, (2, 0, 2)), (np.int64(1), np.array([7]))))
    assert mixed == Edits(inputs=((1, (7,)), (4, (0, 2))))
    assert hash(mixed) == hash(Edits.from_text(str(mixed)))


def test_a_batch_gives_its_edits_back():
    edits = [
        Edits((1, 4), (3, 5), (7, 9), ((2, (0, 4)), (6, (1,)))),
        Edits((), (2, 2)),
        Edits((0,), (1, 1), (0,), ((2, (5,)),)),
    ]
    batch = EditsBatch.from_edits(edits)
    assert list(batch) == edits
    assert batch[-1] == edits[-1]
    assert list(batch[1:]) == edits[1:]
    assert list(batch[np.array([2, 0, 0])]) == [edits[2], edits[0], edits[0]]
    assert list(batch[np.array([True, False, True])]) == [edits[0], edits[2]]
    with pytest.raises(IndexError):
        batch[3]


def test_batches_join():
    first = EditsBatch.from_edits([Edits((1,), (3,), (2,)), Edits((), (4,), (1,), ((2, (3,)),))])
    second = EditsBatch.from_edits([Edits((9,), (5,), (0, 3), ((1, (0,)), (7, (2, 4))))])
    joined = EditsBatch.concatenate([first, second, first])
    assert list(joined) == [*first, *second, *first]


def test_edits_of_different_spaces_do_not_stack():
    with pytest.raises(InvalidArchitecture, match="several spaces"):
        EditsBatch.from_edits([Edits((), (1,)), Edits((), (1, 2))])
