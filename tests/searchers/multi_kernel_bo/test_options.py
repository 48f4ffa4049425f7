"""The algorithm's options: which are refused, which are the defaults, and what some of them do."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from raysearch.errors import ConfigError
from searchers.multi_kernel_bo.algorithm import MultiKernelBOAlgorithm
from searchers.testing import make_chain_space
from tests.searchers.driving import assert_option_is_refused
from tests.searchers.multi_kernel_bo.conftest import FAITHFUL, OURS, batch_of, go_on


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("faithful", "yes"),
        ("num_kernels", 0),
        ("encoder", "gru"),
        ("acquisition", "gradient"),
        ("num_initial", 0),
        ("num_candidates", 1),
        ("mutation_share", 1.5),
        ("num_parents", 0),
        ("num_edits", [4, 1]),
        ("batch_size", 2.5),
        ("refit_every", 0),
        ("composite", "f"),
        ("use_stopped", 1),
        ("transfer_only", 1),
        ("num_threads", True),
        ("device", "tpu"),
    ],
)
def test_a_wrong_option_is_refused_by_name_with_its_value(space, option, value):
    assert_option_is_refused(partial(MultiKernelBOAlgorithm, space), option, value)


def test_options_that_do_not_go_together_are_refused(space):
    with pytest.raises(ConfigError, match=r"options\.encoder is 'features'.*lstm or mlp"):
        MultiKernelBOAlgorithm(space, faithful=True, encoder="features")
    with pytest.raises(ConfigError, match=r"options\.transfer_only is true.*search\.warm_start"):
        MultiKernelBOAlgorithm(space, transfer_only=True)
    with pytest.raises(ConfigError, match=r"options\.acquisition is 'evolution'.*set faithful"):
        MultiKernelBOAlgorithm(space, acquisition="evolution")


def test_cuda_that_is_not_there_is_refused_before_any_trial(space, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"options\.device is 'cuda'.*set it to auto"):
        MultiKernelBOAlgorithm(space, device="cuda")


def test_the_papers_numbers_are_the_defaults_of_the_faithful_form(space):
    options = MultiKernelBOAlgorithm(space, faithful=True)._options
    assert (options.encoder, options.num_kernels, options.num_candidates) == ("lstm", 8, 1000)
    assert options.acquisition == "random"
    assert MultiKernelBOAlgorithm(space)._options.encoder == "mlp"


@pytest.mark.parametrize("num_kernels", [1, 2, 4])
def test_a_faithful_step_has_a_student_for_each_kernel(space, num_kernels):
    """The paper's ablation."""
    algorithm = MultiKernelBOAlgorithm(space, **FAITHFUL | {"num_kernels": num_kernels})
    assert None not in batch_of(algorithm, num_kernels)
    assert algorithm.ask() is None


@pytest.mark.parametrize("operations", [("remove",), ("shrink",), ("remove", "shrink")])
def test_operations_may_be_switched_off(operations):
    space = make_chain_space((8, 8, 8, 8), operations=operations)
    for options in (OURS, FAITHFUL):
        for proposal in go_on(MultiKernelBOAlgorithm(space, **options), space, 6):
            edits = space.parse(proposal.architecture)
            assert edits.skips == ()
            assert "remove" in operations or edits.remove == ()


def test_hand_made_features_alone_need_no_network(space):
    algorithm = MultiKernelBOAlgorithm(space, **OURS | {"encoder": "features"})
    assert go_on(algorithm, space, 5)[-1].extra["origin"] == "model"
