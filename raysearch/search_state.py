"""`search_state.json`: what a method has learned, so that a run that was cut goes on as if it had not been.

Most methods know nothing but their observations, and are told the log again. One that learns on the way (the weights of its policies, rollouts
that wait for their rewards) has an attribute `keeps_state = True`. Its state is written before a student that it proposed is handed out,
together with the students that are in training and the number of log lines that it had been told. Telling is repeatable, from the log;
so whenever the process dies, this file and the later lines give the state that there was:

    proposed, file not written        the method proposes the same again
    file written, not handed out      the student is in the file's list, and is trained first
    in training                       the same
    log line written, method not told the line is told on resume
    method told                       the same

It is written whole each time, which keeps it simple: 9 ms of a processor for the 1.5 MB of N2N's two policies and 140 students, 33 ms after
1,000 students.

A file that is torn or belongs to another run is refused: starting the method anew in silence would throw away what it had learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysearch.errors import RunFolderError
from raysearch.files import write_text
from searchers.algorithm import Algorithm, Proposal
from searchers.state import dump_state, load_state

VERSION = 1
_DAMAGES = (OSError, ValueError, KeyError, TypeError, RuntimeError)


def keeps_state(algorithm: Algorithm) -> bool:
    """Whether a method learns what telling it the log again does not give."""
    return bool(getattr(algorithm, "keeps_state", False))


@dataclass(frozen=True)
class SearchState:
    """The file of one search.

    Attributes:
        path: of the file.
        teacher: the architecture id of the network that is compressed.
    """

    path: Path
    teacher: str

    def save(
        self,
        algorithm: Algorithm,
        records: Sequence[Mapping[str, Any]],
        in_flight: Sequence[Proposal],
    ) -> None:
        """Replaces the file at once.

        Args:
            algorithm: was told exactly `records`.
            records: the log.
            in_flight: students that were handed out, or are about to be, and have no line in the log.
        """
        state = {
            "version": VERSION,
            **self._origin(algorithm),
            "num_told": len(records),
            "last_told": records[-1]["architecture_id"] if records else None,
            "in_flight": [asdict(proposal) for proposal in in_flight],
            "state": algorithm.state_dict(),
        }
        write_text(self.path, dump_state(state))

    def load(
        self, algorithm: Algorithm, records: Sequence[Mapping[str, Any]]
    ) -> tuple[int, list[Proposal]]:
        """Gives an algorithm its state back.

        Returns:
            How many lines of the log it knows, and the students that were in training then; (0, []) where nothing was written yet.

        Raises:
            RunFolderError: the file is damaged, or of another run.
        """
        if not self.path.exists():
            return 0, []
        try:
            stored = load_state(self.path.read_text(encoding="utf-8"))
            self._check(stored, algorithm, records)
            algorithm.load_state_dict(stored["state"])
            return stored["num_told"], [Proposal(**one) for one in stored["in_flight"]]
        except _DAMAGES as error:
            reason = f"{type(error).__name__}: {error}" if not str(error) else str(error)
            raise RunFolderError(
                f"{self.path}: what the search had learned cannot be read ({reason}); restore the file with its observations.jsonl, or "
                "delete it: the method then begins anew with the evaluations that there are"
            ) from error

    def _origin(self, algorithm: Algorithm) -> dict[str, Any]:
        return {"algorithm": type(algorithm).__name__, "teacher": self.teacher}

    def _check(
        self,
        stored: Mapping[str, Any],
        algorithm: Algorithm,
        records: Sequence[Mapping[str, Any]],
    ) -> None:
        """Raises ValueError where the file is not of this search."""
        expected = {"version": VERSION, **self._origin(algorithm)}
        for key, value in expected.items():
            if stored[key] != value:
                raise ValueError(f"its {key} is {stored[key]!r}, not {value!r}")
        told = stored["num_told"]
        if told > len(records):
            raise ValueError(f"it knows {told} evaluations, but the log has {len(records)}")
        if told and records[told - 1]["architecture_id"] != stored["last_told"]:
            raise ValueError(f"line {told} of the log is not the one that it knows")
