"""What a method has learned survives a death of the process at any moment: no result is lost, none is told twice. Ray is not needed."""

from __future__ import annotations

import contextlib
import json

import pytest

from raysearch.architecture import SearchSpace
from raysearch.errors import RunFolderError
from raysearch.observations import ObservationLog
from raysearch.search_state import SearchState, keeps_state
from raysearch.stages import SearchStage
from searchers.algorithm import Exhausted, Observation
from searchers.evolution import EvolutionAlgorithm
from searchers.n2n.algorithm import N2NAlgorithm
from searchers.random import RandomAlgorithm
from searchers.state import dump_state
from tests.architecture.nets import Builder
from tests.searchers.conftest import ToySpace, accuracy_of

NUM_TRIALS, SLOTS = 14, 3
SPACE = ToySpace()


class Learning(EvolutionAlgorithm):
    """Evolution whose generator is a part of what it has learned; counts what it is told."""

    keeps_state = True

    def __init__(self, space, seed=0):
        super().__init__(space, seed=seed, population=4, tournament=3)
        self.heard: list[tuple[str, float | None, int]] = []

    def tell(self, observation):
        super().tell(observation)
        # the number of the proposal comes back with its result, over the log too
        told = (observation.architecture, observation.value, observation.extra.get("number"))
        self.heard.append(told)

    def ask(self):
        proposal = super().ask()
        self.asked = getattr(self, "asked", 0) + 1
        return type(proposal)(proposal.architecture, {**proposal.extra, "number": self.asked})

    def state_dict(self):
        heard = [list(one) for one in self.heard]
        return {**super().state_dict(), "heard": heard, "asked": getattr(self, "asked", 0)}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.heard = [tuple(one) for one in state["heard"]]
        self.asked = state["asked"]


class Died(Exception):
    """The process."""


class Clock:
    """Lets the process die before or after the n-th write of any file."""

    def __init__(self, deadline=None):
        self.now, self.deadline = 0, deadline

    def tick(self):
        self.now += 1
        if self.now == self.deadline:
            raise Died


def dying(cls, method, clock):
    """A class whose writes let the clock tick before and after."""

    def write(self, *args):
        clock.tick()
        getattr(super(made, self), method)(*args)
        clock.tick()

    made = type(cls.__name__, (cls,), {method: write})
    return made


class Session:
    """A life of a process: a stage on the files of a folder, `SLOTS` students in training at a time, the oldest ends first."""

    def __init__(self, folder, clock, algorithm=None, value=accuracy_of):
        self.folder, self.clock, self.value = folder, clock, value
        self.algorithm = algorithm or Learning(SPACE)
        self.space = self.algorithm.space
        self.stage = SearchStage(
            "search",
            self.algorithm,
            num_trials=NUM_TRIALS,
            log=dying(ObservationLog, "append", clock)(folder / "observations.jsonl"),
            identify=lambda text: self.space.apply(text).id,
            state=dying(SearchState, "save", clock)(folder / "search_state.json", "teacher"),
        )
        self.training = []

    def run(self):
        while True:
            while len(self.training) < SLOTS and (proposal := self.stage.ask()) is not None:
                self.clock.tick()
                self.training.append(proposal)
            if not self.training:
                return
            proposal = self.training.pop(0)
            value = self.value(self.space, proposal.architecture)
            failed = round(value * 1e6) % 7 == 0
            self.clock.tick()
            self.stage.tell(
                Observation(
                    proposal.architecture,
                    None if failed else value,
                    1.0,
                    "failed" if failed else "full",
                    extra=proposal.extra,
                )
            )
            self.clock.tick()


def lines(folder):
    text = (folder / "observations.jsonl").read_text()
    keys = ("architecture", "value", "status", "number", "stage")
    return [{key: json.loads(line).get(key) for key in keys} for line in text.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing cut: its lines, its writes, and what the method was told."""
    folder = tmp_path_factory.mktemp("whole")
    session = Session(folder, Clock())
    session.run()
    return lines(folder), session.clock.now, session.algorithm.heard


def test_the_search_is_one_that_depends_on_what_was_learned(whole):
    """Told the log again, the method would go on otherwise: its generator would start anew."""
    found, num_ticks, heard = whole
    assert len(found) == len(heard) == NUM_TRIALS
    assert num_ticks > 4 * NUM_TRIALS
    assert 0 < sum(line["status"] == "failed" for line in found) < NUM_TRIALS / 2
    again = Learning(SPACE)
    other = Learning(SPACE)
    for _ in range(5):
        other.ask()
    assert str(again.ask()) != str(other.ask())


def test_a_search_that_dies_at_any_moment_ends_as_if_it_had_not(tmp_path, whole):
    """All moments between two writes, each of some trials, and a second death soon after."""
    expected, num_ticks, heard = whole
    for deadline in range(1, num_ticks + 1, 3):  # of a trial there are seven
        folder = tmp_path / str(deadline)
        folder.mkdir()
        with pytest.raises(Died):
            Session(folder, Clock(deadline)).run()
        with contextlib.suppress(Died):
            Session(folder, Clock(1 + deadline % 11)).run()
        last = Session(folder, Clock())
        last.run()
        assert lines(folder) == expected, deadline
        assert last.algorithm.heard == heard, deadline


@pytest.mark.parametrize("number", [0, 1, 7, NUM_TRIALS - 1])
def test_a_line_that_was_torn_is_trained_again(tmp_path, whole, number):
    expected, _, heard = whole

    class Tearing(ObservationLog):
        def append(self, record):
            if len(self.records) == number:
                with self.path.open("a") as file:
                    file.write(json.dumps(record)[:30])
                raise Died
            super().append(record)

    session = Session(tmp_path, Clock())
    session.stage.log = Tearing(tmp_path / "observations.jsonl")
    with pytest.raises(Died):
        session.run()
    last = Session(tmp_path, Clock())
    last.run()
    assert lines(tmp_path) == expected
    assert last.algorithm.heard == heard


def test_a_finished_search_is_extended_with_what_it_had_learned(tmp_path, whole, monkeypatch):
    expected, _, _ = whole
    monkeypatch.setattr("tests.test_search_state.NUM_TRIALS", 9)
    Session(tmp_path, Clock()).run()
    assert lines(tmp_path) == expected[:9]
    monkeypatch.undo()
    Session(tmp_path, Clock()).run()
    assert lines(tmp_path)[:9] == expected[:9]
    assert [line["number"] for line in lines(tmp_path)] == list(range(1, NUM_TRIALS + 1))


@pytest.fixture(scope="module")
def chain_space():
    """A small convolutional network, which N2N's policies read."""
    builder = Builder(1, 8, 8)
    for number, width in enumerate((6, 6, 12, 12)):
        builder.conv(f"conv{number}", width)
        builder.relu(f"relu{number}")
    builder.mean()
    builder.linear("fc", 5)
    return SearchSpace(builder.done(), ("remove", "shrink"), grouping="by_size")


def small_is_good(space, text):
    """A reward that does not need a training, and tells students apart."""
    student = space.apply(text)
    share = student.num_params / space.teacher.num_params
    return (1 - share) * (0.5 + 0.5 * (int(student.id, 16) % 97) / 97)


def learned(algorithm):
    """All that N2N's next steps depend on, exactly."""
    state = algorithm.state_dict()
    told = {key: (one["value"], one["status"]) for key, one in state["ledger"]["told"].items()}
    rest = {key: value for key, value in state.items() if key != "ledger"}
    return dump_state({**rest, "told": told, "pending": state["ledger"]["pending"]})


def n2n(space):
    return N2NAlgorithm(space, seed=3, num_trials=NUM_TRIALS, rollouts=2)


def test_policies_learn_from_each_result_once_whatever_moment_the_process_dies_at(
    tmp_path, chain_space
):
    """Weights, optimiser, generators, open rollouts: bit for bit those of a search that nothing cut."""
    (tmp_path / "whole").mkdir()
    whole = Session(tmp_path / "whole", Clock(), n2n(chain_space), small_is_good)
    whole.run()
    expected, knowledge = lines(tmp_path / "whole"), learned(whole.algorithm)
    assert len(expected) == NUM_TRIALS
    iterations = {kind: one.iteration for kind, one in whole.algorithm._controllers.items()}
    assert min(iterations.get(kind, 0) for kind in ("remove", "shrink")) >= 2
    for deadline in range(1, whole.clock.now + 1, 5):  # all moments of a trial: there are seven
        folder = tmp_path / str(deadline)
        folder.mkdir()
        with pytest.raises(Died):
            Session(folder, Clock(deadline), n2n(chain_space), small_is_good).run()
        last = Session(folder, Clock(), n2n(chain_space), small_is_good)
        last.run()
        assert lines(folder) == expected, deadline
        assert learned(last.algorithm) == knowledge, deadline


def saved(folder):
    with pytest.raises(Died):
        Session(folder, Clock(50)).run()
    return folder / "search_state.json"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "Unterminated|Expecting"),
        (lambda text: "[]", "expected a JSON object"),
        (lambda text: "{}", "version"),
        (lambda text: text.replace('"algorithm":"Learning"', '"algorithm":"Other"'), "'Other'"),
        (lambda text: text.replace('"teacher":"teacher"', '"teacher":"net"'), "teacher is 'net'"),
        (lambda text: text.replace('"num_told":', '"num_told":9'), "but the log has"),
        (lambda text: text.replace('"last_told":"', '"last_told":"x'), "is not the one"),
        (lambda text: text.replace('"rng":', '"dice":'), "rng"),
    ],
)
def test_a_torn_or_foreign_file_is_refused_in_one_sentence(tmp_path, damage, reason):
    file = saved(tmp_path)
    text = damage(file.read_text())
    assert text != file.read_text()
    file.write_text(text)
    with pytest.raises(RunFolderError, match=reason) as caught:
        Session(tmp_path, Clock())
    assert str(file) in str(caught.value)
    assert "delete it" in str(caught.value)
    assert "\n" not in str(caught.value)
    file.unlink()  # the remedy
    session = Session(tmp_path, Clock())
    assert len(session.algorithm.heard) == len(lines(tmp_path))


def test_only_methods_that_say_so_keep_a_state(tmp_path):
    assert keeps_state(Learning(SPACE))
    algorithm = RandomAlgorithm(SPACE)
    assert not keeps_state(algorithm)
    stage = SearchStage(
        "search",
        algorithm,
        num_trials=3,
        log=ObservationLog(tmp_path / "observations.jsonl"),
        identify=lambda text: SPACE.apply(text).id,
        state=SearchState(tmp_path / "search_state.json", "teacher"),
    )
    assert stage.ask() is not None
    assert not (tmp_path / "search_state.json").exists()


def test_a_method_s_last_rollouts_are_kept_even_where_it_proposes_nothing(tmp_path):
    """`ask` may change a method that then wants to wait: what it does is written once after each result."""

    class Waiting(Learning):
        def ask(self):
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked > 3:
                raise Exhausted
            if self.asked == 2:
                return None
            return EvolutionAlgorithm.ask(self)

    stage = SearchStage(
        "search",
        Waiting(SPACE),
        num_trials=9,
        log=ObservationLog(tmp_path / "observations.jsonl"),
        identify=lambda text: SPACE.apply(text).id,
        state=SearchState(tmp_path / "search_state.json", "teacher"),
    )
    first = stage.ask()
    stage.tell(Observation(first.architecture, 0.5, 1.0, "full", extra=first.extra))
    assert stage.ask() is None
    stored = json.loads((tmp_path / "search_state.json").read_text())
    assert (stored["num_told"], stored["state"]["asked"], stored["in_flight"]) == (1, 2, [])
