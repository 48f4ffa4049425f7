"""Search spaces: counts, legality, budgets, parsing; properties over many seeds."""

import pickle

import numpy as np
import pytest

from raysearch.architecture import Architecture, Edits, EditsBatch, SearchSpace
from raysearch.architecture.checks import check
from raysearch.errors import ConfigError, InvalidArchitecture

SEEDS = range(20)
GROUPINGS = ["coupled", "by_size"]


@pytest.fixture(params=GROUPINGS)
def grouping(request):
    return request.param


def test_counts_of_a_batch_equal_those_of_the_built_students(teacher, grouping, count_params):
    space = SearchSpace(teacher, grouping=grouping)
    for seed in SEEDS:
        batch = space.sample(3, seed=seed)
        students = [space.apply(edits) for edits in batch]
        assert space.num_params(batch).tolist() == [s.num_params for s in students]
        assert space.num_params(batch).tolist() == [count_params(s) for s in students]
        assert space.macs(batch).tolist() == [s.macs for s in students]
        assert space.num_params(batch).dtype == space.macs(batch).dtype == np.int64


def test_sampled_and_mutated_students_are_legal_networks(teacher, grouping):
    space = SearchSpace(teacher, grouping=grouping, budget={"params": 0.3})
    shape = teacher[teacher.output].shape
    for seed in SEEDS:
        batch = space.sample(2, seed=seed)
        for edits in (*batch, *space.mutate(batch, seed)):
            student = check(space.apply(edits))
            assert student[student.output].shape == shape
            assert Architecture.from_json(student.to_json()) == student
            assert [layer.name for layer in student.layers] == [x.name for x in teacher.layers]


def test_text_of_edits_gives_back_the_edits_and_the_student(teacher, grouping):
    space = SearchSpace(teacher, grouping=grouping)
    for edits in space.sample(20, seed=3):
        assert space.parse(str(edits)) == edits
        assert space.apply(str(edits)) == space.apply(edits)


@pytest.mark.parametrize(
    "budget", [{"params": 0.1}, {"params": 0.05}, {"macs": 0.2}, {"params": 0.5}]
)
def test_budgets_hold_and_are_used_to_nine_tenths(networks, grouping, budget):
    (metric,) = budget
    for name in ("resnet14", "vgg", "mixed"):
        space = SearchSpace(networks[name](), grouping=grouping, budget=budget)
        limit = space.limits[metric]
        batch = space.sample(200, seed=0)
        for students in (batch, space.mutate(batch, 0)):
            used = space.num_params(students) if metric == "params" else space.macs(students)
            assert used.max() <= limit
            assert used.min() >= 0.9 * limit


def test_several_budgets_hold_together_and_one_of_them_binds(teacher):
    space = SearchSpace(teacher, budget={"params": 0.3, "macs": 0.1})
    batch = space.sample(200, seed=0)
    params = space.num_params(batch) / space.limits["params"]
    macs = space.macs(batch) / space.limits["macs"]
    assert max(params.max(), macs.max()) <= 1
    assert np.maximum(params, macs).min() >= 0.9


def test_the_same_seed_gives_the_same_students(teacher):
    space, again = (SearchSpace(teacher, budget={"params": 0.2}) for _ in range(2))
    batch = space.sample(30, seed=5)
    assert list(batch) == list(again.sample(30, seed=5))
    assert list(batch) == list(space.sample(30, np.random.default_rng(5)))
    assert list(space.mutate(batch, 7)) == list(again.mutate(batch, 7))
    assert list(batch) != list(space.sample(30, seed=6))


def test_repairing_twice_changes_nothing(teacher, grouping):
    for budget in ({"params": 0.1}, {"params": 0.9}, {"params": 0.3, "macs": 0.2}, None):
        space = SearchSpace(teacher, grouping=grouping, budget=budget)
        batch = space.mutate(space.sample(100, seed=0), 0)
        assert list(space.repair(batch)) == list(batch)


def test_repair_of_a_batch_is_repair_of_each(teacher):
    free = SearchSpace(teacher)
    space = SearchSpace(teacher, budget={"params": 0.15})
    wild = free.sample(40, seed=2)
    one_by_one = [space.repair(EditsBatch.from_edits([edits]))[0] for edits in wild]
    assert list(space.repair(wild)) == one_by_one


def test_an_edit_inside_the_budget_that_fills_it_is_left_alone(networks):
    space = SearchSpace(networks["resnet"](), budget={"params": 0.2})
    uniform = space.uniform()
    assert list(space.repair(EditsBatch.from_edits([uniform]))) == [uniform]


def test_a_small_student_grows_and_a_large_one_shrinks(networks):
    space = SearchSpace(networks["resnet"](), budget={"params": 0.2})
    repaired = space.repair(EditsBatch.from_edits([space.smallest(), space.largest()]))
    assert (space.num_params(repaired) >= 0.9 * space.limits["params"]).all()
    assert space.within_budget(repaired).all()


def test_removed_layers_come_back_where_widths_cannot_fill(networks):
    space = SearchSpace(networks["vgg"](), ["remove"], "by_size", budget={"params": 1.0})
    repaired = space.repair(EditsBatch.from_edits([space.smallest()]))
    assert space.num_params(space.smallest())[0] < 0.5 * space.limits["params"]
    assert space.num_params(repaired)[0] >= 0.9 * space.limits["params"]


def test_layers_are_removed_where_shrinking_is_not_allowed(networks):
    space = SearchSpace(networks["vgg"](), ["remove"], "by_size", budget={"params": 0.6})
    batch = space.sample(50, seed=0)
    assert space.within_budget(batch).all()
    assert (batch.widths == space.largest().widths).all()


def test_uniform_scales_all_groups_by_one_factor(networks):
    for share in (0.05, 0.1, 0.3, 0.7):
        space = SearchSpace(networks["resnet"](), divisor=1, budget={"params": share})
        uniform = space.uniform()
        sizes = np.array([g.size for g in space.groups])
        factors = np.array(uniform.widths) / sizes
        assert uniform.remove == uniform.skips == ()
        # a width differs from the common factor by its rounding and by one filling step
        assert (abs(factors - np.median(factors)) <= 2 / sizes).all()
        assert 0.97 * space.limits["params"] <= space.num_params(uniform)[0]


def test_without_a_budget_uniform_is_the_teacher_itself(teacher):
    space = SearchSpace(teacher)
    assert space.uniform() == space.largest()
    assert space.apply(space.uniform()) == teacher
    assert space.architecture_id(space.largest()) == teacher.id


def test_smallest_is_no_larger_than_any_sample(teacher, grouping):
    space = SearchSpace(teacher, grouping=grouping)
    batch = space.sample(200, seed=0)
    assert space.num_params(space.smallest())[0] <= space.num_params(batch).min()
    assert space.macs(space.smallest())[0] <= space.macs(batch).min()
    assert space.num_params(batch).max() <= teacher.num_params


def test_a_removed_layer_is_an_identity_of_its_name(networks):
    space = SearchSpace(networks["resnet"]())
    place = space.teacher.index["bn1"]
    student = space.apply(Edits((place,), space.largest().widths))
    layer = student["bn1"]
    assert (layer.op, dict(layer.attrs), dict(layer.params)) == ("identity", {}, {})
    assert layer.inputs == (("conv1",),)
    assert student.num_params == space.teacher.num_params - 32


def test_a_skip_adds_its_source_to_the_first_slot_unless_the_target_is_removed(networks):
    space = SearchSpace(networks["resnet"](), grouping="by_size")
    source, target = space.skip_pairs[0].tolist()
    layers = space.teacher.layers
    full = space.largest().widths
    student = space.apply(Edits((), full, (0,)))
    assert student.layers[target].inputs[0] == (*layers[target].inputs[0], layers[source].name)
    removable = [k for k, (_, j) in enumerate(space.skip_pairs) if j in space.removable]
    gone = int(space.skip_pairs[removable[0], 1])
    student = space.apply(Edits((gone,), full, (removable[0],)))
    assert student.layers[gone].inputs == layers[gone].inputs


def test_operations_limit_what_is_drawn(networks):
    teacher = networks["resnet"]()
    sizes = SearchSpace(teacher).largest().widths
    shrink = SearchSpace(teacher, ["shrink"]).sample(50, seed=0)
    assert not shrink.remove.any()
    assert not len(shrink.skip_rows)
    skip = SearchSpace(teacher, ["skip"]).sample(50, seed=0)
    assert (skip.widths == sizes).all()
    assert len(skip.skip_rows)
    remove = SearchSpace(teacher, ["remove"])
    assert remove.mutate(remove.sample(50, seed=0), 1).remove.any()


def test_a_space_without_operations_holds_the_teacher_alone(networks):
    space = SearchSpace(networks["vgg"](), [])
    batch = space.mutate(space.sample(3, seed=0), 0)
    assert list(batch) == [space.largest()] * 3


def test_a_pickled_space_draws_the_same_students(teacher):
    space = SearchSpace(teacher, budget={"params": 0.2})
    batch = space.sample(20, seed=0)
    space.features(batch)
    space.encode(batch)
    copy = pickle.loads(pickle.dumps(space))
    assert list(copy.sample(20, seed=0)) == list(batch)
    assert copy.teacher == teacher
    assert hash(copy.teacher) == hash(teacher)


def test_mutation_changes_most_students_and_by_little(networks):
    space = SearchSpace(networks["resnet"]())
    batch = space.sample(300, seed=0)
    mutated = space.mutate(batch, 1)
    assert np.mean([a != b for a, b in zip(batch, mutated, strict=True)]) > 0.95
    flips = (batch.remove != mutated.remove).sum(axis=1)
    changed = (batch.widths != mutated.widths).sum(axis=1)
    assert (flips + changed).max() <= 4


def test_the_edits_of_an_empty_batch_pass_through(networks):
    space = SearchSpace(networks["vgg"](), budget={"params": 0.2})
    empty = space.sample(0, seed=0)
    assert len(empty) == len(space.mutate(empty, 0)) == len(space.batch([])) == 0
    assert space.num_params(empty).shape == (0,)
    assert space.features(empty).shape[0] == space.encode(empty).shape[0] == 0


def test_edits_without_all_columns_are_completed(networks):
    space = SearchSpace(networks["resnet"](), budget={"params": 0.2})
    edits = list(space.sample(10, seed=0))
    narrow, full = EditsBatch.from_edits(edits), space.batch(map(str, edits))
    assert narrow.remove.shape[1] < full.remove.shape[1] == len(space.teacher.layers)
    assert list(narrow) == list(full) == edits
    assert (space.num_params(narrow) == space.num_params(full)).all()


def wrong_edits(space):
    full = space.largest().widths
    fixed = next(k for k in range(len(space.teacher.layers)) if k not in space.removable)
    return {
        "remove names layer": Edits((fixed,), full),
        "which does not exist": Edits((5000,), full),
        "widths has": Edits((), full[1:]),
        r"widths\[0\] is 0": Edits((), (0, *full[1:])),
        r"widths\[0\] is 100000": Edits((), (100_000, *full[1:])),
        "skips names pair": Edits((), full, (len(space.skip_pairs),)),
    }


def test_edits_of_another_space_are_refused_with_the_field(teacher):
    space = SearchSpace(teacher)
    for message, edits in wrong_edits(space).items():
        with pytest.raises(InvalidArchitecture, match=message):
            space.parse(str(edits))
        with pytest.raises(InvalidArchitecture, match=message):
            space.apply(edits)
        with pytest.raises(InvalidArchitecture):
            space.apply(str(edits) + "*")


def test_a_width_that_groups_do_not_divide_is_refused(networks):
    space = SearchSpace(networks["mixed"]())
    group = next(g for g in space.groups if g.alignment == 3)
    widths = [g.size for g in space.groups]
    widths[group.id] = 4
    with pytest.raises(InvalidArchitecture, match="multiple of 3"):
        space.apply(Edits((), tuple(widths)))


@pytest.mark.parametrize("thing", ["", "hello", "e1.", "json:", "json:abc", None, 3])
def test_other_things_are_no_students(networks, thing):
    with pytest.raises(InvalidArchitecture):
        SearchSpace(networks["vgg"]()).apply(thing)


def test_a_whole_network_can_stand_for_edits(networks):
    space = SearchSpace(networks["vgg"]())
    other = networks["vgg"]((8, "M", 8, "M"))
    assert space.apply(other.to_compact()) == other
    assert space.architecture_id(other.to_compact()) == other.id
    with pytest.raises(InvalidArchitecture, match="input_shape"):
        space.apply(networks["mixed"]().to_compact())
    with pytest.raises(InvalidArchitecture, match="the output has shape"):
        space.apply(networks["vgg"](classes=3).to_compact())


def test_batches_of_another_space_are_refused(networks):
    space, other = SearchSpace(networks["vgg"]()), SearchSpace(networks["resnet"]())
    with pytest.raises(InvalidArchitecture, match="channel groups"):
        space.num_params(other.sample(3, seed=0))


@pytest.mark.parametrize("operations", ["remove", ["prune"], [3]])
def test_unknown_operations_are_refused(networks, operations):
    with pytest.raises(ConfigError, match=r"space\.operations"):
        SearchSpace(networks["vgg"](), operations)
