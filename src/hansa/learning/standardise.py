"""Features imputed and scaled by a federated statistics round: only counts, sums and sums of squares leave a site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from hansa.core import trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.intrinsics import federated_map, federated_sum
from hansa.core.protocols import BatchLearner, Dataset, Evaluation, FitConfig, Learner, Part, Update
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Array, Tree
from hansa.core.types import Clients
from hansa.errors import DataError

MEAN, SCALE = "x.mean", "x.scale"


class Moments(NamedTuple):
    """Per column, over the rows where it is known: how many, their sum and their sum of squares (float64)."""

    count: Any
    total: Any
    squares: Any


@dataclass(frozen=True)
class Prepared:
    """A site's rows with each missing feature at the mean and each column scaled; made when asked for."""

    rows: Dataset
    mean: Array
    scale: Array

    @property
    def x(self) -> Array:
        """(n, d) float32, without NaN."""
        return prepare(self.rows.x, self.mean, self.scale)

    @property
    def y(self) -> Array:
        """The labels as they are."""
        return self.rows.y

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, name: Part) -> Prepared:
        """One part, prepared alike."""
        return Prepared(self.rows.part(name), self.mean, self.scale)


def prepare(x: Array, mean: Array, scale: Array) -> Array:
    """(x - mean) / scale in float32, and 0, the mean, where x is NaN.

    >>> prepare(np.array([[1.0, np.nan]]), np.array([0.5, 3.0]), np.array([0.5, 1.0]))
    array([[1., 0.]], dtype=float32)
    """
    ready = (np.asarray(x, dtype=np.float64) - mean) / scale
    return np.where(np.isnan(ready), 0.0, ready).astype(np.float32)


@dataclass(frozen=True)
class Standardised:
    """A learner on imputed and scaled features. The statistics are leaves of the model (`x.mean`, `x.scale`), so that a saved model
    takes raw features; training leaves them as they are.
    """

    inner: Learner

    @property
    def metrics(self) -> tuple[str, ...]:
        """The inner learner's."""
        return self.inner.metrics

    def init(self, rng: np.random.Generator) -> Tree:
        """The inner model without statistics; `with_statistics` adds them."""
        return self.inner.init(rng)

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """The inner learner's update on prepared rows; the statistics' deltas are zero."""
        statistics, weights = _parted(model)
        rows = Prepared(data, *statistics)
        return _whole(self.inner.fit(weights, rows, config, rng=rng, abort=abort), statistics)

    def fit_many(
        self,
        models: Sequence[Tree],
        datasets: Sequence[Dataset],
        configs: Sequence[FitConfig],
        *,
        rngs: Sequence[np.random.Generator],
    ) -> list[Update]:
        """The inner learner's updates on prepared rows."""
        parted = [_parted(model) for model in models]
        rows = [Prepared(data, *statistics) for data, (statistics, _) in zip(datasets, parted, strict=True)]
        inner = cast(BatchLearner, self.inner)  # templates asks for a batched form only where the inner one has it
        updates = inner.fit_many([weights for _, weights in parted], rows, configs, rngs=rngs)
        return [_whole(update, statistics) for update, (statistics, _) in zip(updates, parted, strict=True)]

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """The inner learner's evaluation on prepared rows."""
        statistics, weights = _parted(model)
        return self.inner.evaluate(weights, Prepared(data, *statistics))

    def predict(self, model: Tree, x: Array) -> Array:
        """Scores for raw features."""
        statistics, weights = _parted(model)
        return self.inner.predict(weights, prepare(x, *statistics))


def standardised_start(learner: Standardised, state: Callable[[Tree], Any]) -> Computation:
    """The computation that sums the sites' moments and makes the first state from a model with these statistics."""

    def feature_moments(data: Dataset) -> Moments:
        x = np.asarray(data.part("train").x, dtype=np.float64)
        if x.ndim != 2:
            raise DataError("features are standardised by column", expected="x of shape (n, d)", got=f"shape {x.shape}")
        known = ~np.isnan(x)
        filled = np.where(known, x, 0.0)
        return Moments(known.sum(0).astype(np.float64), filled.sum(0), (filled * filled).sum(0))

    def first_state(moments: Moments, *, ctx: FLContext) -> Any:
        return state(with_statistics(learner.init(ctx.rng("init")), moments))

    @federated_computation
    def initialize(data: Clients[Dataset]) -> Any:
        return federated_map(first_state, {"moments": federated_sum(federated_map(feature_moments, data))})

    return cast(Computation, initialize)


def with_statistics(model: Tree, moments: Moments) -> Tree:
    """The model with the columns' mean and standard deviation; a column that is unknown or constant gets mean 0 or scale 1."""
    count = np.maximum(moments.count, 1.0)
    mean = moments.total / count
    spread = np.sqrt(np.maximum(moments.squares / count - mean * mean, 0.0))
    scale = np.where(spread > 1e-12, spread, 1.0)
    return trees.merge(model, {MEAN: mean.astype(np.float32), SCALE: scale.astype(np.float32)})


def _parted(model: Tree) -> tuple[tuple[Array, Array], Tree]:
    own, weights = trees.split(model, (MEAN, SCALE))
    return (own[MEAN], own[SCALE]), weights


def _whole(update: Update, statistics: tuple[Array, Array]) -> Update:
    still = {MEAN: np.zeros_like(statistics[0]), SCALE: np.zeros_like(statistics[1])}
    return update._replace(delta=trees.merge(update.delta, still))
