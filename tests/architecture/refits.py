"""What the tests ask of N2N's operators: the paper's rules, and the factors of some layers."""

import numpy as np

from raysearch.architecture.refit import Rules

PAPER = Rules("paper", min_channels=1)


def factors(network, **changes):
    """All ones but {layer: (filters, kernel, padding)}; dots in names are written as __."""
    out = np.ones((len(network.layers), 3))
    for name, values in changes.items():
        out[network.index[name.replace("__", ".")]] = values
    return out
