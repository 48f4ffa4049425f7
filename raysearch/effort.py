"""What a search may spend besides its number of trials: epochs, or seconds.

Both are counted from the log's records, so a run that is continued goes on counting where it was; an answer from the cache counts as
the training that it saved.

Epochs: what its trials really trained. A student that a scheduler stops early costs only what it got, so a search with early stopping
affords more students. Where each is trained from several initialisations, the epochs of all of them count. A student is started while the rest holds a whole training: never more is spent, and less than one training is
left over.

Seconds: of the training of its trials, each by its own clock and summed, and of the method that proposed them. So neither the number
of workers nor the pauses between them count. On the CPU a trial's clock is its processor time, which other processes do not slow down. A student is started while the seconds spent, with the running students taken as the
average of those before, are below the limit: the last ones may overshoot it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Effort:
    """The limits of a search.

    Attributes:
        epochs, seconds: in all; None: no limit.
        epochs_of_trial: of a student that is trained to its end, from all its initialisations together.
    """

    epochs: int | None = None
    seconds: float | None = None
    epochs_of_trial: int = 1

    @property
    def num_trials(self) -> float:
        """The students that it affords at least, as far as that is known before."""
        return math.inf if self.epochs is None else self.epochs // self.epochs_of_trial

    def allows_another(self, records: Sequence[Record], num_in_flight: int) -> bool:
        """Whether one more student may be started.

        Args:
            records: the finished evaluations.
            num_in_flight: students in training.
        """
        if self.epochs is not None:
            needed = (num_in_flight + 1) * self.epochs_of_trial
            if sum(map(epochs_of, records)) + needed > self.epochs:
                return False
        if self.seconds is not None:
            spent = [seconds_of(record) for record in records]
            average = sum(spent) / len(spent) if spent else 0.0
            return sum(spent) + num_in_flight * average < self.seconds
        return True


NO_LIMIT = Effort()


def epochs_of(record: Record) -> int:
    """What a student was trained, from all its initialisations together."""
    return int(record.get("epochs_trained") or record.get("epochs_done") or 0)


def seconds_of(record: Record) -> float:
    """The seconds of a student's training, and of the method that proposed it."""
    key = "cpu_seconds" if record.get("device") == "cpu" else "seconds"
    return float(record.get(key) or 0.0) + float(record.get("propose_s") or 0.0)
