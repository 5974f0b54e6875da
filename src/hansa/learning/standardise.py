"""Features imputed and scaled by a federated statistics round: per column, a count, a mean and a sum of squares leave a site.

Sites' moments are joined by the update of Chan, Golub & LeVeque 1979 (STAN-CS-79-773): sums of squares about zero would lose all
digits of a column such as a year, whose mean is far from its spread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from hansa.core import trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_aggregate, federated_map
from hansa.core.protocols import BatchLearner, Dataset, Evaluation, FitConfig, Learner, Part, Update
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Array, Spec, Tree
from hansa.core.types import Clients, ObjectType, TensorType, to_type
from hansa.errors import DataError, SpecError

MEAN, SCALE = "x.mean", "x.scale"


class Moments(NamedTuple):
    """Per column, over the rows where it is known: how many, their mean, their sum of squares about it. (d,) float64."""

    count: Any
    mean: Any
    squares: Any


def moments_of(rows: Dataset) -> Moments:
    """The moments of a site's rows.

    >>> from hansa.data.rows import Rows
    >>> moments_of(Rows(np.array([[1.0, 4.0], [3.0, np.nan]]), np.zeros(2)))
    Moments(count=array([2., 1.]), mean=array([2., 4.]), squares=array([2., 0.]))

    Raises:
        DataError: x is not (n, d), or an entry is infinite; names the column.
    """
    x = np.asarray(rows.x, dtype=np.float64)
    if x.ndim != 2:
        raise DataError("features are standardised by column", expected="x of shape (n, d)", got=f"shape {x.shape}")
    if np.isinf(x).any():
        raise DataError(
            "a feature is infinite", path=f"x[:, {int(np.isinf(x).any(0).argmax())}]", hint="write nan for what is unknown"
        )
    known = ~np.isnan(x)
    count = known.sum(0).astype(np.float64)
    mean = np.where(known, x, 0.0).sum(0) / np.maximum(count, 1.0)
    apart = np.where(known, x - mean, 0.0)
    return Moments(count, mean, (apart * apart).sum(0))


def joined(left: Moments, right: Moments) -> Moments:
    """The moments of both sites' rows together."""
    count = left.count + right.count
    share = right.count / np.maximum(count, 1.0)
    apart = right.mean - left.mean
    return Moments(count, left.mean + apart * share, left.squares + right.squares + apart * apart * left.count * share)


@dataclass(frozen=True, slots=True)
class Joined:
    """The aggregator of sites' moments. The first site's columns bind the others."""

    def zero(self, like: Tree) -> Moments:
        """The moments of no rows."""
        return Moments(**trees.zeros(like))

    def add(self, acc: Moments, update: Tree, weight: float) -> Moments:  # noqa: ARG002  counts weigh the sites
        """The moments with one more site's.

        Raises:
            SpecError: the site has other columns; nothing was added.
        """
        Spec.of(acc._asdict()).check(update)
        return joined(acc, Moments(**update))

    def merge(self, left: Moments, right: Moments) -> Moments:
        """The moments of both."""
        return joined(left, right)

    def finish(self, acc: Moments) -> dict[str, Any]:
        """The moments of all sites."""
        return acc._asdict()


@dataclass(frozen=True)
class Prepared:
    """A site's rows with each missing feature at the mean and each column scaled; made when asked for."""

    rows: Dataset
    mean: Array
    scale: Array

    @cached_property
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

    def accepts(self, x: TensorType, y: TensorType) -> None:
        """Return if rows of these types can be trained on, as far as the inner learner says; x has columns.

        Raises:
            DataError: they cannot; names the array.
        """
        if x.shape is not None and len(x.shape) != 2:
            raise DataError("features are standardised by column", path="x", expected="x of shape (n, d)", got=x)
        if (inner := getattr(self.inner, "accepts", None)) is not None:
            inner(x, y)

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


def fitting(learner: Learner, model: Tree) -> Learner:
    """The learner as the model wants its features: standardised by the statistics that it carries, else as they are."""
    return learner if isinstance(learner, Standardised) or MEAN not in model else Standardised(learner)


def standardised_start(start: Callable[[int], Tree], state: Callable[[Tree], Any], kind: type) -> Computation:
    """The computation that joins the sites' moments and makes the first state, a `kind`; `start`: a model from the job's seed."""

    def feature_moments(data: Dataset) -> Moments:
        return moments_of(data.part("train"))

    # A vectorised engine may go from site to site here: a pass over the rows gains nothing from being batched.
    local = LocalFunction(feature_moments, "feature_moments", (("data", ObjectType("Dataset")),), to_type(Moments), loops=True)

    def first_state(moments: Moments, *, ctx: FLContext) -> Any:
        return state(with_statistics(start(ctx.seed), moments))

    first = LocalFunction(first_state, "first_state", (("moments", to_type(Moments)),), to_type(kind), frozenset({"ctx"}))

    @federated_computation
    def initialize(data: Clients[Dataset]) -> Any:
        return federated_map(first, federated_aggregate(federated_map(local, data), Joined()))

    return cast(Computation, initialize)


def with_statistics(model: Tree, moments: Moments) -> Tree:
    """The model with the columns' mean and standard deviation; a column that is unknown or constant gets scale 1."""
    mean = np.asarray(moments.mean, dtype=np.float64)
    spread = np.sqrt(moments.squares / np.maximum(moments.count, 1.0))
    # A constant column's spread is rounding of its mean, not 0: divided by, it would make numbers of noise.
    scale = np.where(spread > 1e-12 * np.abs(mean), spread, 1.0)
    return trees.merge(model, {MEAN: mean, SCALE: scale})


def _parted(model: Tree) -> tuple[tuple[Array, Array], Tree]:
    own, weights = trees.split(model, (MEAN, SCALE))
    if len(own) != 2:
        hint = "where they are personal, each site has its own and this model has none"
        raise SpecError("the model has no feature statistics", path=MEAN, expected=f"leaves {MEAN} and {SCALE}", hint=hint)
    return (own[MEAN], own[SCALE]), weights


def _whole(update: Update, statistics: tuple[Array, Array]) -> Update:
    still = {MEAN: np.zeros_like(statistics[0]), SCALE: np.zeros_like(statistics[1])}
    return update._replace(delta=trees.merge(update.delta, still))
