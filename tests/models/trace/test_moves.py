"""Networks that move channels: what they are traced to, and that every student is right."""

import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.architecture import Architecture, SearchSpace
from raysearch.errors import UnsupportedTeacher
from raysearch.models import build, num_parameters, trace
from raysearch.models.export import export_student
from raysearch.models.keep import keep_sets
from tests.models.moving import Shuffle, all_networks, exact_networks
