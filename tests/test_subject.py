"""Seeds: the run's, the data's and the teacher's."""

import torch

from raysearch.config import load_config
from raysearch.subject import load_data_set, load_graph


def parts(seeds):
    """The validation rows and the teacher's weights with these seeds."""
    config = load_config(None, seeds)
    data = load_data_set(config)
    teacher, _ = load_graph(config, data.num_classes, data.shape)
    return data.hash, torch.cat([p.flatten() for p in teacher.parameters()])


def test_runs_that_differ_in_their_seed_share_data_and_teacher_where_these_have_their_own():
    fixed = ["data.seed=0", "teacher.seed=0"]
    split, weights = parts(["run.seed=0"])
    for seed in (1, 2):
        same_split, same_weights = parts([f"run.seed={seed}", *fixed])
        assert same_split == split
        assert torch.equal(same_weights, weights)
    other_split, other_weights = parts(["run.seed=1"])
    assert other_split != split
    assert not torch.equal(other_weights, weights)
