"""Watching a run: what Tune does becomes lines of the progress display."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from raysearch.progress import Progress


class ProgressCallback(Callback):
    """Feeds the terminal's display from Tune's loop, and counts the actors that were started.

    Attributes:
        slots: trials at once.
        counts: gives what is done, how much there will be in all, and the epochs of what is left; asked after each of Tune's steps in which a trial began or ended, because
            trials alone do not tell: a result may serve two stages, and a method may run out of students.
        workers: (node, process) of the actors.
        training_s: wall time that all slots together would have needed for the trials' steps, were none ever idle.
        peak_worker_bytes: resident memory.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.slots = 1
        self.counts: Callable[[], tuple[int, int, float]] | None = None
        self._is_counted = True
        self.workers: set[tuple[str, int]] = set()
        self.training_s = 0.0
        self.peak_worker_bytes = 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._progress.trial_started(trial.trial_id)
        self._is_counted = False

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.workers.add((result.get("node_ip", ""), result.get("pid", 0)))
        self.training_s += result.get("time_this_iter_s", 0.0) / self.slots
        self.peak_worker_bytes = max(self.peak_worker_bytes, result.get("peak_memory_bytes", 0))
        done = result["epochs_done"]
        repeats = result.get("epochs_trained", done) // max(1, done)  # initialisations of a student
        self._progress.trial_result(
            trial.trial_id,
            done * repeats,
            result["epochs_target"] * repeats,
            result["reward"],
            result["accuracy"],
            step=trial.config.get("epochs_per_step", 1) * repeats,
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        stopped = result.get("epochs_done", 0) < result.get("epochs_target", 0)
        status = result.get("status", "ok")
        self._progress.trial_finished(
            trial.trial_id,
            "stopped" if stopped and status == "ok" else status,
            result.get("reward"),
            result.get("accuracy"),
            result.get("num_params"),
            compared=trial.config.get("stage") == "search" and not stopped,
        )
        self._is_counted = False

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._progress.trial_finished(trial.trial_id, "failed", compared=False)
        self._is_counted = False

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if not self._is_counted:
            self.count()

    def count(self) -> None:
        """Has the display show where the run stands."""
        if self.counts is not None:
            self._progress.counted(*self.counts())
        self._is_counted = True

    def __getstate__(
        self,
    ) -> dict[str, Any]:  # Tune pickles its callbacks; a terminal does not pickle
        return {}
