"""A student as a Tune trial that is looked up in a table instead of trained: any Tune script, searcher and scheduler, in milliseconds.

Tuner(ReplayTrainable.bound("benchmarks/tables/digits_resnet14.parquet", budget={"params": 0.05}), ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from raysearch.architecture import Architecture
from raysearch.errors import InvalidArchitecture
from raysearch.files import read_json, write_json
from raysearch.tables import Judge, Table

FULL_STAGES = ("finish", "uniform", "random_finish")
"""The stages of a run that train fully; all others train the short recipe."""


@dataclass(frozen=True, eq=False)
class ReplayContext:
    """What all trials share; lives once a machine in Ray's object store.

    Attributes:
        table: with its surrogate fitted.
        judge: how students are rewarded.
        seed: of the trainings; a trial's config may name another.
    """

    table: Table
    judge: Judge
    seed: int = 0


@dataclass(frozen=True)
class _Replay:
    """A student's whole training, known in advance."""

    student: Architecture
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    seconds: float
    extra: Mapping[str, Any]


class ReplayTrainable(tune.Trainable):
    """One student's training from a table, epoch by epoch; what it reports is what `DistillationTrainable` reports.

    Config keys: `architecture` (text of the edits), and optionally `stage` ("search" is the default), `seed`, `epochs_per_step`.
    Beside the distillation's keys each result holds `exact`: from a row of the table, or predicted by its surrogate; in a stage of full
    training also `test_accuracy`. `seconds` and `cpu_seconds` both are processor seconds of the training that is replayed.
    """

    @classmethod
    def bound(
        cls,
        table: Table | str | Path,
        *,
        budget: Mapping[str, Any] | None = None,
        objective: str = "auto",
        seed: int = 0,
    ) -> type[ReplayTrainable]:
        """This trainable with a table (Ray must be running).

        Args:
            table: or its file.
            budget: of the space that proposes; decides what `objective` "auto" is, as in a run.
            objective: as in the configuration.
            seed: of the trainings.

        Raises:
            TableError: it is no table, or too small for a surrogate.
        """
        table = table if isinstance(table, Table) else Table.read(table)
        _ = table.surrogate  # fitted once, here, and not by every actor
        context = ReplayContext(table, Judge.of(table, budget, objective), seed)
        return tune.with_parameters(cls, context=context)

    # tune.with_parameters adds the context
    def setup(self, config: dict[str, Any], context: ReplayContext) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keeps the table."""
        self._context = context
        self._forget()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Lets a reused actor take the next student."""
        self._forget()
        return True

    def _forget(self) -> None:
        self._replay: _Replay | None = None
        self._epochs_done = 0

    def __repr__(self) -> str:
        return "ReplayTrainable"  # Ray labels an actor once

    def step(self) -> dict[str, Any]:
        """The next epoch."""
        if self._replay is None:
            try:
                self._replay = self._look_up()
            except InvalidArchitecture as error:
                return self._rejected("invalid", f"{type(error).__name__}: {error}"[:300])
        epochs = len(self._replay.loss)
        self._epochs_done = min(self._epochs_done + self.config.get("epochs_per_step", 1), epochs)
        if self._replay.loss[self._epochs_done - 1] == float("inf"):
            return self._rejected("diverged", "not finite")
        return self._result(self._replay, done=self._epochs_done >= epochs)

    @property
    def _is_full(self) -> bool:
        return self.config.get("stage", "search") in FULL_STAGES

    def _look_up(self) -> _Replay:
        table, edits = self._context.table, self.config["architecture"]
        student = table.apply(edits)
        seed = self.config.get("seed", self._context.seed)
        if self._is_full:
            full = table.finish(edits, seed=seed)
            extra = {"exact": full.exact, "test_accuracy": full.test_accuracy}
            return _Replay(student, full.accuracy_curve, full.loss_curve, full.cpu_seconds, extra)
        short = table.evaluate(edits, seed=seed)
        return _Replay(
            student, short.accuracy, short.loss, short.cpu_seconds, {"exact": short.exact}
        )

    def _result(self, replay: _Replay, *, done: bool) -> dict[str, Any]:
        accuracy, loss = replay.accuracy[: self._epochs_done], replay.loss[: self._epochs_done]
        judge = self._context.judge
        curve = [judge.reward(replay.student, *point) for point in zip(accuracy, loss, strict=True)]
        test = {key: value for key, value in replay.extra.items() if done or key == "exact"}
        return {
            "reward": curve[-1],
            "accuracy": accuracy[-1],
            "loss": loss[-1],
            **self._sizes(),
            "epochs_done": self._epochs_done,
            "status": "ok",
            "reward_curve": curve,
            "accuracy_curve": list(accuracy),
            "loss_curve": list(loss),
            **test,
            "done": done,
        }

    def _rejected(self, status: str, reason: str) -> dict[str, Any]:
        """The last result of a student that gave none."""
        return {
            "reward": self._context.judge.worst,
            "accuracy": 0.0,
            "loss": float("inf"),
            **self._sizes(),
            "epochs_done": self._epochs_done,
            "status": status,
            "reason": reason,
            "done": True,
        }

    def _sizes(self) -> dict[str, Any]:
        table, replay = self._context.table, self._replay
        student = replay.student if replay else None
        num_params = student.num_params if student else 0
        target = table.full_epochs if self._is_full else table.epochs
        seconds = replay.seconds * self._epochs_done / target if replay else 0.0
        return {
            "teacher_accuracy": table.teacher.accuracy,
            "num_params": num_params,
            "macs": student.macs if student else 0,
            "memory_bytes": student.memory_bytes if student else 0,
            "compression": 1 - num_params / table.teacher.num_params if student else 0.0,
            "epochs_target": target,
            "seconds": seconds,
            "cpu_seconds": seconds,
            "device": "cpu",  # where processor time is measured
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """How far the replay is; the rest is in the table."""
        write_json(Path(checkpoint_dir) / "replay.json", {"epochs_done": self._epochs_done})

    # Tune gives a path where save_checkpoint returned nothing
    def load_checkpoint(self, checkpoint: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Continues where `save_checkpoint` was called."""
        self._forget()
        self._epochs_done = int(read_json(Path(checkpoint) / "replay.json")["epochs_done"])
