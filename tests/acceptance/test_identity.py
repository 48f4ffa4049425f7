"""A12: edits that make the same network have the same id, others have not."""

import itertools

import torch
from torch import nn

from raysearch.architecture import Architecture, Edits, SearchSpace
from raysearch.models import build, trace


def chain() -> SearchSpace:
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    return SearchSpace(trace(net, (3, 8, 8)), grouping="by_size")


def removing(space: SearchSpace, *names: str, **fields: tuple[int, ...]) -> Edits:
    places = tuple(space.teacher.index[name] for name in names)
    return Edits(remove=places, widths=space.largest().widths, **fields)


def test_either_of_two_relus_in_a_row_may_go():
    space = chain()
    first, second = (space.architecture_id(removing(space, name)) for name in ("1", "2"))
    assert first == second
    assert first != space.architecture_id(space.largest())
    assert space.architecture_id(removing(space, "1", "2")) != first


def test_a_skip_into_a_removed_layer_changes_nothing():
    space = chain()
    gone = removing(space, "3")
    into = [k for k, (_, t) in enumerate(space.skip_pairs.tolist()) if t == gone.remove[0]]
    assert into
    for pair in into:
        assert space.architecture_id(removing(space, "3", skips=(pair,))) == space.architecture_id(
            gone
        )


def test_skips_from_both_ends_of_a_removed_layer_are_the_same(networks):
    """Removing a layer makes its output its input: a skip from either to a third layer is the same network."""
    space = SearchSpace(networks("PreAct")[1])
    found = 0
    pairs = [tuple(pair) for pair in space.skip_pairs.tolist()]
    for layer in space.removable:
        slots = space.teacher.layers[layer].inputs
        if len(slots) != 1 or len(slots[0]) != 1:
            continue
        before = space.teacher.index[slots[0][0]]
        for target in {t for _, t in pairs if t > layer}:
            if (before, target) in pairs and (layer, target) in pairs:
                ids = {
                    space.architecture_id(
                        removing(
                            space, space.teacher.layers[layer].name, skips=(pairs.index(pair),)
                        )
                    )
                    for pair in ((before, target), (layer, target))
                }
                assert len(ids) == 1
                found += 1
    assert found


def test_students_of_one_id_compute_the_same(networks):
    """Many students of a small space: those that share an id give the same logits, and most others do not."""
    module, architecture = networks("BiasFree")
    space = SearchSpace(architecture, divisor=4)
    images = torch.randn(2, 3, 16, 16)
    outputs: dict[str, list[torch.Tensor]] = {}
    for edits in space.sample(60, seed=0):
        student = space.apply(edits)
        with torch.no_grad():
            logits = build(student, inherit_from=module).eval()(images)
        outputs.setdefault(student.id, []).append(logits)
    assert any(len(same) > 1 for same in outputs.values())
    for same in outputs.values():
        for logits in same[1:]:
            torch.testing.assert_close(logits, same[0])
    representatives = [same[0] for same in outputs.values()]
    differing = [
        not torch.allclose(one, other) for one, other in itertools.combinations(representatives, 2)
    ]
    assert sum(differing) > 0.95 * len(differing)


def test_the_id_is_that_of_the_text_read_again(networks):
    space = SearchSpace(networks("Inception")[1])
    for edits in space.sample(20, seed=1):
        student = space.apply(edits)
        assert Architecture.from_json(student.to_json()).id == student.id
        assert space.architecture_id(str(edits)) == student.id
