"""Ray: start or attach, what a trial may use, and the check that our packages are the ones that get imported.

Torch is imported before `ray.init` (a driver that imports it later has been seen to die on its MKL libraries).
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raysearch.config import Config
from raysearch.errors import ResourceError, ShadowedPackageError
from raysearch.termination import sigterm_kept

PACKAGES = ("searchers", "trainables")

# Our two loggers replace Tune's automatic three: TensorBoard's would import torch again in the driver.
# Ctrl-C must reach us at once: everything worth keeping is already on the disk.
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class TrialResources:
    """What one trial gets.

    Attributes:
        cpus, gpus: reserved in Ray for each trial.
        concurrency: trials at once.
        device: "cpu" or "cuda".
    """

    cpus: float
    gpus: float
    concurrency: int
    device: str


def check_packages() -> None:
    """Finds a foreign `searchers` or `trainables` that hides ours.

    Raises:
        ShadowedPackageError: naming the folder and the remedy.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / name:
            where = found or (spec and list(spec.submodule_search_locations or ())) or "nothing"
            raise ShadowedPackageError(
                f"the package {name!r} resolves to {where} and hides raysearch's own in {home / name}; "
                "rename that folder, or start raysearch from another directory"
            )


def available_resources() -> tuple[float, float]:
    """(CPUs, GPUs) of the running cluster, or of this machine where Ray is not running."""
    import ray
    import torch

    if ray.is_initialized():
        total = ray.cluster_resources()
        return total.get("CPU", 0.0), total.get("GPU", 0.0)
    return float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(
        os.cpu_count() or 1
    ), float(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def plan_resources(config: Config) -> TrialResources:
    """Fits the trials into the machine or the cluster.

    Raises:
        ResourceError: when one trial, or the asked concurrency, needs more than there is.
    """
    cpus, gpus = available_resources()
    wanted = config.resources
    if wanted.cpus > cpus:
        raise ResourceError(
            f"resources.cpus: {wanted.cpus:g} asked for each trial, but there are {cpus:g}; lower resources.cpus"
        )
    if wanted.gpus > gpus:
        raise ResourceError(
            f"resources.gpus: {wanted.gpus:g} asked for each trial, but there are {gpus:g}; lower resources.gpus"
        )
    if wanted.device == "cuda" and not gpus:
        raise ResourceError(
            "resources.device: 'cuda' asked, but no GPU is there; use resources.device=cpu or auto"
        )
    device = "cuda" if gpus and wanted.device != "cpu" else "cpu"
    slots = int(cpus // wanted.cpus)
    concurrency = config.search.concurrency or slots
    if concurrency > slots:
        raise ResourceError(
            f"search.concurrency: {concurrency} trials of {wanted.cpus:g} CPUs need {concurrency * wanted.cpus:g}, "
            f"but there are {cpus:g}; use at most {slots}"
        )
    share = wanted.gpus
    if device == "cuda" and not share:  # all GPUs, shared evenly
        share = gpus / concurrency if gpus < concurrency else 1.0
    if share:
        concurrency = min(concurrency, int(gpus / share + 1e-9))
    return TrialResources(wanted.cpus, share, concurrency, device)


def check_local_resources(config: Config) -> None:
    """`plan_resources` before a local Ray is started; nothing to check where we attach to a cluster."""
    if config.cluster.address is None:
        plan_resources(config)


@contextmanager
def ray_session(config: Config) -> Iterator[str | None]:
    """A running Ray for the block: the caller's own, the one at `cluster.address`, or a local one that ends with the block.

    Yields the address of Ray's dashboard where one was started.

    Raises:
        ResourceError: when the address does not answer.
    """
    import ray
    import torch  # noqa: F401  # before ray.init, see the module's docstring

    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    if ray.is_initialized():
        yield None
        return
    address = config.cluster.address
    try:
        with sigterm_kept():  # Ray's own handlers end the driver with a stack
            started = ray.init(
                address=address if address is not None else "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                namespace="raysearch",
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        reason = str(error).splitlines()[0]
        raise ResourceError(
            f"cluster.address: {address!r} does not answer ({reason}); start the cluster, or use null for a local Ray"
        ) from error
    try:
        yield started.dashboard_url
    finally:
        ray.shutdown()
