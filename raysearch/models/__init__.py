"""Teachers and students as torch modules: tracing, building, weights, export."""

from typing import TYPE_CHECKING

from raysearch.lazy import lazy_names
from raysearch.models.build import build, num_parameters
from raysearch.models.weights import load_weights

if TYPE_CHECKING:
    from raysearch.models.calibration import recalibrate
    from raysearch.models.export import export_student
    from raysearch.models.keep import keep_sets
    from raysearch.models.teachers import check_forward, load_teacher
    from raysearch.models.tracing import trace

__all__ = [
    "build",
    "check_forward",
    "export_student",
    "keep_sets",
    "load_teacher",
    "load_weights",
    "num_parameters",
    "recalibrate",
    "trace",
]

# a trial builds students but traces nothing: torch.export alone takes half a second to import
__getattr__ = lazy_names(
    __name__,
    {
        "check_forward": "teachers",
        "export_student": "export",
        "keep_sets": "keep",
        "load_teacher": "teachers",
        "recalibrate": "calibration",
        "trace": "tracing",
    },
)
