"""Metrics as sums that add up across sites: value(sum of the sites' sums) is the value over all rows together.

Each takes labels or targets y (n, ...), an Evaluation whose scores have one entry a row, and optional weights (n,). A value that
is not defined (no rows, no positives) is nan, never 0; a NaN among the scores makes the value nan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hansa import registry
from hansa.core.protocols import Evaluation, Metric
from hansa.core.trees import Array, Tree
from hansa.errors import ConfigError
from hansa.evaluation.auc import Auc
from hansa.evaluation.overlap import F1, Dice
from hansa.evaluation.scores import class_count, nan_where_nan, predicted, row_weights, same_shape


def resolve(names: Sequence[str], *, path: str = "metrics.names") -> list[Metric]:
    """The metrics of these names, as entry points declare them.

    >>> [metric.name for metric in resolve(["accuracy", "loss"])]
    ['accuracy', 'loss']

    Raises:
        ConfigError: a name is unknown (says the nearest), comes twice, or does not stand for a metric.
    """
    found: dict[str, Metric] = {}
    for place, name in enumerate(names):
        factory: Any = registry.find("metrics", name, path=f"{path}[{place}]")
        metric: Metric = factory()
        if metric.name in found:
            raise ConfigError("a metric is named twice", path=f"{path}[{place}]", got=name)
        found[metric.name] = metric
    return list(found.values())


def loss() -> Metric:
    """The learner's mean loss, weighted by rows."""
    return Loss()


def accuracy() -> Metric:
    """The share of rows whose class is right: the largest of (n, k) scores, or (n,) probabilities over 0.5."""
    return Accuracy()


def auc(*, bins: int | None = None) -> Metric:
    """The area under the ROC curve; for k > 2 classes the mean of one class against the rest. See hansa.evaluation.auc."""
    return Auc(bins)


def f1(*, average: Literal["macro", "binary"] = "macro") -> Metric:
    """The F1 score: of class 1 (`binary`), or the mean over the classes that occur in labels or predictions (`macro`)."""
    return F1(average)


def dice() -> Metric:
    """The mean Dice coefficient of masks, image by image."""
    return Dice()


def mse() -> Metric:
    """The mean squared error over rows and outputs."""
    return Error("mse")


def rmse() -> Metric:
    """The root of the mean squared error over rows and outputs."""
    return Error("rmse")


def mae() -> Metric:
    """The mean absolute error over rows and outputs."""
    return Error("mae")


def r2() -> Metric:
    """The coefficient of determination, a mean over outputs that are not constant."""
    return R2()


@dataclass(frozen=True, slots=True)
class Loss:
    """Sums: `total` (loss times rows) and `rows`. An evaluation holds only the mean, so rows cannot be weighted after the fact."""

    name: str = "loss"
    higher_is_better: bool = False

    def measure(self, y: Array, evaluation: Evaluation) -> Tree:
        """The site's share of the mean."""
        rows = len(y)
        return _sums(total=evaluation.loss * rows if rows else 0.0, rows=rows)

    def value(self, sums: Tree) -> float:
        """The mean loss over rows; nan without rows."""
        return _ratio(sums["total"], sums["rows"])


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Sums: the weight of the labels that are `right`, and of all. For labels (n, ...) each entry is a label."""

    name: str = "accuracy"
    higher_is_better: bool = True

    def measure(self, y: Array, evaluation: Evaluation, weights: Array | None = None) -> Tree:
        """The site's share.

        Raises:
            DataError: the scores do not fit the labels.
        """
        y, scores = np.asarray(y), np.asarray(evaluation.scores)
        class_count(y, scores)
        each = row_weights(y, weights)
        right = (predicted(y, scores) == y).reshape(len(y), -1).sum(axis=1) if y.size else np.zeros(len(y))
        labels = y.size // len(y) if len(y) else 0
        return _sums(right=(right * each).sum() * nan_where_nan(scores), labels=each.sum() * labels)

    def value(self, sums: Tree) -> float:
        """The share of right labels; nan without any."""
        return _ratio(sums["right"], sums["labels"])


@dataclass(frozen=True, slots=True)
class Error:
    """Sums: the weighted `total` of squared (mse, rmse) or absolute (mae) errors, and the weight of all entries."""

    name: Literal["mse", "rmse", "mae"]
    higher_is_better: bool = False

    def measure(self, y: Array, evaluation: Evaluation, weights: Array | None = None) -> Tree:
        """The site's share.

        Raises:
            DataError: targets and predictions differ in shape.
        """
        target, prediction = same_shape(y, evaluation.scores)
        each = row_weights(target, weights)
        errors = np.abs(prediction - target) if self.name == "mae" else (prediction - target) ** 2
        outputs = target.size // len(target) if len(target) else 0
        total = (errors.reshape(len(target), -1).sum(axis=1) * each).sum() if target.size else 0.0
        return _sums(total=total, entries=each.sum() * outputs)

    def value(self, sums: Tree) -> float:
        """The mean error (rmse: its root); nan without rows."""
        mean = _ratio(sums["total"], sums["entries"])
        return math.sqrt(mean) if self.name == "rmse" else mean


@dataclass(frozen=True, slots=True)
class R2:
    """1 - residual / total sum of squares, for each output (d,); sums: rows, targets, their squares, squared residuals.

    The total is a difference of sums, so that sites add up: targets whose mean is over 1e6 of their spreads lose it to rounding and
    count as constant.
    """

    name: str = "r2"
    higher_is_better: bool = True

    def measure(self, y: Array, evaluation: Evaluation, weights: Array | None = None) -> Tree:
        """The site's share.

        Raises:
            DataError: targets and predictions differ in shape.
        """
        target, prediction = same_shape(y, evaluation.scores)
        each = row_weights(target, weights)
        width = math.prod(target.shape[1:])
        target, prediction = target.reshape(len(target), width), prediction.reshape(len(target), width)
        return _sums(rows=each.sum(), targets=each @ target, squares=each @ target**2, residuals=each @ (prediction - target) ** 2)

    def value(self, sums: Tree) -> float:
        """The mean over outputs that vary; nan where none does."""
        rows, targets, squares, residuals = (np.asarray(sums[key]) for key in ("rows", "targets", "squares", "residuals"))
        if not rows > 0:
            return math.nan
        total = squares - targets**2 / rows
        varies = total > 1e-12 * squares  # below that the difference is rounding
        return float(np.mean(1.0 - residuals[varies] / total[varies])) if varies.any() else math.nan


def _sums(**sums: object) -> dict[str, Array]:
    return {name: np.asarray(value, dtype=np.float64) for name, value in sums.items()}


def _ratio(part: object, whole: object) -> float:
    return float(np.asarray(part)) / float(np.asarray(whole)) if float(np.asarray(whole)) > 0 else math.nan
