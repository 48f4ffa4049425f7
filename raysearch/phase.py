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
class Phase:
    """Where a phase stands.

    Attributes:
        name, total, text: as given to `Progress.phase`.
        done: steps done; `inherited` of them before this session.
        start: when it began, on the display's clock.
        info: what the last `advance` said.
        running: trial -> the share of its epochs that is done.
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
    running: Mapping[str, float] = field(default_factory=dict)
    best: TrialResult | None = None
    rewards: tuple[float, ...] = ()
    failed: int = 0

    @property
    def fraction(self) -> float | None:
        """The share done, running trials counted in part; None without a total."""
        if not self.total:
            return None
        return min(1.0, (self.done + sum(self.running.values())) / self.total)

    def left_s(self, now: float) -> float | None:
        """The seconds until its end at the pace so far, None if nothing can be said yet."""
        fraction, elapsed = self.fraction, now - self.start
        if fraction is None or not self.total or elapsed < SETTLED_S:
            return None
        gained = fraction - self.inherited / self.total
        return elapsed * (1 - fraction) / gained if gained > 0 else None

    def advanced(self, steps: int, info: str) -> Phase:
        """After `steps` more."""
        return replace(self, done=self.done + steps, info=info or self.info)

    def counted(self, done: int, total: int) -> Phase:
        """With other counts."""
        return replace(self, done=done, total=total)

    def with_running(self, trial_id: str, share: float) -> Phase:
        """With a trial that has done this share of its epochs."""
        return replace(self, running={**self.running, trial_id: share})

    def finished(self, result: TrialResult, *, compared: bool) -> Phase:
        """After a trial's end."""
        running = {
            trial: share for trial, share in self.running.items() if trial != result.trial_id
        }
        reward = result.reward
        scored = compared and reward is not None and math.isfinite(reward)
        better = scored and result.status != "stopped" and _above(reward, self.best)
        return replace(
            self,
            done=self.done + 1,
            running=running,
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
