"""A teacher as an `Architecture`: capture with `torch.export`, canonical layers, and a proof on numbers."""

from raysearch.models.tracing.tracer import trace

__all__ = ["trace"]
