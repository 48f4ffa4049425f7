"""N2N's operators (Ashok et al., ICLR 2018): layers removed and shrunk while their neighbours are refitted."""

from raysearch.architecture.refit.removal import remove_layers
from raysearch.architecture.refit.rules import FACTORS, Refit, Rules, may_remove, may_shrink
from raysearch.architecture.refit.shrinkage import shrink_layers

__all__ = [
    "FACTORS",
    "Refit",
    "Rules",
    "may_remove",
    "may_shrink",
    "remove_layers",
    "shrink_layers",
]
