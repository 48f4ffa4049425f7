"""raysearch: search for small students of trained teachers, on Ray Tune.

    import raysearch
    result = raysearch.compress("resnet14", "digits", budget={"params": 0.05})

Nothing heavy is imported before a function needs it.
"""

from raysearch.api import (
    Result,
    Student,
    compress,
    export,
    inspect,
    make_trainable,
    prepare,
    resume,
)
from raysearch.comparison import Comparison, compare
from raysearch.config import Config, load_config
from raysearch.version import __version__

__all__ = [
    "Comparison",
    "Config",
    "Result",
    "Student",
    "__version__",
    "compare",
    "compress",
    "export",
    "inspect",
    "load_config",
    "make_trainable",
    "prepare",
    "resume",
]
