"""N2N (Ashok et al., ICLR 2018) as an ask/tell algorithm: a policy removes layers of the teacher, then another one shrinks the best student.

    stage one, remove     keep or remove each layer of the teacher             until `removal_share` of the evaluations are spent
    stage two, shrink     a ratio for each channel group (or layer) of the     to the end
                          best student that is known when stage one ends

What actions do: by default they are edits of the space, repaired to the budget where there is one (`space_actions.py`); with `refit` they
are the paper's, on networks of their own (`refit_actions.py`). Rewards, and the distillation, are always against the teacher.

Asynchronous, without a barrier: the next rollout is sampled while others are in training. A batch is made of the m rollouts whose rewards
come next, and its gradient is taken at the weights as they are then. So a rollout may have been sampled some updates before the one that
it enters: no more than the rollouts that are open at a time, divided by m. One at a time, as in the paper, all of a batch are from one
policy. The update does not depend on the order within a batch.

An architecture is trained once. A rollout that makes a known one gets its reward at once (the paper's cache), one that makes a student in
training waits for it. A batch of known students only teaches the policy nothing that it does not know, and makes it repeat itself the more, as
the moving average lags behind: such a batch has an entropy bonus, unless `faithful`, so that new students follow. Rewards by rule:

    full               the observation's value, under constraints as in `raysearch.objective.constrained_reward`
    failed, degenerate -1, or the lowest value so far where that is less (a user's own metric, a loss): no failure is worth more than a student;
                       a degenerate one (not smaller than the teacher, or not a network) is not trained at all
    early-stopped      none: values of different fidelities are never mixed. The rollout is dropped and another takes its place

A result is the rollouts' that made its architecture, whoever had it trained; other results (another search's, a log that is told before the
search goes on) enter no gradient, but are remembered, and the best of them may be what stage two begins with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.errors import InvalidArchitecture
from raysearch.objective import DEGENERATE_REWARD, SOFT_ITERATIONS, constrained_reward
from searchers.algorithm import (
    Exhausted,
    Observation,
    Proposal,
    check_bool,
    check_choice,
    check_int,
    check_share,
)
from searchers.constraints import any_violated, check_reported, costs_of, parse_constraints
from searchers.ledger import Ledger, check_version
from searchers.n2n.options import (
    CONSTRAINT,
    EXPLORE,
    KINDS,
    NOUNS,
    STAGES,
    PolicyOptions,
    check_actions,
    check_implied,
    check_iterations,
    check_number,
    check_shape,
    shape_of,
    stage_seed,
)
from searchers.n2n.policy_files import first_policies, write_policy, write_summary
from searchers.n2n.rollouts import Rollout

if TYPE_CHECKING:
    from raysearch.architecture import SearchSpace
    from searchers.n2n.controller import Controller
    from searchers.n2n.steps import Meaning

ITERATIONS = 100
"""Of each stage, where nothing else ends it (the paper: at least 100)."""
ANSWERS_PER_CALL = 20
"""Rollouts that may be answered within one call while students train, so that Tune's loop is not held up."""
ANSWERS_IN_A_ROW = 100
"""Rollouts in a row that needed no trial: then the stage ends, as its policy has converged, or as all its students are known."""
STATE_VERSION = 2


class N2NAlgorithm:
    """REINFORCE on layer removal, then on layer shrinkage.

    Args:
        space: where the students come from; with `refit` only its teacher counts.
        seed: of everything random.
        faithful: the paper's: `refit`, `windows`, and the rules of its text (any layer that the graph lets go, hidden linear layers shrink);
            stage two waits for the last rollouts of stage one.
        stages: "both", "remove", or "shrink" (from the best known student, or from the teacher). None: both, but shrinkage alone where
            the edits that remove layers save hardly any parameters (coupled groups of a residual network, without a budget).
        removal_share: the share of `num_trials` after which stage one ends, students that others had trained included.
        num_trials: evaluations of the whole search; None: `iterations` ends each stage.
        rollouts: m of a batch (the paper: 5; 3 for ImageNet).
        iterations: updates of each stage at most; None: no limit where `num_trials` is given, else 100.
        refit: actions are the paper's instead of edits.
        windows: kernels and paddings shrink too; needs `refit`; None: as `faithful`.
        lr_removal, lr_shrinkage: of Adam (section 4.2).
        hidden_removal, hidden_shrinkage: units of the LSTMs (section 10.1).
        baseline_decay: of the moving average of rewards.
        entropy: weight of an entropy bonus in nats (neither in the paper nor in its code).
        actor_critic: section 6 of the paper.
        raw_features: the policies read raw integers, as in the authors' code.
        constraints: bounds on what trials report, as text (`searchers.constraints`).
        constraint: "hard", or "soft": a violation costs little at first (section 3.3.1).
        soft_iterations: T_c, the iteration from which on soft is hard.
        warm_start: the folder of an n2n run, of any teacher, whose policies are learned on.
        policy: a folder with policies, instead.

    Attributes:
        stage: "remove" or "shrink", the one that rollouts are sampled for.
        keeps_state: being told the log again does not give what the policies have learned (`raysearch.search_state`).
    """

    keeps_state = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        faithful: bool = False,
        stages: str | None = None,
        removal_share: float = 0.5,
        num_trials: int | None = None,
        rollouts: int = 5,
        iterations: int | None = None,
        refit: bool | None = None,
        windows: bool | None = None,
        lr_removal: float = 0.003,
        lr_shrinkage: float = 0.01,
        hidden_removal: int = 30,
        hidden_shrinkage: int = 50,
        baseline_decay: float = 0.9,
        entropy: float = 0.0,
        actor_critic: bool = False,
        raw_features: bool = False,
        constraints: list[str] | None = None,
        constraint: str = "hard",
        soft_iterations: int = SOFT_ITERATIONS,
        warm_start: str | None = None,
        policy: str | None = None,
    ) -> None:
        self.space = space
        self.faithful = check_bool("search.options.faithful", faithful)
        self.refit = check_implied("refit", refit, self.faithful)
        self.windows = check_implied("windows", windows, self.faithful)
        if stages is not None:
            check_choice("search.options.stages", stages, STAGES)
        self.stages = check_actions(space, stages, refit=self.refit, windows=self.windows)
        self.stage = "shrink" if self.stages == "shrink" else "remove"
        self.removal_share = check_share("search.options.removal_share", removal_share)
        self.num_trials = None if num_trials is None else check_int("num_trials", num_trials, 1)
        self.iterations = check_iterations(iterations, num_trials, ITERATIONS)
        self._constraints = parse_constraints(constraints, costs_of(space.teacher))
        self._soft = check_choice("search.options.constraint", constraint, CONSTRAINT) == "soft"
        self._soft_iterations = check_int("search.options.soft_iterations", soft_iterations, 1)
        hidden = {"remove": hidden_removal, "shrink": hidden_shrinkage}
        rates = {"remove": lr_removal, "shrink": lr_shrinkage}
        self._options = {
            kind: PolicyOptions(
                kind=kind,
                hidden=check_int(f"search.options.hidden_{NOUNS[kind]}", hidden[kind], 1),
                lr=check_number(f"search.options.lr_{NOUNS[kind]}", rates[kind], positive=True),
                rollouts=check_int("search.options.rollouts", rollouts, 1),
                baseline_decay=check_share("search.options.baseline_decay", baseline_decay),
                entropy=check_number("search.options.entropy", entropy, positive=False),
                explore=0.0 if self.faithful else EXPLORE,
                actor_critic=check_bool("search.options.actor_critic", actor_critic),
                raw_features=check_bool("search.options.raw_features", raw_features),
                seed=stage_seed(seed, kind),
            )
            for kind in KINDS
        }
        wanted = {kind: self._options[kind] for kind in KINDS if self.stages in ("both", kind)}
        given = ("faithful", "refit", "windows", "stages")
        self._shape = {name: getattr(self, name) for name in given} | shape_of(self._options)
        self._weights = first_policies(warm_start, policy, wanted)
        self._ledger = Ledger(space)
        self._controllers: dict[str, Controller] = {}
        self._base: str | None = None  # what stage two shrinks; None: not chosen, or the teacher
        self._open: dict[int, Rollout] = {}
        self._num_rollouts = 0
        self._num_answered = 0  # since the last one that needed a trial

    def ask(self) -> Proposal | None:
        if not self.refit and (uniform := self._ledger.new_uniform()) is not None:
            return self._ledger.propose(uniform, origin="uniform")
        num_answers = 0
        while (controller := self._controller()) is not None:
            if self._num_followers >= controller.options.rollouts:
                return None  # the policy repeats itself: what it would learn from is in training
            proposal = self._enter(controller)
            if proposal is not None:
                self._num_answered = 0
                return proposal
            self._num_answered += 1
            num_answers += 1
            if num_answers >= ANSWERS_PER_CALL and self._ledger.pending:
                return None
        return None

    def tell(self, observation: Observation) -> None:
        self._ledger.record(observation)
        identity = self._ledger.identify(observation.architecture)
        waiting = [one for one in self._open.values() if one.architecture_id == identity]
        for rollout in waiting:
            del self._open[rollout.id]
            self._close(rollout, self._ledger.told[identity])

    def admits(self, observation: Observation) -> bool:
        """Whether a trained student keeps the constraints, which count as hard here: others are chosen only where none does."""
        return not any_violated(self._constraints, observation)

    def check_reports(self, report: Collection[str], num_classes: int) -> None:
        """Refuses constraints on what trials are not asked to report, see `searchers.constraints.check_reported`."""
        check_reported(self._constraints, report, num_classes)

    # Rollouts

    def _enter(self, controller: Controller) -> Proposal | None:
        """Samples a rollout; its student, where that must be trained."""
        executed = controller.sample()
        text = executed.architecture
        identity = None if text is None else self._ledger.identify(text)
        outcome = None if identity is None else self._ledger.told.get(identity)
        trains = identity in self._ledger.pending
        rollout = Rollout(
            id=self._num_rollouts,
            stage=controller.options.kind,
            iteration=controller.iteration,
            actions=tuple(executed.actions.tolist()),
            architecture=text,
            architecture_id=identity,
            known=trains or outcome is not None,
        )
        self._num_rollouts += 1
        if text is None:
            controller.take(rollout, self._worst)
            return None
        if outcome is not None:
            self._close(rollout, outcome)
            return None
        self._open[rollout.id] = rollout
        if trains:
            return None
        return self._ledger.propose(
            text, rollout=rollout.id, method_stage=rollout.stage, iteration=rollout.iteration
        )

    def _close(self, rollout: Rollout, outcome: Observation) -> None:
        """Credits a rollout with its student's outcome; an early-stopped one is dropped."""
        reward = self._reward(outcome, rollout.iteration)
        if reward is not None:
            self._controllers[rollout.stage].take(rollout, reward)

    def _reward(self, outcome: Observation, iteration: int | None) -> float | None:
        """R of an outcome; None: it has none. `iteration` None: constraints are hard."""
        if outcome.status == "stopped":
            return None
        if outcome.status == "failed" or outcome.value is None:
            return self._worst
        violated = any_violated(self._constraints, outcome)
        soft = (iteration if self._soft else None), self._soft_iterations
        return constrained_reward(outcome.value, violated, *soft, worst=self._worst)

    @property
    def _worst(self) -> float:
        """The reward of a student that is none: the paper's -1, unless another objective than f went below it."""
        values = [one.value for one in self._ledger.full if one.value is not None]
        return min([DEGENERATE_REWARD, *values])

    @property
    def _num_followers(self) -> int:
        """Open rollouts whose student was in training already when they were sampled."""
        return len(self._open) - len({one.architecture_id for one in self._open.values()})

    # Stages

    def _controller(self) -> Controller | None:
        """The policy that is to be sampled; None: not before something more is told.

        Raises:
            Exhausted: both stages are over, and nothing is in training.
        """
        if self.stage == "remove" and self.stages == "both" and self._is_over("remove"):
            if self._open and (self.faithful or not self._ledger.full):
                return None
            self.stage, self._num_answered = "shrink", 0
        if not self._is_over(self.stage):
            return self._controllers.get(self.stage) or self._make(self.stage)
        if self._ledger.pending:
            return None
        raise Exhausted

    def _is_over(self, stage: str) -> bool:
        """Whether no more rollouts of a stage are sampled."""
        if not self._has_decisions(stage) or self._num_answered >= ANSWERS_IN_A_ROW:
            return True
        if stage == "remove" and self.stages == "both" and self.num_trials is not None:
            spent = self._ledger.num_students / self.num_trials
            if spent >= self.removal_share:
                return True
        if self.iterations is None or stage not in self._controllers:
            return False
        one = self._controllers[stage]
        num_open = sum(rollout.stage == stage for rollout in self._open.values())
        credited = one.iteration * one.options.rollouts + len(one.batch)
        return credited + num_open >= self.iterations * one.options.rollouts

    def _has_decisions(self, stage: str) -> bool:
        return stage in self._controllers or bool(self._meaning(stage).steps.free.any())

    def _make(self, stage: str) -> Controller:
        from searchers.n2n.controller import Controller

        made = Controller(self._options[stage], self._meaning(stage), self._weights.get(stage))
        self._controllers[stage] = made
        return made

    def _meaning(self, stage: str) -> Meaning:
        """What a stage's actions do; that of stage two fixes what it begins with."""
        from raysearch.architecture.refit import Rules
        from searchers.n2n.refit_actions import RefitRemoval, RefitShrinkage
        from searchers.n2n.space_actions import SpaceRemoval, SpaceShrinkage

        space, rules = self.space, Rules("paper" if self.faithful else "reference")
        if stage == "remove":
            return RefitRemoval(space.teacher, rules) if self.refit else SpaceRemoval(space)
        if self._base is None:
            self._base = self._best()
        if not self.refit:
            return SpaceShrinkage(space, space.parse(self._base))
        network = space.apply(self._base)
        return RefitShrinkage(network, space.teacher, rules, windows=self.windows)

    def _best(self) -> str:
        """What stage two begins with: the best student that is known, constraints counting as hard; else the largest one."""
        best: tuple[float, str] | None = None
        for outcome in self._ledger.full:
            reward = self._reward(outcome, None)
            if reward is not None and (best is None or reward > best[0]) and self._fits(outcome):
                best = reward, outcome.architecture
        if best is not None:
            return best[1]
        return str(self.space.uniform() if self.space.limits else self.space.largest())

    def _fits(self, outcome: Observation) -> bool:
        """Whether a student can be shrunk: with refit any can, else edits alone."""
        if self.refit:
            return True
        try:
            self.space.parse(outcome.architecture)
        except InvalidArchitecture:
            return False
        return True

    # Knowledge

    def history(self) -> list[dict[str, Any]]:
        """A record of each update of both policies, stage by stage (see `Controller.history`)."""
        return [dict(row) for kind in self._controllers for row in self._controllers[kind].history]

    def policy_table(self) -> list[dict[str, Any]]:
        """What the policies do with each layer now (see `Controller.table`); empty before the first rollout."""
        return [row for controller in self._controllers.values() for row in controller.table()]

    def write_knowledge(self, folder: Path) -> None:
        """Writes the policies, their history and their table into a folder, which is made where it is missing (`policy_files.py`)."""
        folder.mkdir(parents=True, exist_ok=True)
        for controller in self._controllers.values():
            write_policy(folder, controller.options, controller.weights())
        write_summary(folder, self.history(), self.policy_table())

    def warm_up(self) -> None:
        """Imports torch, which costs seconds the first time in a process."""
        import searchers.n2n.controller  # noqa: F401

    # State

    def state_dict(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "options": self._shape,
            "ledger": self._ledger.state_dict(),
            "stage": self.stage,
            "base": self._base,
            "open": [rollout.to_dict() for rollout in self._open.values()],
            "num_rollouts": self._num_rollouts,
            "num_answered": self._num_answered,
            "controllers": {kind: one.state_dict() for kind, one in self._controllers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_version(state, STATE_VERSION)
        check_shape(self._shape, state["options"])
        self._ledger.load_state_dict(state["ledger"])
        self.stage, self._base = state["stage"], state["base"]
        self._open = {rollout.id: rollout for rollout in map(Rollout.from_dict, state["open"])}
        self._num_rollouts, self._num_answered = state["num_rollouts"], state["num_answered"]
        self._controllers = {}
        for kind, values in state["controllers"].items():
            self._make(kind).load_state_dict(values)
