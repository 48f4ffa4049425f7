"""Small spaces, and networks that are trained once for all tests that look at them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from searchers.embedding_gradient.domain import EditsDomain
from searchers.embedding_gradient.fitting import Fitter, Learned
from searchers.embedding_gradient.options import OPTION_NAMES, check_options
from searchers.embedding_gradient.training import FitOptions
from searchers.testing import make_chain_space
from tests.searchers.multi_kernel_bo.conftest import accuracy_of

SMALL = {"channels": 8, "embedding": 8, "num_regressors": 3, "pretrain_steps": 60, "fit_steps": 40}
"""Networks that train in a fraction of a second."""
DEFAULTS = {
    "faithful": False, "chains": None, "num_initial": None, "sampler": None, "size": "params", "centred": True,
    "embedding": 16, "channels": None, "hidden": 64, "num_regressors": None, "kappa": 0.0, "semi_supervised": True,
    "pretrain_steps": 200, "fit_steps": None, "refit_every": 4, "batch_size": 4, "num_starts": 8, "num_local": 8, "num_parents": 10, "num_hops": 4, "descent_steps": 40,
    "eta": (0.1, 1.0), "lam": (0.03, 0.3), "a_0": 1.0, "p_0": None, "trust": "cloud", "neighbour_share": 0.0,
    "pick": "mean", "composite": None,
}  # fmt: skip


def options_of(space, **changed):
    """Checked options of a step."""
    assert DEFAULTS.keys() == OPTION_NAMES
    return check_options(space, DEFAULTS | changed)[1]


def learned_of(space, count, seed=0):
    """Random students with an accuracy known in closed form."""
    texts = [str(edits) for edits in space.sample(count, seed)]
    domain = EditsDomain(space)
    values = np.array([accuracy_of(space, text) for text in texts])
    return texts, Learned(domain.rows(texts), values, domain.sizes(texts, "params"))


def fit_options(**changed):
    """Of a fit without unlabelled architectures."""
    return FitOptions(**{"num_pretrain": 0, "spread": 0.0} | changed)


@pytest.fixture(scope="session")
def space():
    """Of a chain of four convolutions: nine rows."""
    return make_chain_space((16, 16, 16, 16))


@pytest.fixture(scope="session")
def trained(space):
    """The domain, and a model of 60 students."""
    torch.set_num_threads(1)
    domain = EditsDomain(space)
    fitter = Fitter(domain, options_of(space, fit_steps=150, num_regressors=4))
    _, learned = learned_of(space, 60)
    return domain, fitter.fit(learned, 0, lambda: False)
