"""Teachers and students as torch modules: tracing, building, weights, export."""

from raysearch.models.build import build, num_parameters
from raysearch.models.export import export_student
from raysearch.models.teachers import check_forward, load_teacher
from raysearch.models.trace import trace
from raysearch.models.weights import load_weights

__all__ = [
    "build",
    "check_forward",
    "export_student",
    "load_teacher",
    "load_weights",
    "num_parameters",
    "trace",
]
