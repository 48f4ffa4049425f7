"""The configuration: one validated model a section, and the single home of defaults.

A configuration comes from a YAML file, a mapping, and `key.path=value` overrides, in this order. Whatever is wrong with it is one
`ConfigError`: a sentence with the key, the value and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from raysearch.complaints import complaint
from raysearch.errors import ConfigError
from raysearch.sections import merge, parse_override, plain, read_yaml

BudgetValue = int | float | str
Loss = Literal["kd", "logits_mse", "ce_logits", "ce"]
Operation = Literal["remove", "shrink", "skip"]
Baseline = Literal["uniform", "random", "prune"]
Reportable = Literal["class_accuracy", "latency_ms"]
FirstCandidate = Literal["uniform", "l2", "taylor", "ours-l1", "ours-taylor"]


def _forbid_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, got a boolean")
    return value


Number = Annotated[float, BeforeValidator(_forbid_bool), Field(allow_inf_nan=False)]
Seed = Annotated[int, BeforeValidator(_forbid_bool), Field(ge=0, lt=2**31)]
PositiveInt = Annotated[int, BeforeValidator(_forbid_bool), Field(ge=1)]
PositiveNumber = Annotated[float, BeforeValidator(_forbid_bool), Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RunConfig(_Section):
    """Where results go, and the one seed that everything is derived from (but see `data.seed` and `teacher.seed`)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    storage: str = "runs"
    seed: Seed = 0


class TeacherConfig(_Section):
    """The trained network; trained first (for `epochs`) and cached where it comes without weights.

    `output_index` says which output holds the logits where it returns several. `seed` is of its initialisation and training; null: the
    run's. Runs that differ in `run.seed` alone share a teacher where it is set.
    """

    model: Annotated[str, Field(min_length=1)] = "resnet14"
    weights: str | None = None
    input_shape: Annotated[list[PositiveInt], Field(min_length=2, max_length=4)] | None = None
    output_index: Annotated[int, BeforeValidator(_forbid_bool)] | str | None = None
    epochs: PositiveInt = 20
    seed: Seed | None = None


class DataConfig(_Section):
    """The data set; `validation` is the share (below 1) or the number of training rows held out, drawn by `seed` (null: the run's)."""

    name: Annotated[str, Field(min_length=1)] = "digits"
    path: str | None = None
    mode: Literal["L", "RGB"] | None = None
    resize: PositiveInt | Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = (
        None
    )
    validation: PositiveInt | PositiveNumber = 0.15
    augment: Literal[
        "auto", "none", "crop", "flip", "flip_crop", "crop_cutout", "flip_crop_cutout"
    ] = "auto"
    seed: Seed | None = None


class SpaceConfig(_Section):
    """What may be done to the teacher."""

    operations: Annotated[list[Operation], Field(min_length=1)] = ["remove", "shrink", "skip"]
    grouping: Literal["coupled", "by_size"] = "coupled"
    divisor: PositiveInt | None = None
    min_channels: PositiveInt = 1


class BudgetConfig(_Section):
    """What a student may cost; a float up to 1 is a fraction of the teacher's, "60%" likewise, an integer or "1.2M" an absolute number.

    `memory` is in bytes (weights, and activations at their peak), `latency_ms` measured on `resources.device`. `accuracy` is a floor:
    the smallest student is wanted that reaches it on the validation part; a number is an accuracy, "98%" a share of the teacher's.
    """

    params: BudgetValue | None = None
    macs: BudgetValue | None = None
    memory: BudgetValue | None = None
    latency_ms: PositiveNumber | None = None
    accuracy: Number | str | None = None


class SearchConfig(_Section):
    """Who proposes students, how many are tried, and how many at once (null: as many as the resources allow).

    `warm_start` is the folder of another run, of any teacher, whose search the method begins with (multi_kernel_bo, n2n).

    `epochs` and `seconds` end the search too (see `raysearch.effort`), whichever comes first; null: `trials` alone does.

    `first` lists what is evaluated before the method is asked: the uniformly scaled student, and pruned ones by their forms
    (`raysearch.models.pruned`); auto: uniform, ours-l1 and ours-taylor, where there is a size to prune to; an empty list: nothing. Random
    search is a baseline of the literature, and gets no such help. The uniformly scaled student is trained fully beside the best ones
    unless a list here and `baselines` both leave it out.
    """

    method: Annotated[str, Field(min_length=1)] = "gp"
    trials: PositiveInt = 32
    epochs: PositiveInt | None = None
    seconds: PositiveNumber | None = None
    concurrency: PositiveInt | None = None
    warm_start: str | None = None
    first: list[FirstCandidate] | Literal["auto"] = "auto"
    options: dict[str, Any] = {}


class TrainingConfig(_Section):
    """A training recipe, as in `trainables.recipe.Recipe`; `batch_size: null` goes by the number of training images."""

    loss: Loss = "kd"
    epochs: PositiveInt = 4
    optimizer: Literal["adam", "adam_l2", "sgd"] = "sgd"
    lr: PositiveNumber = 0.1
    batch_size: PositiveInt | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    schedule: Literal["one_cycle", "cosine", "constant", "step"] = "one_cycle"
    milestones: list[PositiveInt] = []
    gamma: PositiveNumber = 0.1
    temperature: PositiveNumber = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    mean_over_classes: bool = False
    views: PositiveInt = 10
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    recalibrate: bool = True

    def recipe(self, num_images: int) -> dict[str, Any]:
        """The keys of `trainables.recipe.Recipe`.

        Args:
            num_images: of the training part; decides the batch size where none is given.
        """
        values = self.model_dump(include=set(TrainingConfig.model_fields))
        if self.batch_size is None:
            values["batch_size"] = next(size for limit, size in _BATCH_SIZES if num_images < limit)
        return values


# (training images below, batch size): a short training on few images needs steps more than it needs large batches
_BATCH_SIZES = ((5_000, 32), (20_000, 64), (math.inf, 128))


class DistillConfig(TrainingConfig):
    """A trial of the search: the final recipe, shortened and annealed.

    A trial's numbers are means over `repeats` initialisations, trained in step; the weights of the best are kept. `value_epoch` says which
    epoch of a trial gives its value, the last or the best so far; the weights that are kept are the last one's. `inherit` says which of
    the teacher's channels a student starts from, wherever it starts from the teacher. `report` asks for more numbers in the results of all
    trials: the accuracy of each class (`class_accuracy/K`), and the latency. `metrics`: a function of one's own (`trainables.reports`).
    """

    value_epoch: Literal["last", "best"] = "last"
    repeats: PositiveInt = 1
    inherit: Literal["none", "first", "l1", "taylor", "pruning"] = "l1"
    report: list[Reportable] = []
    metrics: Annotated[str, Field(min_length=1)] | None = None


class FinishConfig(TrainingConfig):
    """The full training of the best few; `halving`: from four on, successive halving shares the trainings out among them."""

    epochs: PositiveInt = 60
    students: PositiveInt = 3
    halving: bool = True
    init: Literal["search", "inherit", "fresh"] = "search"


class ScheduleConfig(BaseModel):
    """Who stops weak trials early; further keys go to the scheduler."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: Annotated[str, Field(min_length=1)] = "asha"


class ResourcesConfig(_Section):
    """What one trial gets; `device: auto` takes CUDA where the machine has it."""

    cpus: PositiveNumber = 1
    gpus: Annotated[float, BeforeValidator(_forbid_bool), Field(ge=0, allow_inf_nan=False)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_s: PositiveNumber | None = None


class ClusterConfig(_Section):
    """The Ray cluster: null starts a local one, `auto` or `ray://...` attaches."""

    address: str | None = None


class Config(_Section):
    """Everything that a run depends on."""

    run: RunConfig = RunConfig()
    teacher: TeacherConfig = TeacherConfig()
    data: DataConfig = DataConfig()
    space: SpaceConfig = SpaceConfig()
    budget: BudgetConfig | None = BudgetConfig(params=0.05)
    objective: Literal["auto", "f", "naive", "accuracy"] = "auto"
    search: SearchConfig = SearchConfig()
    distill: DistillConfig = DistillConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    finish: FinishConfig = FinishConfig()
    baselines: list[Baseline] = ["uniform", "random"]
    resources: ResourcesConfig = ResourcesConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def data_seed(self) -> int:
        """Of the validation part."""
        return self.run.seed if self.data.seed is None else self.data.seed

    @property
    def teacher_seed(self) -> int:
        """Of the teacher's initialisation and training."""
        return self.run.seed if self.teacher.seed is None else self.teacher.seed

    @property
    def limits(self) -> dict[str, BudgetValue]:
        """The budget's keys that are set."""
        return {} if self.budget is None else self.budget.model_dump(exclude_none=True)

    def to_yaml(self) -> str:
        """The resolved configuration, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_config(
    source: str | Path | Mapping[str, Any] | Config | None = None,
    overrides: Sequence[str] | str | Mapping[str, Any] = (),
) -> Config:
    """Reads, merges and checks a configuration.

    Args:
        source: a YAML file, a mapping of any configuration keys, a `Config`, or None for the defaults.
        overrides: `key.path=value` strings (values are YAML) or a single one, or a mapping.

    Raises:
        ConfigError: one sentence that names the key, the value and the remedy.
    """
    if source is None:
        raw: dict[str, Any] = {}
    elif isinstance(source, Mapping):
        raw = plain(source)
    elif isinstance(source, Config):
        raw = source.model_dump(exclude_unset=True)
    elif not isinstance(source, str | Path):
        raise ConfigError(
            f"config: it is of type {type(source).__name__}; give a YAML file, a mapping of keys, or a Config"
        )
    else:
        raw = read_yaml(Path(source))
    if isinstance(overrides, Mapping):
        raw = merge(raw, plain(overrides))
    else:
        for text in [overrides] if isinstance(overrides, str) else overrides:
            raw = merge(raw, parse_override(text))
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Checks a mapping of configuration keys; raises ConfigError."""
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(complaint(error, raw, Config)) from None
    _check_whole(config)
    return config


def _check_whole(config: Config) -> None:
    """What no single field can tell."""
    if config.budget is not None and not config.limits:
        raise ConfigError(
            "budget: no key is set; give one of params, macs, memory, latency_ms and accuracy, or `budget: null` for none"
        )
    if config.data.validation >= 1 and not isinstance(config.data.validation, int):
        raise ConfigError(
            f"data.validation: {config.data.validation} is neither a share below 1 nor a whole number of rows"
        )
    for name in ("distill", "finish"):
        recipe: TrainingConfig = getattr(config, name)
        if recipe.schedule == "step" and not recipe.milestones:
            raise ConfigError(
                f"{name}.milestones: empty, but {name}.schedule is 'step'; list the epochs at which lr falls"
            )
    for key, values in (
        ("space.operations", config.space.operations),
        ("baselines", config.baselines),
        ("search.first", config.search.first),
        ("distill.report", config.distill.report),
    ):
        if isinstance(values, list) and len(set(values)) < len(values):
            raise ConfigError(f"{key}: {list(values)} names an entry twice; name each once")
