"""ESNAC: multi-kernel Bayesian optimisation with learned kernels (see `algorithm.py`)."""
