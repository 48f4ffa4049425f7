"""The errors of raysearch, named by what the caller can do about them.

`InputError` and its subclasses mean that something given to us was wrong: the command line answers with one sentence and exit status 2.
Every other `RaysearchError` means that a run failed for a reason of its own: exit status 1.
"""

from pathlib import Path


class RaysearchError(Exception):
    """Base class of everything that raysearch raises on purpose."""


class InputError(RaysearchError, ValueError):
    """The input is wrong; the message names the field, the value and the remedy."""


class ConfigError(InputError):
    """A configuration key is unknown, has the wrong type, or contradicts another one."""


class DataError(InputError):
    """A data set is missing, malformed, or does not fit the teacher."""


class WeightsError(InputError):
    """A weights file is missing, unreadable, or does not fit the module."""


class TraceError(InputError):
    """The teacher could not be captured as a graph; the message names the module and the reason."""


class UnsupportedTeacher(TraceError):
    """The teacher is refused on principle (control flow on data, batch size in the code, ...)."""


class InvalidArchitecture(InputError):
    """An architecture, edit string or architecture file is malformed; the message names the field."""


class BudgetError(InputError):
    """No student of the space meets the budget; the message names the smallest one possible."""


class MissingPackageError(InputError):
    """Something asked for needs an optional package that is not installed; the message names the extra."""


class ResourceError(InputError):
    """More CPUs, GPUs or devices are asked for than the machine or cluster has."""


class RunFolderError(InputError):
    """A run's folder is missing, exists already, or belongs to another configuration."""


class TableError(InputError):
    """The file of a tabular benchmark is missing, torn, of another version, or has too few rows for what is asked of it."""


class OutputError(InputError):
    """A file or folder that was asked for cannot be written."""


class ShadowedPackageError(InputError):
    """A folder of the user's hides one of our top-level packages."""


class RunError(RaysearchError):
    """A run that started could not be brought to its end."""


class ExportError(RaysearchError):
    """An exported student does not give the logits of the trained one, so nothing was written."""


class Terminated(KeyboardInterrupt):
    """SIGTERM reached the process; handled as Ctrl-C is, but for the exit status."""

    status = 143


class RunInterrupted(KeyboardInterrupt):
    """The user interrupted a run; `folder` is what `resume` takes.

    Args:
        folder: the run's.
        again: the command that continues; None: `resume`.
        cause: what interrupted it; decides `status`, the exit status: 143 after SIGTERM, else 130.
    """

    def __init__(
        self, folder: Path, again: str | None = None, *, cause: BaseException | None = None
    ) -> None:
        again = again or f"python -m raysearch resume {folder}"
        super().__init__(f"interrupted; continue with: {again}")
        self.folder = folder
        self.status: int = getattr(cause, "status", 130)
