"""Structured Bayesian compression (Yang 2019, appendix A; Zhou et al., ICML 2019) as a method: each run compresses the teacher with a lambda.

Every pruning state of a run is an ordinary student. The engine is `trainables.bayesnas.compression`.
"""

from __future__ import annotations

from searchers.runs import RunsAlgorithm


class BayesCompressionAlgorithm(RunsAlgorithm):
    """Runs of `CompressionRun`, and the students on their paths; the options of a run are `CompressionSettings`."""

    method = "bayes_compression"
    settings_class = "raysearch.bayesnas.compression:CompressionSettings"
    trainable = "trainables.bayesnas.trainable:BayesCompressionTrainable"
    default_range = (1e-6, 1e-4)
    default_num_runs = 5
