"""Methods by name and by a user's own path."""

from __future__ import annotations

import sys

import pytest

import searchers
from raysearch.errors import ConfigError
from searchers.algorithm import Observation, Proposal
from searchers.foreign import SearcherAlgorithm
from searchers.registry import METHODS, make_algorithm, option_names, resolve
from searchers.runs import MakesRuns
from searchers.testing import make_chain_space
from searchers.tune import TuneSearcher


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Writes `own.py` onto the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)

    def write(source):
        (tmp_path / "own.py").write_text(source)

    yield write
    sys.modules.pop("own", None)


OWN_ALGORITHM = """
from searchers import Proposal
class Mine:
    def __init__(self, space, step=1):
        self.space, self.step = space, step
    def ask(self):
        return Proposal(str(self.space.uniform()))
    def tell(self, observation): pass
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
def function(space): return 3
class Half:
    def ask(self): pass
class Raises:
    def __init__(self, space): raise RuntimeError("no luck")
"""

OWN_SEARCHER = """
from ray.tune.search import Searcher
class Mine(Searcher):
    def __init__(self, space):
        super().__init__(metric="loss", mode="min")
        self.space, self.done, self.count = space, {}, 0
    def suggest(self, trial_id):
        if self.count == 2: return self.FINISHED
        self.count += 1
        edits = str(self.space.sample(1, self.count)[0])
        return {"architecture": edits, "lr": 0.1}
    def on_trial_complete(self, trial_id, result=None, error=False):
        self.done[trial_id] = None if error else result["loss"]
    def save(self, path):
        with open(path, "w") as file: file.write(str(self.count))
    def restore(self, path):
        with open(path) as file: self.count = int(file.read())
class Plain(Searcher):
    def suggest(self, trial_id): return {"lr": 0.1}
"""


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_an_algorithm_that_proposes(method):
    space = make_chain_space((4, 4))

    def pruned(forms):
        return [Proposal(str(student)) for student in space.sample(len(forms), seed=0)]

    algorithm = make_algorithm(method, space, 0, {}, pruned=pruned)
    if isinstance(algorithm, MakesRuns):
        run = algorithm.ask_run()
        found = [{"architecture": str(space.sample(1, seed=0)[0]), "reward": 0.5}]
        told = {"extra": run.extra, "details": {"students": found}}
        algorithm.tell_run(Observation(run.architecture, 0.5, 1.0, "full", **told))
    assert space.parse(algorithm.ask().architecture)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_one_line_summary(method):
    assert METHODS[method].summary.endswith(".")
    assert len(METHODS[method].summary) < 100


def test_options_reach_the_algorithm(toy_space):
    algorithm = make_algorithm("evolution", toy_space, 0, {"population": 5, "tournament": 2})
    assert (algorithm.population, algorithm.tournament) == (5, 2)


def test_an_unknown_method_is_named_with_the_nearest_one(toy_space):
    with pytest.raises(
        ConfigError, match=r"'evolutoin', which is unknown: did you mean 'evolution'"
    ):
        make_algorithm("evolutoin", toy_space)


@pytest.mark.parametrize("method", [None, 3, "", "xyzzy"])
def test_what_is_no_method_lists_the_choices(toy_space, method):
    with pytest.raises(ConfigError, match="choose one of random, evolution, gp"):
        make_algorithm(method, toy_space)


def test_an_unknown_option_is_named_with_the_valid_ones(toy_space):
    with pytest.raises(
        ConfigError, match=r"options\.popsize is not an option.*'evolution': valid are"
    ):
        make_algorithm("evolution", toy_space, 0, {"popsize": 3})
    with pytest.raises(ConfigError, match="it has none"):
        make_algorithm("random", toy_space, 0, {"popsize": 3})


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("evolution", {"population": 0}),
        ("evolution", {"tournament": "two"}),
        ("evolution", {"num_edits": [3, 1]}),
        ("evolution", {"num_edits": 3}),
        ("gp", {"num_initial": 2.5}),
        ("gp", {"mutation_share": 1.5}),
        ("gp", {"num_candidates": True}),
        ("gp", {"composite": "maybe"}),
        ("tpe", {"num_skips": -1}),
    ],
)
def test_a_wrong_option_value_is_named(toy_space, method, options):
    (name,) = options
    with pytest.raises(ConfigError, match=rf"search\.options\.{name} must be"):
        make_algorithm(method, toy_space, 0, options)


def test_the_number_of_trials_reaches_those_who_ask_for_it(toy_space, own_module):
    own_module(
        OWN_ALGORITHM
        + """
class Counts(Mine):
    def __init__(self, space, num_trials):
        self.space, self.num_trials = space, num_trials
class Takes(Mine):
    def __init__(self, **options):
        self.options = options
"""
    )
    assert make_algorithm("own:Counts", toy_space, num_trials=7).num_trials == 7
    assert option_names("own:Counts") == ()
    assert set(make_algorithm("own:Takes", toy_space, num_trials=7).options) == {"space", "seed"}
    assert make_algorithm("random", toy_space, num_trials=7)


def test_options_are_listed():
    assert option_names("random") == ()
    assert "num_candidates" in (option_names("gp") or ())


def test_an_algorithm_of_ones_own_is_made_from_its_path(own_module, toy_space):
    own_module(OWN_ALGORITHM)
    algorithm = make_algorithm("own:Mine", toy_space, 0, {"step": 2})
    assert algorithm.step == 2
    assert TuneSearcher(algorithm).suggest("t0")["architecture"] == str(toy_space.uniform())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("own:Missing", "could not be imported"),
        ("no_such_package.module:Class", "could not be imported: ModuleNotFoundError"),
        ("own:Half", "without tell, state_dict, load_state_dict"),
        ("own:Raises", "could not be created: RuntimeError: no luck"),
        ("own:function", "gives a int"),
        ("own:__doc__", "is not a class"),
    ],
)
def test_a_path_that_does_not_fit_is_named_with_the_reason(own_module, toy_space, method, message):
    own_module(OWN_ALGORITHM)
    with pytest.raises(ConfigError, match=message):
        make_algorithm(method, toy_space)


def test_a_module_that_raises_at_import_is_named(own_module, toy_space):
    own_module("raise RuntimeError('broken at import')")
    with pytest.raises(ConfigError, match="RuntimeError: broken at import"):
        make_algorithm("own:Mine", toy_space)


def test_an_unknown_option_of_ones_own_class_is_named(own_module, toy_space):
    own_module(OWN_ALGORITHM)
    with pytest.raises(ConfigError, match=r"options\.stride is not an option.*valid are step"):
        make_algorithm("own:Mine", toy_space, 0, {"stride": 2})


def test_a_ray_searcher_of_ones_own_is_wrapped(own_module, toy_space, tmp_path):
    own_module(OWN_SEARCHER)
    algorithm = make_algorithm("own:Mine", toy_space)
    assert isinstance(algorithm, SearcherAlgorithm)
    searcher = TuneSearcher(algorithm, max_retries=0)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert first["lr"] == 0.1
    searcher.save(str(tmp_path / "state"))
    result = {"reward": -0.25, "config/architecture": first["architecture"]}
    searcher.on_trial_complete(trial_id="a", result=result)
    searcher.on_trial_complete(trial_id="b", result=None, error=True)
    assert algorithm.searcher.done == {"00000000": 0.25, "00000001": None}
    assert searcher.suggest("c") == "FINISHED"

    restored = TuneSearcher(make_algorithm("own:Mine", toy_space))
    restored.restore(str(tmp_path / "state"))
    assert restored.restore_error is None
    assert restored.suggest("b")["architecture"] == second["architecture"]
    assert restored.algorithm.searcher.count == 2


def test_a_searcher_that_suggests_no_architecture_is_named(own_module, toy_space):
    own_module(OWN_SEARCHER)
    searcher = TuneSearcher(make_algorithm("own:Plain", toy_space))
    assert searcher.suggest("a") == "FINISHED"
    assert "a suggestion needs 'architecture'" in str(searcher.error)


def test_one_of_our_own_searchers_is_unwrapped(toy_space):
    from searchers.random import RandomAlgorithm

    algorithm = make_algorithm("searchers:RandomSearch", toy_space, 4)
    assert isinstance(algorithm, RandomAlgorithm)


def test_the_package_offers_its_public_names_lazily():
    for name in searchers.__all__:
        assert getattr(searchers, name) is not None
    assert resolve("random") is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = searchers.Nothing
