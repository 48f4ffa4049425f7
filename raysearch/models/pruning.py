"""torch-pruning's importance of channels (Fang et al. 2023, "DepGraph", section 3.3); needs the extra `prune`."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from raysearch.architecture.channels import analyse
from raysearch.architecture.graph import Architecture
from raysearch.errors import MissingPackageError, WeightsError
from raysearch.models.build import State, build, module_path
from raysearch.models.importance import ChannelSums, creates_channels

# what torch-pruning raises, on the way, for a network that it does not understand
ITS_ERRORS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    ZeroDivisionError,
)


def pruning_importance(
    architecture: Architecture, state: State, images: torch.Tensor
) -> list[np.ndarray]:
    """The L2 norms of a group, averaged over its layers and normalised: torch-pruning's default.

    Args:
        architecture: the teacher's.
        state: its weights.
        images: [B, C, H, W] that the network takes, on the weights' device.

    Returns:
        for each channel variable of `analyse(architecture)`, [size] float64.

    Raises:
        MissingPackageError: torch-pruning is not installed.
        WeightsError: it does not understand this network.
    """
    try:
        import torch_pruning
    except ImportError:
        raise MissingPackageError(
            "distill.inherit: 'pruning' needs torch-pruning; run: pip install 'raysearch[prune]'"
        ) from None
    module = build(architecture, inherit_from=state).eval()
    analysis = analyse(architecture)
    scores = ChannelSums(analysis)
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of parameters that it leaves alone
            graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=images)
        for layer, blocks in zip(architecture.layers, analysis.outputs, strict=True):
            path = module_path(layer)
            if not creates_channels(architecture, layer) or path is None:
                continue
            filters = module.get_submodule(path)
            rows = list(range(layer.shape[architecture.axis(layer.name)]))
            pruner = graph.get_pruner_of_module(filters)
            assert pruner is not None, f"no pruner for {layer.name}"
            found = importance(graph.get_pruning_group(filters, pruner.prune_out_channels, rows))
            assert found is not None, f"no importance of {layer.name}"
            scores.add(blocks, found.detach().cpu().double().numpy()[rows])
    except ITS_ERRORS as error:
        raise WeightsError(
            f"distill.inherit: 'pruning' is not possible for this teacher, torch-pruning stops with {type(error).__name__} "
            f"({error}); use l1 or taylor"
        ) from error
    return scores.values
