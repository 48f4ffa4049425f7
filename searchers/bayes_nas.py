"""BayesNAS (Zhou et al., ICML 2019, arXiv:1905.04919) as a method: each run trains a super-network with a lambda, and derives a network from it.

The derived networks are no edits of the teacher. The engine is `trainables.bayesnas.cells`.
"""

from __future__ import annotations

from searchers.runs import RunsAlgorithm


class BayesNASAlgorithm(RunsAlgorithm):
    """Runs of `SuperNetRun`, and the networks that they derive; the options of a run are `SuperNetSettings`."""

    method = "bayes_nas"
    settings_class = "raysearch.bayesnas.cells:SuperNetSettings"
    trainable = "trainables.bayesnas.trainable:BayesNASTrainable"
    default_range = (5e-3, 1e-2)  # .005, .007 and .01 in the thesis
    default_num_runs = 3
