"""What Tune reports of a running trial, turned into an observation. Pure: Ray is unknown here.

Results are flat mappings, as Tune hands them to a searcher ("config/architecture" and so on). Tune calls early stops and natural
ends alike, so the difference is read from the trial's own `epochs_done` and `epochs_target`; a trainable without them counts as
fully trained when it ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from searchers.algorithm import Observation, Proposal

ARCHITECTURE = "architecture"
ARCHITECTURE_ID = "architecture_id"
STAGE = "stage"
RUNS, RUN = "runs", "run"
"""The stage of runs that students come out of (`searchers.runs`), and the number of such a run: runs of one architecture are different
evaluations."""
KEYS = (STAGE, RUN, "lam")
"""What a trial's config says of where it belongs, beside its architecture."""

_BROKEN = ("invalid", "diverged")
"""Values of a result's `status` that mean: this student gave no usable number."""

_BOOKKEEPING = frozenset(
    [
        "training_iteration",
        "time_total_s",
        "time_this_iter_s",
        "timestamp",
        "pid",
        "done",
        "episodes_total",
        "timesteps_total",
        "time_since_restore",
        "timesteps_since_restore",
        "iterations_since_restore",
        "should_checkpoint",
    ]
)
"""Numbers of Tune's own in a result."""

_TEXTS = frozenset(["date", "hostname", "node_ip", "experiment_tag"])
"""Texts of Tune's own in a result."""


@dataclass
class LiveTrial:
    """One trial between its suggestion and its outcome.

    Attributes:
        proposal: what runs.
        architecture_id: of the proposal's student.
        attempts: how often it was started, this time included.
        paused: a scheduler holds it; it occupies no slot.
        curve: epoch -> objective, signed so that higher is better; a result that arrives twice counts once.
        value: the last reported objective; None before the first and where it was no number.
        metrics: the last reported numbers.
        details: the last reported text and lists.
        broken: the trial itself said that its student is no good.
    """

    proposal: Proposal
    architecture_id: str
    attempts: int = 1
    paused: bool = False
    curve: dict[int, float] = field(default_factory=dict)
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    broken: bool = False

    @property
    def key(self) -> str:
        """What is evaluated: a student, in a stage of a run (stages train differently); or a run, by its number."""
        extra = self.proposal.extra
        stage = extra.get(STAGE)
        if stage == RUNS and RUN in extra:
            return f"{stage}/{self.architecture_id}/{extra[RUN]}"
        return self.architecture_id if stage is None else f"{stage}/{self.architecture_id}"

    def update(self, result: Mapping[str, Any], metric: str, sign: int) -> None:
        """Takes one result.

        Args:
            result: flat.
            metric: the objective's key.
            sign: 1 where higher is better, -1 where lower is.
        """
        self.broken = result.get("status") in _BROKEN
        self.metrics, self.details = numbers(result), details(result)
        value = as_number(result.get(metric))
        self.value = None if value is None else sign * value
        if self.value is not None:
            epoch = as_number(result.get("epochs_done", result.get("training_iteration")))
            self.curve[len(self.curve) + 1 if epoch is None else int(epoch)] = self.value

    def observation(self, *, finished: bool) -> Observation:
        """The outcome.

        Args:
            finished: the trainable was not cut off while it was waiting; decides only where there are no epochs to compare.
        """
        done, target = self.metrics.get("epochs_done"), self.metrics.get("epochs_target")
        fidelity = 1.0 if finished else 0.0
        if done is not None and target is not None and target > 0:
            fidelity = min(done / target, 1.0)
        failed = self.broken or self.value is None
        return Observation(
            architecture=self.proposal.architecture,
            value=None if failed else self.value,
            fidelity=fidelity,
            status="failed" if failed else "full" if fidelity >= 1 else "stopped",
            curve=tuple(self.curve[epoch] for epoch in sorted(self.curve)),
            metrics=self.metrics,
            extra=self.proposal.extra,
            details=self.details,
        )

    def failure(self) -> Observation:
        """The outcome of a trial that crashed for good."""
        self.value = None
        return self.observation(finished=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-native form; `from_dict` inverts it."""
        return asdict(self) | {"curve": sorted(self.curve.items())}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LiveTrial:
        """Reads what `to_dict` wrote."""
        proposal, curve = Proposal(**values["proposal"]), dict(map(tuple, values["curve"]))
        return cls(**{**values, "proposal": proposal, "curve": curve})


def as_number(value: object) -> float | None:
    """A finite number as float; None for everything else."""
    if value is None or isinstance(value, bool | str):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy scalars and 0-d tensors have __float__, too
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a flat result, without the configuration's and Tune's own."""
    found = {
        key: as_number(value)
        for key, value in result.items()
        if key not in _BOOKKEEPING and not key.startswith("config/")
    }
    return {key: value for key, value in found.items() if value is not None}


def details(result: Mapping[str, Any]) -> dict[str, Any]:
    """The text and the lists of a flat result, without the configuration's and Tune's own."""
    return {
        key: value
        for key, value in result.items()
        if isinstance(value, str | list) and key not in _TEXTS and not key.startswith("config/")
    }


def suggestion_of(proposal: Proposal, architecture_id: str) -> dict[str, Any]:
    """The part of a trial's config that comes from the search."""
    return {
        **proposal.extra,
        ARCHITECTURE: proposal.architecture,
        ARCHITECTURE_ID: architecture_id,
    }


def architecture_in(result: Mapping[str, Any]) -> str | None:
    """The architecture's text in a result, flat or nested; None if there is none."""
    text = result.get(f"config/{ARCHITECTURE}")
    if text is None and isinstance(result.get("config"), Mapping):
        text = result["config"].get(ARCHITECTURE)
    return text if isinstance(text, str) else None
