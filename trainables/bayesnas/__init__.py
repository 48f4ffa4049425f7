"""BayesNAS (Yang 2019; Zhou et al., ICML 2019): sparse Bayesian switches for cells, and for the groups of a network's weights."""
