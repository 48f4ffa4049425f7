"""Students as data: networks, channel groups, edits and search spaces, on numpy alone."""

from raysearch.architecture.edits import Edits, EditsBatch
from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.space import SearchSpace

__all__ = ["Architecture", "Edits", "EditsBatch", "Layer", "SearchSpace"]
