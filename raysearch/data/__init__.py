"""Data sets, their parts, fixed views and the teacher's cached answers."""

from raysearch.cache import cache_folder
from raysearch.data.augment import AUGMENTATIONS, Views, make_views
from raysearch.data.batches import DeviceBatches
from raysearch.data.dataset import DataSet, Preprocessing, Split
from raysearch.data.logits import DeviceData, DistillationData, distillation_data, teacher_logits
from raysearch.data.sets import DATA_SETS, from_arrays, load_data

__all__ = [
    "AUGMENTATIONS",
    "DATA_SETS",
    "DataSet",
    "DeviceBatches",
    "DeviceData",
    "DistillationData",
    "Preprocessing",
    "Split",
    "Views",
    "cache_folder",
    "distillation_data",
    "from_arrays",
    "load_data",
    "make_views",
    "teacher_logits",
]
