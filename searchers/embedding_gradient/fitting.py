"""From observations to a model: the free architectures, the networks trained on them once, and the refits.

A refit depends on the search's seed and on what it learns from, on nothing else, so that its result may be kept or made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from searchers.ahead import Cancelled
from searchers.embedding_gradient.autoencoder import Networks, Shape
from searchers.embedding_gradient.descent import Cloud
from searchers.embedding_gradient.domain import Domain
from searchers.embedding_gradient.inputs import Coding, padded
from searchers.embedding_gradient.model import Model, SizeScale, ValueScale
from searchers.embedding_gradient.options import StepOptions
from searchers.embedding_gradient.training import (
    Examples,
    FitOptions,
    make_networks,
    pretrain,
    refit,
)

CLOUD_SIZE = 768
"""Architectures of the space, without accuracies, that the networks learn from."""
FOLDS = 5
"""Of the cross-validation that tells how well the model predicts."""

_CLOUD, _NETWORKS, _PRETRAIN, _REFIT = range(4)  # what a seed is for


@dataclass(frozen=True, eq=False)
class Learned:
    """What the networks learn from.

    Attributes:
        rows: [n, T_max, 5]
        values: [n]
        sizes: [n]
    """

    rows: np.ndarray
    values: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: np.ndarray) -> Learned:
        return Learned(self.rows[chosen], self.values[chosen], self.sizes[chosen])

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal contents."""
        return (self.rows.tobytes(), self.values.tobytes(), self.sizes.tobytes())


def joined(first: Learned, second: Learned, num_rows: int) -> Learned:
    """Both, sequences padded to `num_rows`.

    Raises:
        ConfigError: one of them is longer.
    """
    parts = (first, second)
    return Learned(
        np.concatenate([padded(part.rows, num_rows) for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.sizes for part in parts]),
    )


@dataclass
class Fitter:
    """Makes models; remembers the last one.

    Attributes:
        domain: the students.
        options: of the method.
        histories: number of observations -> losses of the refit, JSON-native.
    """

    domain: Domain
    options: StepOptions
    histories: dict[int, dict[str, Any]] = field(default_factory=dict)
    _base: tuple[int, Coding, Networks, Examples | None, SizeScale | None] | None = None
    _last: tuple[tuple[Any, ...], Model] | None = None

    @property
    def fit_options(self) -> FitOptions:
        """Of the training."""
        options = self.options
        if options.faithful:
            return FitOptions(True, 0, options.fit_steps, 3e-3, 64, spread=0.0)
        num = options.pretrain_steps if options.semi_supervised else 0
        return FitOptions(num_pretrain=num, num_steps=options.fit_steps)

    @property
    def newest(self) -> Model | None:
        """The last one that was kept."""
        return None if self._last is None else self._last[1]

    def fit(
        self,
        learned: Learned,
        seed: int,
        cancelled: Cancelled,
        *,
        keep: bool = True,
        most_steps: int | None = None,
    ) -> Model:
        """The model of the observations.

        Args:
            learned: at least two.
            seed: of the search.
            cancelled: where it says so, the model is of no use.
            keep: remember it and its history.
            most_steps: of the fit, where the options ask for more; None: as they ask.

        Raises:
            FitDiverged
        """
        key = (seed, *learned.key)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        coding, networks, cloud, sizes = self._begin(learned, seed, cancelled)
        values = self._value_scale(learned.values)
        examples = Examples(
            coding(learned.rows),
            _tensor(sizes(learned.sizes)),
            _tensor(values.to_unit(learned.values)),
        )
        beside = cloud if self.options.semi_supervised else None
        how = self.fit_options
        if most_steps is not None:
            how = replace(how, num_steps=min(how.num_steps, most_steps))
        networks, history = refit(
            networks,
            examples,
            beside,
            how,
            _seed(seed, _REFIT, len(learned)),
            cancelled,
        )
        model = self._model(networks, coding, values, sizes, examples, cloud)
        if keep and not cancelled():
            self._last = key, model
            self.histories[len(learned)] = history.thinned()
        return model

    def cross_validate(
        self, learned: Learned, seed: int, most_steps: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions of each value by a model that has not seen it, and their deviations over the regressors: [n], [n].

        Args:
            learned: the observations.
            seed: of the search.
            most_steps: see `fit`.

        Raises:
            FitDiverged
        """
        mean, sd = np.zeros(len(learned)), np.zeros(len(learned))
        fold = np.random.default_rng([seed, len(learned)]).permutation(len(learned)) % FOLDS
        for part in range(FOLDS):
            left_out = np.flatnonzero(fold == part)
            if len(left_out) and len(left_out) < len(learned):
                model = self.fit(
                    learned[fold != part], seed, lambda: False, keep=False, most_steps=most_steps
                )
                mean[left_out], sd[left_out] = model.predict(model.embed(learned.rows[left_out]))
        return mean, sd

    def _value_scale(self, values: np.ndarray) -> ValueScale:
        """The paper's a* is the accuracy itself."""
        return ValueScale(0.0, 1.0) if self.options.faithful else ValueScale.of(values)

    def _model(
        self,
        networks: Networks,
        coding: Coding,
        values: ValueScale,
        sizes: SizeScale,
        examples: Examples,
        cloud: Examples | None,
    ) -> Model:
        with torch.no_grad():
            Y = networks.encode(examples.sequences.x, examples.sequences.mask)  # [n, N]
            assert examples.values is not None, "observations have values"
            error = networks.f_a(Y).mean(0) - examples.values
            if cloud is not None:
                Y = torch.cat([Y, networks.encode(cloud.sequences.x, cloud.sequences.mask)])
        noise = float(error.square().mean().sqrt()) * (values.high - values.low)
        return Model(networks, coding, values, sizes, Cloud.of(Y), noise)

    def _begin(
        self, learned: Learned, seed: int, cancelled: Cancelled
    ) -> tuple[Coding, Networks, Examples | None, SizeScale]:
        """Where every refit begins; made once for a search, but for the faithful form, which has observations alone."""
        options = self.options
        if options.faithful:
            coding = Coding.of(learned.rows, raw=True, aligned=False)
            sizes = SizeScale.of(learned.sizes, log=False, centred=options.centred)
            return coding, self._networks(coding, seed), None, sizes
        if self._base is None or self._base[0] != seed:
            rng = np.random.default_rng([seed, _CLOUD])
            rows, found = self.domain.cloud(CLOUD_SIZE, options.size, rng)
            coding = Coding.of(rows, raw=False, aligned=self.domain.aligned)
            scale = None if found is None else SizeScale.of(found, log=True, centred=True)
            known = None if scale is None or found is None else _tensor(scale(found))
            cloud = Examples(coding(rows), known)
            networks = self._networks(coding, seed)
            pretrain(networks, cloud, self.fit_options, _seed(seed, _PRETRAIN), cancelled)
            if cancelled():
                return coding, networks, cloud, scale or SizeScale(True, 0.0, 1.0)
            self._base = (seed, coding, networks, cloud, scale)
        _, coding, networks, cloud, scale = self._base
        return coding, networks, cloud, scale or SizeScale.of(learned.sizes, log=True, centred=True)

    def _networks(self, coding: Coding, seed: int) -> Networks:
        options = self.options
        shape = Shape(
            num_features=coding.num_features,
            num_rows=coding.num_rows,
            embedding=options.embedding,
            channels=options.channels,
            hidden=options.hidden,
            num_regressors=options.num_regressors,
            relu_head=options.faithful,
            by_position=not options.faithful,
        )
        return make_networks(shape, _seed(seed, _NETWORKS))


def _tensor(values: np.ndarray | Sequence[float]) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


def _seed(*parts: int) -> int:
    return int(np.random.default_rng(parts).integers(2**62))
