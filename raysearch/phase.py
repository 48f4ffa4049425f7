"""One phase of a run as the progress display sees it: an immutable record, a new one after every event."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from raysearch.formatting import count, decimal, duration, percent

GOOD = {"ok", "full", "stopped"}
SETTLED_S = 2.0  # before that, and before any progress, no time left is guessed


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended; what it did not measure is None."""

    trial_id: str
    status: str
    reward: float | None = None
    accuracy: float | None = None
    num_params: int | None = None

    def __str__(self) -> str:
        if self.status not in GOOD:
            return self.status
        parts = [f"reward {decimal(self.reward)}"]
        parts += [f"accuracy {percent(self.accuracy)}"] if self.accuracy is not None else []
        parts += [f"{count(self.num_params)} parameters"] if self.num_params is not None else []
        parts += ["stopped early"] if self.status == "stopped" else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Training:
    """How far a running trial is."""

    epoch: int = 0
    epochs: int = 1

    @property
    def share(self) -> float:
        """Of its epochs."""
        return min(1.0, self.epoch / max(1, self.epochs))


@dataclass(frozen=True)
class Pace:
    """How fast epochs are trained in this session.

    Attributes:
        since: when the first report came; before it workers were started, which says nothing of what follows.
        epochs: trained since then, by all slots together.
        left: that the trials to come and the running ones will train, running ones counted whole; None: nobody told.
    """

    since: float | None = None
    epochs: int = 0
    left: float | None = None

    def after(self, epochs: int, now: float) -> Pace:
        """After a report of so many more epochs."""
        if self.since is None:
            return replace(self, since=now)
        return replace(self, epochs=self.epochs + epochs)

    def without(self, epochs: int) -> Pace:
        """After the end of a trial of so many epochs, until somebody counts again."""
        return self if self.left is None else replace(self, left=max(0.0, self.left - epochs))

    def left_s(self, running: int, now: float) -> float | None:
        """The seconds until its end, `running` epochs of what is left being trained already; None if nothing can be said yet."""
        if self.since is None or self.left is None or not self.epochs:
            return None
        return max(0.0, self.left - running) * (now - self.since) / self.epochs


@dataclass(frozen=True)
class Phase:
    """Where a phase stands.

    Attributes:
        name, total, text: as given to `Progress.phase`.
        done: steps done; `inherited` of them before this session.
        start: when it began, on the display's clock.
        info: what the last `advance` said.
        running: trial -> how far it is.
        pace: of its trials' epochs, which tells the time left better than the number of trials, since a full training is many short ones.
        best: the best trial that ran to its end.
        rewards: of the finished trials, in order.
        failed: trials that ended without a result.
    """

    name: str
    total: int | None = None
    text: str = ""
    done: int = 0
    inherited: int = 0
    start: float = 0.0
    info: str = ""
    running: Mapping[str, Training] = field(default_factory=dict)
    pace: Pace = Pace()
    best: TrialResult | None = None
    rewards: tuple[float, ...] = ()
    failed: int = 0

    @property
    def fraction(self) -> float | None:
        """The share done, running trials counted in part; None without a total."""
        if not self.total:
            return None
        return min(1.0, (self.done + sum(one.share for one in self.running.values())) / self.total)

    def left_s(self, now: float) -> float | None:
        """The seconds until its end at the pace so far, None if nothing can be said yet."""
        if self.pace.left is not None:
            return self.pace.left_s(sum(one.epoch for one in self.running.values()), now)
        fraction, elapsed = self.fraction, now - self.start
        if fraction is None or not self.total or elapsed < SETTLED_S:
            return None
        gained = fraction - self.inherited / self.total
        return elapsed * (1 - fraction) / gained if gained > 0 else None

    def advanced(self, steps: int, info: str) -> Phase:
        """After `steps` more."""
        return replace(self, done=self.done + steps, info=info or self.info)

    def counted(self, done: int, total: int, epochs_left: float | None = None) -> Phase:
        """With other counts."""
        return replace(self, done=done, total=total, pace=replace(self.pace, left=epochs_left))

    def with_started(self, trial_id: str) -> Phase:
        """With one more running trial."""
        return replace(self, running={**self.running, trial_id: Training()})

    def with_report(self, trial_id: str, training: Training, step: int, now: float) -> Phase:
        """With a trial's report, whose last `step` epochs are new: what it did before may be an earlier session's."""
        running = {**self.running, trial_id: training}
        return replace(self, running=running, pace=self.pace.after(step, now))

    def finished(self, result: TrialResult, *, compared: bool) -> Phase:
        """After a trial's end."""
        running = {trial: one for trial, one in self.running.items() if trial != result.trial_id}
        reward = result.reward
        scored = compared and reward is not None and math.isfinite(reward)
        better = scored and result.status != "stopped" and _above(reward, self.best)
        return replace(
            self,
            done=self.done + 1,
            running=running,
            pace=self.pace.without(self.running.get(result.trial_id, Training()).epochs),
            best=result if better and result.status in GOOD else self.best,
            rewards=(*self.rewards, reward) if scored and reward is not None else self.rewards,
            failed=self.failed + (result.status not in GOOD),
        )

    @property
    def counter(self) -> str:
        """ "12/32", or "12" without a total."""
        return f"{count(self.done)}/{count(self.total)}" if self.total else count(self.done)

    def line(self, now: float) -> str:
        """The state in a line."""
        left = self.left_s(now)
        more = [self.info] if self.info else []
        more += [f"{count(len(self.running))} in training"] if self.running else []
        more += [f"about {duration(left)} left"] if left else []
        return ", ".join([f"{self.name} {self.counter}", *more])

    def trial_line(self, result: TrialResult, now: float) -> str:
        """A finished trial in a line."""
        best = f"; best reward {decimal(self.best.reward)}" if self.best else ""
        left = self.left_s(now)
        return f"{self.name} {self.counter}: {result}{best}" + (
            f"; about {duration(left)} left" if left else ""
        )

    def closing_line(self, now: float) -> str:
        """What stays of the phase when it is over."""
        more = [f"best: {self.best}"] if self.best else [self.info] if self.info else []
        more += [f"{self.failed} failed"] if self.failed else []
        head = f"{self.name} {self.counter}" if self.done or self.total else self.name
        return "; ".join([f"{head} in {duration(now - self.start)}", *more])


def _above(reward: float | None, best: TrialResult | None) -> bool:
    if best is None or best.reward is None:
        return True
    return reward is not None and reward > best.reward
