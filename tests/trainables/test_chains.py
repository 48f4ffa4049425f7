"""Chains of Architecture Compression as students: proposed as the text of a whole network, trained, and exported to stand alone."""

import dataclasses
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysearch.architecture import Architecture
from raysearch.architecture.sequences import decode_chain, sample_chains, valid_chains
from raysearch.models import build, export_student
from tests.trainables.untrained import make_problem, make_untrained
from trainables import DistillationTrainable

from ..models.test_export import READER

SHAPE = (1, 8, 8)
MAX_MACS = 1_000_000  # of a student of these tests
CONFIG = {
    "teacher": {"model": "conv5"},
    "budget": None,
    "distill": {"loss": "ce", "epochs": 1, "repeats": 2, "inherit": "none", "optimizer": "adam_l2", "lr": 0.01},
}  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    return make_problem(CONFIG)


def chains(sampler, count):
    """Some small networks that the sampler draws."""
    rows = sample_chains(4000, 0, SHAPE, 10, sampler=sampler)
    drawn = (decode_chain(one, SHAPE, 10) for one in rows[valid_chains(rows, SHAPE, 10)])
    small = list(islice((network for network in drawn if network.macs <= MAX_MACS), count))
    assert len(small) == count
    return small


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("sampler", ["paper", "restricted"])
def test_sampled_chains_are_proposed_trained_and_exported(sampler, problem, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    shared = make_untrained(problem, weights_folder=weights)
    trainable = DistillationTrainable.bound(shared)({"architecture": "none"})
    exported = tmp_path / "exported"
    images = torch.from_numpy(problem.data.test.images[:4].astype(np.float32))
    for network in chains(sampler, 3):
        text = network.to_compact()
        student = problem.space.apply(text)
        assert student == network
        assert problem.space.architecture_id(text) == network.id
        assert trainable.reset({"architecture": text, "architecture_id": network.id})
        result = trainable.train()
        assert (result["status"], result["done"]) == ("ok", True), result.get("reason")
        assert (result["num_params"], result["macs"]) == (network.num_params, network.macs)
        assert len(result["accuracy_repeats"]) == 2
        module = build(
            student, inherit_from=load_file(weights / f"search-{network.id}.safetensors")
        )
        folder = exported / network.id
        export_student(folder, student, module.eval())
        assert Architecture.from_json((folder / "architecture.json").read_text()) == network
        torch.save((images, module(images).detach()), folder / "expected.pt")
    read = [sys.executable, "-c", READER]
    done = subprocess.run(read, cwd=exported, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3


@pytest.mark.usefixtures("ray_cluster")
def test_each_initialisation_of_a_chain_has_weights_of_its_own(problem):
    """Nothing of the teacher's fits a network of its own layers, whatever `inherit` says."""
    network = chains("restricted", 1)[0]
    shared = make_untrained(problem)
    shared = dataclasses.replace(shared, init={"search": "inherit"})
    trainable = DistillationTrainable.bound(shared)({"architecture": network.to_compact()})
    trainable._begin()
    one, other = (t.module.state_dict() for t in trainable._training.trainings)
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].ndim > 1)
