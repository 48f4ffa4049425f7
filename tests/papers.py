"""What holds of every ready configuration of a paper, whichever paper it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from raysearch.config import Config, load_config
from raysearch.plan import first_candidates, wants_uniform
from raysearch.schedules import stage_scheduler

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def ready(name: str) -> Config:
    """The configuration of that name, a path below `configs` without its ending."""
    return load_config(CONFIGS / f"{name}.yaml")


def written(name: str) -> dict[str, Any]:
    """What stands in the file, defaults not filled in."""
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def assert_nothing_is_left_to_defaults(name: str) -> None:
    """Every key of every section stands in the file."""
    raw = written(name)
    assert set(raw) == set(Config.model_fields)
    for section, defaults in Config().model_dump().items():
        if isinstance(defaults, dict) and section != "budget":
            assert set(raw[section]) == set(defaults), section


def assert_nothing_of_ours_is_added(config: Config) -> None:
    """No candidates before the method's, no uniform student, no trial that is stopped early."""
    space: object = None  # nobody looks at it
    assert first_candidates(config, space, floor=None, size="params") == []  # type: ignore[arg-type]
    assert not wants_uniform(config)
    scheduler = stage_scheduler(config)
    assert not any(map(scheduler.stops, ("search", "random", "finish", "random_finish")))
