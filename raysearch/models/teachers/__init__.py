"""Teachers by name."""

from raysearch.models.teachers.registry import BUILT_IN, check_forward, load_teacher

__all__ = ["BUILT_IN", "check_forward", "load_teacher"]
