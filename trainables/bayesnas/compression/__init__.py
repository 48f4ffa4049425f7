"""Structured Bayesian compression of a trained network (Yang 2019, appendix A)."""
