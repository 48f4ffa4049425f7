"""Tabular benchmarks: files of students that were really trained, and what answers for those that were not.

numpy, pandas and pyarrow only; scikit-learn is loaded where a surrogate is fitted. No torch, no Ray, no data, no training.
"""

from raysearch.tables.files import SCHEMA, write_table
from raysearch.tables.judge import Judge
from raysearch.tables.surrogate import Surrogate
from raysearch.tables.table import Curve, FullResult, Table, TeacherCard

__all__ = [
    "SCHEMA",
    "Curve",
    "FullResult",
    "Judge",
    "Surrogate",
    "Table",
    "TeacherCard",
    "write_table",
]
