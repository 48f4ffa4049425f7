"""Equal networks have equal ids, different ones have different ids."""

from dataclasses import replace

import numpy as np

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.architecture.canonical import canonical_form


def relu_chain(builder, length=3):
    b = builder(3, 8, 8)
    b.conv("conv", 4)
    for index in range(length):
        b.relu(f"relu{index}")
    b.conv("last", 2)
    return b.done()


def without(space, *names):
    places = [space.teacher.index[name] for name in names]
    return replace(space.largest(), remove=tuple(places))


def test_removing_either_of_two_relus_gives_one_network(builder):
    space = SearchSpace(relu_chain(builder))
    ids = {space.architecture_id(without(space, name)) for name in ("relu0", "relu1", "relu2")}
    assert len(ids) == 1
    shorter = relu_chain(builder, 2)
    assert ids == {shorter.id}


def test_removing_one_or_two_layers_gives_different_networks(builder):
    space = SearchSpace(relu_chain(builder))
    texts = [(), ("relu0",), ("relu0", "relu1"), ("relu0", "relu1", "relu2")]
    assert len({space.architecture_id(without(space, *names)) for names in texts}) == 4


def test_names_of_layers_do_not_count_but_those_of_parameters_do(networks):
    vgg = networks["vgg"]()
    renamed = tuple(
        replace(
            layer,
            name="new_" + layer.name,
            inputs=tuple(tuple("new_" + n for n in s) for s in layer.inputs),
        )
        for layer in vgg.layers
    )
    assert Architecture(vgg.input_shape, renamed, "new_" + vgg.output).id == vgg.id
    other = tuple(
        replace(layer, params={role: "other." + entry for role, entry in layer.params.items()})
        for layer in vgg.layers
    )
    assert replace(vgg, layers=other).id != vgg.id


def test_the_order_of_independent_layers_does_not_count(builder):
    def fork(first, second):
        b = builder(3, 8, 8)
        b.conv(first, 4, source="x")
        b.conv(second, 4, source="x")
        b.add("sum", "add", "a", "b")
        return b.done()

    assert fork("a", "b").id == fork("b", "a").id


def test_a_sum_in_a_slot_equals_an_addition_and_its_order_does_not_count(builder):
    def joined(*slots):
        b = builder(3, 8, 8)
        for name in "abc":
            b.conv(name, 4, source="x")
        last = b.add("sum", "add", *slots) if len(slots) > 1 else slots[0]
        b.add("relu", "unary", last, fn="relu", args=[], kwargs={})
        return b.done()

    same = [
        joined("a", "b", "c"),
        joined("c", "a", "b"),
        joined(("a", "b", "c")),
        joined(("b", "c"), "a"),
    ]
    assert len({network.id for network in same}) == 1
    assert joined("a", "b").id != same[0].id
    assert joined("a", "a", "b", "c").id != same[0].id


def test_operands_of_a_product_keep_their_order(builder):
    def ratio(first, second):
        b = builder(3, 8, 8)
        b.conv("a", 4, source="x")
        b.conv("b", 4, source="x")
        b.add("ratio", "binary", first, second, fn="div")
        return b.done()

    assert ratio("a", "b").id != ratio("b", "a").id


def test_layers_that_the_output_does_not_need_do_not_count(builder):
    b = builder(3, 8, 8)
    b.conv("main", 4)
    plain = b.done()
    b.conv("unused", 8, source="x")
    assert replace(b.done(), output="main").id == plain.id


def test_a_skip_from_a_removed_layer_is_one_from_its_input(networks):
    space = SearchSpace(networks["resnet"](), grouping="by_size")
    names = [layer.name for layer in space.teacher.layers]
    pairs = {(names[i], names[j]): k for k, (i, j) in enumerate(space.skip_pairs.tolist())}
    gone = (space.teacher.index["layer1.0.bn1"],)
    full = space.largest().widths
    target = "layer1.1.conv1"
    ids = {
        space.architecture_id(Edits(gone, full, (pairs[source, target],)))
        for source in ("layer1.0.bn1", "layer1.0.conv1")
    }
    assert len(ids) == 1


def test_sampled_students_have_one_id_a_form(networks):
    space = SearchSpace(networks["resnet"](), budget={"params": 0.1})
    students = [space.apply(edits) for edits in space.sample(200, seed=0)]
    forms = {repr(canonical_form(student)) for student in students}
    assert len({student.id for student in students}) == len(forms) > 150


def test_a_chain_of_doubling_identities_stays_small(builder):
    b = builder(3, 8, 8)
    b.conv("c", 4)
    for index in range(200):
        b.add(f"i{index}", "identity", (b.last, b.last))
    assert len(str(canonical_form(b.done()))) < 50_000


def test_ids_are_short_hex_and_do_not_depend_on_the_process(networks):
    ident = networks["vgg"]().id
    assert len(ident) == 12
    assert int(ident, 16) >= 0
    assert np.array_equal(ident, networks["vgg"]().id)
