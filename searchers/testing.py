"""The contract that every algorithm has to keep, as tests that anybody can run on an algorithm of their own.

    class TestMyAlgorithm(AlgorithmContract):
        def make_algorithm(self, space, seed):
            return MyAlgorithm(space, seed=seed)

pytest collects the inherited tests. `make_space` and `make_small_space` may be replaced.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from raysearch.errors import InvalidArchitecture
from searchers.algorithm import Algorithm, Exhausted, Observation, Proposal
from searchers.state import dump_state, load_state

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace

NUM_STEPS = 12
"""Proposals of a run in the contract: enough to leave any algorithm's first phase."""


class AlgorithmContract:
    """Tests of `searchers.algorithm.Algorithm`; a subclass gives the algorithm.

    Attributes:
        unique: the algorithm never proposes an architecture twice (the contract does not ask for it: outcomes are cached).
        covers_space: it goes on until the space has no new architecture.
        edits: its students are edits of the teacher; else whole networks, whose text may be longer, and which never come to an end.
    """

    unique = True
    covers_space = True
    edits = True
    _first_run: tuple[SearchSpace, list[Proposal]]

    def make_algorithm(self, space: SearchSpace, seed: int) -> Algorithm:
        """A fresh algorithm."""
        raise NotImplementedError

    def make_space(self) -> SearchSpace:
        """A space of millions of students."""
        return make_chain_space((8, 8, 8, 8))

    def make_small_space(self) -> SearchSpace:
        """A space of so few students that an algorithm comes to its end."""
        return make_chain_space((2, 2), operations=("remove", "shrink"))

    def first_run(self) -> tuple[SearchSpace, list[Proposal]]:
        """A space and the proposals of a run in it with seed 0, made once for all tests of a class that look at them."""
        if "_first_run" not in type(self).__dict__:
            space = self.make_space()
            proposals = run(self.make_algorithm(space, 0), space, NUM_STEPS)
            type(self)._first_run = (space, proposals)
        return type(self)._first_run

    def test_every_proposal_is_legal_in_the_space(self) -> None:
        space, proposals = self.first_run()
        for proposal in proposals:
            text = proposal.architecture
            student = space.apply(text)
            assert text == (str(space.parse(text)) if self.edits else student.to_compact())
            assert student.num_params <= space.teacher.num_params
            params = space.limits.get("params", math.inf)
            assert student.num_params <= params

    def test_proposals_survive_json_and_stay_under_a_kilobyte(self) -> None:
        for proposal in self.first_run()[1]:
            assert json.loads(json.dumps(proposal.extra)) == proposal.extra
            assert len(proposal.architecture.encode()) < (1000 if self.edits else 4000)

    def test_the_same_seed_and_the_same_order_of_results_give_the_same_proposals(self) -> None:
        """Whether anybody takes the state between two steps or not."""
        space, expected = self.first_run()
        watched = self.make_algorithm(space, 0)
        proposals = []
        for step in range(NUM_STEPS):
            watched.state_dict()
            proposals += run(watched, space, 1, start=step)
        assert proposals == expected

    def test_no_architecture_is_proposed_twice(self) -> None:
        space, proposals = self.first_run()
        identities = [space.apply(proposal.architecture).id for proposal in proposals]
        assert not self.unique or len(set(identities)) == len(identities)

    def test_an_architecture_that_was_told_unasked_is_not_proposed(self) -> None:
        space = self.make_space()
        foreseen = run(self.make_algorithm(space, 5), space, 1)[0]
        algorithm = self.make_algorithm(space, 5)
        algorithm.tell(observe(space, foreseen, 0))
        identities = {
            space.apply(one.architecture).id for one in run(algorithm, space, NUM_STEPS, start=1)
        }
        assert not self.unique or space.apply(foreseen.architecture).id not in identities

    def test_it_proposes_while_results_are_outstanding(self) -> None:
        space = self.make_space()
        algorithm = self.make_algorithm(space, 0)
        told = run(algorithm, space, NUM_STEPS // 2)
        outstanding = [ask_all(algorithm) for _ in range(4)]
        for index, proposal in enumerate(one for one in outstanding if one is not None):
            algorithm.tell(observe(space, proposal, index))
        assert not self.covers_space or (len(told) == NUM_STEPS // 2 and None not in outstanding)

    def test_results_may_come_in_any_order(self) -> None:
        space = self.make_space()
        algorithm = self.make_algorithm(space, 0)
        proposals = [one for one in (ask_all(algorithm) for _ in range(6)) if one is not None]
        for index, proposal in enumerate(reversed(proposals)):
            algorithm.tell(observe(space, proposal, index))
        run(algorithm, space, NUM_STEPS // 2)

    def test_it_survives_when_everything_fails_or_is_stopped(self) -> None:
        space = self.make_space()
        for status in ("failed", "stopped"):
            algorithm = self.make_algorithm(space, 0)
            for _ in range(NUM_STEPS):
                proposal = ask_all(algorithm)
                if proposal is None:
                    break
                value = None if status == "failed" else 0.1
                algorithm.tell(Observation(proposal.architecture, value, 0.25, status))

    def test_it_survives_equal_values(self) -> None:
        space = self.make_space()
        algorithm = self.make_algorithm(space, 0)
        for _ in range(NUM_STEPS):
            proposal = ask_all(algorithm)
            if proposal is None:
                break
            algorithm.tell(Observation(proposal.architecture, 0.5, 1.0, "full"))

    def test_a_saved_state_continues_identically(self) -> None:
        """At its start, in its first phase and after it, each time with one proposal outstanding, and when that one has been told."""
        space, num_told = self.make_space(), 0
        algorithm = self.make_algorithm(space, 7)
        for before, after in ((1, 1), (2, 3), (2, 3)):
            outstanding = ask_all(algorithm)
            text = dump_state(algorithm.state_dict())
            restored = self.make_algorithm(space, 7)
            restored.load_state_dict(load_state(text))
            assert dump_state(restored.state_dict()) == text
            found = []
            for one in (algorithm, restored):
                proposals = run(one, space, before, start=num_told)
                if outstanding is not None:
                    one.tell(observe(space, outstanding, num_told + before))
                proposals += run(one, space, after, start=num_told + before + 1)
                found.append(proposals)
            assert found[0] == found[1]
            num_told += before + 1 + after

    def test_looking_inside_shows_full_students_and_changes_no_proposal(self) -> None:
        space, proposals = self.first_run()
        watched = self.make_algorithm(space, 0)
        look = getattr(watched, "insight", None)
        if look is None:
            return
        assert look() is None
        values: dict[str, float | None] = {}
        for step, proposal in enumerate(proposals):
            assert run(watched, space, 1, start=step) == [proposal]
            observation = observe(space, proposal, step)
            values |= (
                {proposal.architecture: observation.value} if observation.status == "full" else {}
            )
            if step in (NUM_STEPS // 2, NUM_STEPS - 1):
                found = look()
                assert found is not None
                assert set(found.architectures) <= values.keys()
                assert list(found.values) == [values[text] for text in found.architectures]
                for part in (found.loo_mean, found.loo_sd, found.places):
                    assert all(map(math.isfinite, part.flat))
                assert (found.loo_sd >= 0).all()
                assert json.loads(json.dumps(dict(found.notes))) == found.notes

    def test_a_state_of_another_version_is_refused(self) -> None:
        algorithm = self.make_algorithm(self.make_space(), 0)
        try:
            algorithm.load_state_dict(algorithm.state_dict() | {"version": -1})
        except ValueError:
            return
        raise AssertionError("a state of version -1 was taken")

    def test_it_ends_when_the_space_has_nothing_new(self) -> None:
        if not self.edits:
            return
        space = self.make_small_space()
        algorithm = self.make_algorithm(space, 0)
        sampled = {space.apply(edits).id for edits in space.sample(200, 0)}
        proposals = run(algorithm, space, 1000)
        assert len(proposals) < 1000
        assert ask_all(algorithm) is None
        seen = {space.apply(proposal.architecture).id for proposal in proposals}
        assert not self.covers_space or seen >= sampled

    def test_a_foreign_text_is_refused_by_name(self) -> None:
        algorithm = self.make_algorithm(self.make_space(), 0)
        try:
            algorithm.tell(Observation("nonsense", 0.5, 1.0, "full"))
        except InvalidArchitecture:
            return
        raise AssertionError("an architecture outside the space was taken")


def run(algorithm: Algorithm, space: SearchSpace, steps: int, start: int = 0) -> list[Proposal]:
    """Asks and tells in turn, at most `steps` times; every fifth student fails and every seventh is stopped.

    Args:
        start: the number of the first step, which decides about fates.
    """
    proposals = []
    for step in range(start, start + steps):
        proposal = ask_all(algorithm)
        if proposal is None:
            break
        proposals.append(proposal)
        algorithm.tell(observe(space, proposal, step))
    return proposals


def ask_all(algorithm: Algorithm) -> Proposal | None:
    """A proposal; None at the end."""
    try:
        return algorithm.ask()
    except Exhausted:
        return None


def observe(space: SearchSpace, proposal: Proposal, step: int) -> Observation:
    """A made-up outcome, the same for the same student and step: larger students are better, with a little noise."""
    text = proposal.architecture
    student = space.apply(text)
    noise = int(student.id, 16) % 1000 / 1e4
    value = student.num_params / space.teacher.num_params + noise
    if step % 5 == 4:
        return Observation(text, None, 0.0, "failed", extra=proposal.extra)
    if step % 7 == 6:
        return Observation(text, value / 2, 0.25, "stopped", (value / 2,), extra=proposal.extra)
    return Observation(text, value, 1.0, "full", (value / 2, value), extra=proposal.extra)


def make_chain_space(channels: tuple[int, ...], **options: Any) -> SearchSpace:
    """The space of a chain of 3x3 convolutions, each followed by a ReLU, and one linear layer.

    Args:
        channels: of the convolutions.
        options: of `SearchSpace`.
    """
    from raysearch.architecture import SearchSpace
    from raysearch.architecture.graph import Architecture, Layer

    layers, before = [Layer("input", "input", shape=(1, 4, 4))], 1
    for number, width in enumerate(channels):
        attrs = {
            "in_channels": before,
            "out_channels": width,
            "kernel": [3, 3],
            "stride": [1, 1],
            "padding": [1, 1],
            "dilation": [1, 1],
            "groups": 1,
            "bias": True,
        }
        names = {role: f"conv{number}.{role}" for role in ("weight", "bias")}
        source = ((layers[-1].name,),)
        layers.append(Layer(f"conv{number}", "conv", source, attrs, (width, 4, 4), names))
        unary = {"fn": "relu", "args": [], "kwargs": {}}
        source = ((layers[-1].name,),)
        layers.append(Layer(f"relu{number}", "unary", source, unary, (width, 4, 4)))
        before = width
    flat = {"mode": "flatten"}
    layers.append(Layer("flatten", "reshape", ((layers[-1].name,),), flat, (before * 16,)))
    attrs = {"in_features": before * 16, "out_features": 3, "bias": True}
    names = {role: f"head.{role}" for role in ("weight", "bias")}
    layers.append(Layer("head", "linear", (("flatten",),), attrs, (3,), names))
    return SearchSpace(Architecture((1, 4, 4), tuple(layers), "head"), **options)
