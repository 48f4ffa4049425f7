"""Trained policies as plain files, and what a search with another teacher takes from them.

policy-remove.safetensors, policy-remove.json     the weights, and what they fit
policy-shrink.safetensors, policy-shrink.json
policy.json                                       `history`, `layers`: see `N2NAlgorithm`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raysearch.errors import ConfigError
from searchers.n2n.options import NOUNS, PolicyOptions

VERSION = 1


def write_policy(folder: Path, options: PolicyOptions, weights: Mapping[str, np.ndarray]) -> None:
    """Writes one policy into a folder that exists."""
    from safetensors.numpy import save_file

    save_file(dict(weights), folder / f"policy-{options.kind}.safetensors")
    about = {"version": VERSION, "kind": options.kind, **_fit(options)}
    _write(folder / f"policy-{options.kind}.json", about)


def write_summary(
    folder: Path, history: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]]
) -> None:
    """Writes `policy.json`."""
    _write(folder / "policy.json", {"history": list(history), "layers": list(layers)})


def first_policies(
    warm_start: object, policy: object, options: Mapping[str, PolicyOptions]
) -> dict[str, dict[str, np.ndarray]]:
    """The weights that a search begins with, by stage; none where neither folder is given.

    Args:
        warm_start: the folder of a run.
        policy: a folder with policies.
        options: what each stage's policy must fit.

    Raises:
        ConfigError: both are given, or what is given cannot be used.
    """
    if warm_start is not None and policy is not None:
        raise ConfigError(
            f"search.options.policy is {policy!r} and search.warm_start {warm_start!r}: give one of them"
        )
    if policy is not None:
        return read_policies("search.options.policy", policy, options)
    if warm_start is None:
        return {}
    if not isinstance(warm_start, str | Path) or not str(warm_start):
        raise ConfigError(f"search.warm_start must be the folder of a run, got {warm_start!r}")
    return read_policies("search.warm_start", Path(warm_start) / "policy", options)


def read_policies(
    field: str, path: object, options: Mapping[str, PolicyOptions]
) -> dict[str, dict[str, np.ndarray]]:
    """The weights of the policies in a folder, of those stages that are wanted and that it has.

    Args:
        field: the option that named the folder, for messages.
        path: of the folder.
        options: what each stage's policy must fit.

    Raises:
        ConfigError: there is no policy of these stages, or one does not fit.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise ConfigError(f"{field} must be a folder with trained policies, got {path!r}")
    folder = Path(path)
    names = {kind: folder / f"policy-{kind}.json" for kind in options}
    found = {kind: _read(field, folder, options[kind]) for kind in options if names[kind].is_file()}
    if not found:
        wanted = " or ".join(one.name for one in names.values())
        raise ConfigError(
            f"{field} is {str(path)!r}, which has no {wanted}: give what an n2n search wrote, the folder 'policy' of its run"
        )
    return found


def _read(field: str, folder: Path, options: PolicyOptions) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        text = (folder / f"policy-{options.kind}.json").read_text(encoding="utf-8")
        about = json.loads(text)
        weights = load_file(folder / f"policy-{options.kind}.safetensors")
        if about["version"] != VERSION:
            raise ValueError(f"it has version {about['version']}, not {VERSION}")
        given = {key: about[key] for key in _fit(options)}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"{field} is {str(folder)!r}, whose policy-{options.kind} cannot be read ({type(error).__name__}: {error}): "
            "give the folder of another search"
        ) from error
    for key, mine in _fit(options).items():
        if given[key] != mine:
            raise ConfigError(
                f"{field} is {str(folder)!r}, whose policy-{options.kind} has {key} {given[key]!r}, but this search has {mine!r}: "
                f"set search.options.{_option(key, options.kind)} as in that search"
            )
    _check_shapes(field, folder, options, weights)
    return weights


def _check_shapes(
    field: str, folder: Path, options: PolicyOptions, weights: Mapping[str, np.ndarray]
) -> None:
    """Refuses weights that are not those of such a policy; a critic that only one side has does not count."""
    import torch

    from searchers.n2n.controller import make_policy

    policy = make_policy(options, torch.Generator())
    expected = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
    shapes = {name: value.shape for name, value in weights.items()}
    for name in expected.keys() | shapes.keys():
        if not name.startswith("critic.") and expected.get(name) != shapes.get(name):
            raise ConfigError(
                f"{field} is {str(folder)!r}, whose policy-{options.kind}.safetensors has {name} of shape {shapes.get(name)}, "
                f"expected {expected.get(name)}: give the folder of another search"
            )


def _option(key: str, kind: str) -> str:
    """The name of the option that decides about a key of `_fit`."""
    return f"hidden_{NOUNS[kind]}" if key == "hidden" else key


def _fit(options: PolicyOptions) -> dict[str, Any]:
    """What a policy must share with the one that takes its weights."""
    return {"hidden": options.hidden, "raw_features": options.raw_features}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
