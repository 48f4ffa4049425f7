"""The sequences of N2N and of Architecture Compression: by hand, round trips, and tables of nonsense."""

import itertools
from contextlib import suppress

import numpy as np
import pytest

from raysearch.architecture import SearchSpace
from raysearch.architecture.encoding import ALL_TYPES
from raysearch.architecture.sequences import (
    decode_chain,
    decode_onto,
    encode_sequence,
    encode_students,
    policy_sequence,
    sample_chains,
    valid_chains,
)
from raysearch.architecture.sequences.chains import CONV, LINEAR
from raysearch.architecture.view import view
from raysearch.errors import ConfigError, InvalidArchitecture

from .nets import SIX, Builder, resnet

SHAPE = (3, 32, 32)


def by_name(network, rows):
    names = [network.layers[place].name for place in view(network).listed]
    return {name: tuple(row) for name, row in zip(names, rows.tolist(), strict=True)}


def test_a_policy_reads_type_window_outputs_and_the_place_in_the_block():
    network = resnet((1, 2), (16, 32), input_shape=(3, 16, 16))
    rows = by_name(network, policy_sequence(network))
    assert rows["conv1"] == (1, 3, 1, 1, 16, 0, 0)
    assert rows["layer2.0.conv1"] == (1, 3, 2, 1, 32, 0, 4)
    assert rows["pool"] == (8, 16 // 2, 8, 0, 0, 0, 0)
    assert rows["fc"] == (5, 0, 0, 0, 10, 0, 0)
    for block in ("layer1.0.", "layer2.0.", "layer2.1."):
        parts = ("conv1", "bn1", "relu1", "conv2", "bn2", "relu2")
        places = [rows[block + part][5:] for part in parts]
        assert places == [(0, 4), (1, 3), (2, 2), (3, 1), (4, 0), (0, 0)]
    assert rows["layer2.0.down.conv"][5:] == rows["layer2.0.down.bn"][5:] == (0, 0)


def test_the_innermost_block_wins():
    b = Builder(3, 8, 8)
    outer = b.conv("a", 4)
    inner = b.conv("b", 4)
    b.relu("c")
    b.add("d", "add", "c", inner)
    b.relu("e")
    b.conv("f", 4)
    b.add("g", "add", "f", outer)
    b.relu("h")
    b.mean()
    b.linear("fc", 2)
    rows = by_name(b.done(), policy_sequence(b.done()))
    # b, c, e, f lie on the longest path of the outer block, c alone in the inner one
    assert [rows[name][5:] for name in "abcefh"] == [(0, 0), (0, 3), (0, 0), (2, 1), (3, 0), (0, 0)]


def test_types_follow_the_vocabulary_that_is_asked_for():
    b = Builder(3, 8, 8)
    b.conv("c", 4)
    b.flatten()
    b.linear("fc", 2)
    b.add("log", "softmax", dim=0, log=True)
    assert policy_sequence(b.done())[:, 0].tolist() == [1, 0, 5, 7]
    words = [ALL_TYPES[index] for index in policy_sequence(b.done(), types=ALL_TYPES)[:, 0]]
    assert words == ["conv", "flatten", "linear", "softmax"]


def test_a_chain_is_encoded_in_the_papers_columns_with_the_flattening_implied():
    assert encode_sequence(SIX["lenet"]()).tolist() == [
        [1, 5, 6, 1, 2],
        [4, 0, 6, 0, 0],
        [2, 2, 6, 2, 0],
        [1, 5, 16, 1, 0],
        [4, 0, 16, 0, 0],
        [2, 2, 16, 2, 0],
        [8, 0, 120, 0, 0],
        [4, 0, 120, 0, 0],
        [8, 0, 84, 0, 0],
        [4, 0, 84, 0, 0],
        [8, 0, 10, 0, 0],
    ]


def test_a_decoded_chain_is_the_network_that_the_rows_describe():
    lenet = SIX["lenet"]()
    decoded = decode_chain(encode_sequence(lenet), (1, 28, 28), 10)
    assert [layer.op for layer in decoded.layers] == [layer.op for layer in lenet.layers]
    assert [layer.shape for layer in decoded.layers] == [layer.shape for layer in lenet.layers]
    assert (decoded.num_params, decoded.macs) == (lenet.num_params, lenet.macs)


def test_only_a_convolution_in_front_of_a_normalisation_has_no_bias():
    rows = [[1, 3, 8, 1, 1], [3, 0, 8, 0, 0], [1, 3, 8, 1, 1], [4, 0, 8, 0, 0], [8, 0, 10, 0, 0]]
    network = decode_chain(rows, (1, 4, 4), 10)
    assert [layer.attrs["bias"] for layer in network.layers if layer.op == "conv"] == [False, True]
    assert network.num_params == 9 * 8 + 2 * 8 + (9 * 8 * 8 + 8) + (8 * 16 * 10 + 10)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 40), (2, 12, 16, 20)])
def test_decoding_inverts_encoding_for_chains(shape):
    rows = sample_chains(40, 0, shape, 7)
    for row in rows[valid_chains(rows, shape, 7)]:
        network = decode_chain(row, shape, 7)
        sequence = encode_sequence(network)
        assert decode_chain(sequence, shape, 7) == network
        assert np.array_equal(sequence, row[: len(sequence)])
        assert not row[len(sequence) :].any()


def test_the_architectures_below_a_size_come_to_an_end():
    """Theorem 3.2: each convolution has parameters, so that a limit bounds depth and widths. All short tables, filtered, are as many."""
    limit, shape, classes = 14, (1, 2, 2), 2

    def params(chain):  # by hand: [(kernel, outputs)], no padding, stride 1
        channels, side, total = 1, 2, 0
        for kernel, outputs in chain:
            total += channels * kernel**2 * outputs + outputs
            channels, side = outputs, side - kernel + 1
        return total, channels * side**2 * classes + classes, side

    found, waiting = set(), [()]
    while waiting:
        chain = waiting.pop()
        for kernel in range(1, params(chain)[2] + 1):
            for outputs in itertools.count(1):
                body, head, _ = params((*chain, (kernel, outputs)))
                if body >= limit:
                    break
                waiting.append((*chain, (kernel, outputs)))
                if body + head <= limit:
                    found.add(waiting[-1])
    depth = max(map(len, found))
    assert depth > 2
    last = (LINEAR, 0, classes, 0, 0)
    brute = set()
    for length in range(1, depth + 2):
        chains = list(itertools.product(itertools.product((1, 2), (1, 2, 3)), repeat=length))
        rows = np.array([[*((CONV, *pair, 1, 0) for pair in chain), last] for chain in chains])
        for place in np.flatnonzero(valid_chains(rows, shape, classes)):
            network = decode_chain(rows[place], shape, classes)
            if network.num_params <= limit:
                brute.add(chains[place])
                # lemmas 3.1 and 7.1
                assert np.array_equal(encode_sequence(network), rows[place])
    assert brute == found


def test_about_one_in_fifty_of_the_papers_draws_is_a_network():
    rows = sample_chains(5000, 0, SHAPE, 10, sampler="paper")
    assert 0.012 < valid_chains(rows, SHAPE, 10).mean() < 0.028
    draws = rows[:, :-1][rows[:, :-1, 0] == 1]  # convolutions
    assert draws[:, [1, 3, 4]].min() == 1
    assert draws[:, [1, 3, 4]].max() == 10
    lengths = (rows[..., 0] != 0).sum(axis=1)
    assert (lengths.min(), lengths.max()) == (2, 50)


def test_the_restricted_draws_fail_only_where_they_have_no_convolution():
    rows = sample_chains(2000, 0, SHAPE, 10)
    valid = valid_chains(rows, SHAPE, 10)
    assert np.array_equal(valid, (rows[..., 0] == 1).any(axis=1))
    assert valid.mean() > 0.8
    with pytest.raises(ConfigError, match="sampler is 'all'"):
        sample_chains(1, 0, SHAPE, 10, sampler="all")


def nonsense(rng, count):
    """Random tables: small, huge, negative or float-like numbers; many nearly right."""
    drawn = [sample_chains(count, rng, SHAPE, 10, sampler=name) for name in ("paper", "restricted")]
    whole = (-1, 0, 2**31 - 1, 2**31, 2**40, 2**63, 10**30, -(10**400))
    real = (0.5, 3.0, float("nan"), float("inf"), -1e300, 2.0**31 - 1, 1e9)
    for trial in range(count):
        if trial % 4 == 1:
            yield rng.integers(-3, 12, (int(rng.integers(0, 12)), 5)).tolist()
            continue
        rows = drawn[int(rng.random() < 0.3)][trial, : int(rng.integers(1, 51))].tolist()
        for _ in range(int(rng.integers(1, 4)) if trial % 4 else 0):
            values = whole if trial % 4 == 2 else real
            rows[int(rng.integers(len(rows)))][int(rng.integers(5))] = values[
                int(rng.integers(len(values)))
            ]
        yield rows if trial % 8 else drawn[1][trial].tolist()


def is_network(rows):
    try:
        network = decode_chain(rows, SHAPE, 10)
    except InvalidArchitecture:
        return False
    assert network[network.output].shape == (10,)
    return True


def test_decoding_nonsense_never_raises_anything_but_invalid_architecture():
    tables = list(nonsense(np.random.default_rng(0), 5000))
    decodes = np.array([is_network(rows) for rows in tables])
    assert decodes.sum() > 500
    assert (~decodes).sum() > 3000
    # what is said of all of them at once must be the same
    padded = np.zeros((len(tables), 50, 5))
    for table, rows in zip(padded, tables, strict=True):
        with suppress(OverflowError):
            table[: len(rows)] = np.array(rows, np.float64).reshape(-1, 5)
    readable = np.all((padded == np.floor(padded)) & (np.abs(padded) < 2**31), axis=(1, 2))
    assert not decodes[~readable].any()
    assert np.array_equal(valid_chains(padded[readable], SHAPE, 10), decodes[readable])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[8, 0, 10, 0, 0]], "no convolution"),
        ([[1, 3, 8, 1, 1]], "must end in a linear layer"),
        ([[1, 3, 8, 1, 1], [8, 0, 9, 0, 0]], "of 10 outputs"),
        ([[1, 3, 8, 1, 1], [9, 0, 8, 0, 0], [8, 0, 10, 0, 0]], "row 1 .* type is 9"),
        ([[8, 0, 9, 0, 0], [1, 3, 8, 1, 1], [8, 0, 10, 0, 0]], "row 1 .* behind a linear"),
        ([[1, 3, 8, 1, 1], [2, 2, 8, 2, 2], [8, 0, 10, 0, 0]], "row 1 .* half of the window"),
        ([[1, 40, 8, 1, 1], [8, 0, 10, 0, 0]], r"row 0 .* shape \[8, -5, -5\]"),
        ([[1, 3, 8, 0, 1], [8, 0, 10, 0, 0]], "row 0 .* stride 0"),
        ([[1, 3, 8, 1, 1]] * 51, "51 layers"),
        ([], "shape"),
        ("text", "not a table"),
        (None, "shape"),
        ([[1, 2], [3]], "not a table"),
    ],
)
def test_a_refusal_names_the_row(rows, words):
    with pytest.raises(InvalidArchitecture, match=words):
        decode_chain(rows, SHAPE, 10)


@pytest.mark.parametrize("name", SIX)
def test_sequences_of_a_batch_are_those_of_its_students(name):
    space = SearchSpace(SIX[name](), divisor=1)
    batch = space.sample(20, seed=0)
    rows = encode_students(space, batch)
    for row, edits in zip(rows, batch, strict=True):
        assert np.array_equal(row, encode_sequence(space.apply(edits)))


@pytest.mark.parametrize("name", ["lenet", "vgg", "option_b", "mobilenet", "densenet"])
def test_decoding_onto_the_teacher_gives_the_edits_back(name):
    for divisor in (1, 4):
        space = SearchSpace(SIX[name](), operations=("remove", "shrink"), divisor=divisor)
        batch = space.sample(20, seed=0)
        found = decode_onto(space, encode_students(space, batch))
        assert list(found) == list(batch)


def test_decoding_onto_the_teacher_takes_the_nearest_legal_width_of_the_mean_share():
    b = Builder(3, 8, 8)
    b.conv("a", 20)
    b.relu("relu")
    main = b.conv("b", 20)
    b.add("add", "add", main, "relu")
    b.mean()
    b.linear("fc", 10)
    network = b.done()
    space = SearchSpace(network, divisor=4, min_channels=8)
    rows = encode_sequence(network)[None].astype(float).repeat(4, axis=0)
    rows[:, [0, 2], 2] = [[20, 20], [14.8, 10.4], [1, 2], [1e9, 19]]
    assert decode_onto(space, rows).widths.ravel().tolist() == [20, 12, 8, 20]
    rows[1, 2, 0] = 0.3  # no layer: what it says does not count
    found = decode_onto(space, rows)
    assert found.widths.ravel().tolist() == [20, 16, 8, 20]
    assert np.flatnonzero(found.remove[1]).tolist() == [network.index["b"]]


def test_decoding_nonsense_onto_the_teacher_gives_legal_edits_or_refuses():
    space = SearchSpace(resnet(), budget={"params": 0.3})
    length = encode_students(space, space.sample(1, seed=0)).shape[1]
    rng = np.random.default_rng(0)
    for scale in (3, 100, 2**31, 2**62):
        batch = decode_onto(space, rng.integers(-scale, scale, (50, length, 5)))
        assert all(space.parse(str(edits)) == edits for edits in batch)
        assert space.within_budget(space.repair(batch)).all()
    for bad in (np.full((1, length, 5), np.nan), np.ones((1, length + 1, 5)), [[["a"]]], None):
        with pytest.raises(InvalidArchitecture, match="sequence"):
            decode_onto(space, bad)
