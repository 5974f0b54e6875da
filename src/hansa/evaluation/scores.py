"""What metrics share: checking scores against labels, and turning scores into classes."""

from __future__ import annotations

import math

import numpy as np

from hansa.core.trees import Array
from hansa.errors import DataError


def row_weights(y: Array, weights: Array | None) -> Array:
    """A float64 weight for each row, (n,); ones where none are given.

    Raises:
        DataError: there is not one for each row, or one is negative or not finite.
    """
    if weights is None:
        return np.ones(len(y))
    out = np.asarray(weights, dtype=np.float64)
    if out.shape != (len(y),):
        raise DataError("not one weight for each row", path="weights", expected=f"({len(y)},)", got=out.shape)
    if not (np.isfinite(out).all() and (out >= 0).all()):
        raise DataError("a weight is negative or not finite", path="weights", expected="finite numbers >= 0")
    return out


def same_shape(y: Array, scores: Array) -> tuple[Array, Array]:
    """Both as float64, for a regression.

    Raises:
        DataError: the shapes differ: broadcasting (n, 1) against (n,) would compare every row with every other.
    """
    if np.shape(y) != np.shape(scores):
        raise DataError("the predictions do not fit the targets", path="scores", expected=np.shape(y), got=np.shape(scores))
    return np.asarray(y, dtype=np.float64), np.asarray(scores, dtype=np.float64)


def class_count(y: Array, scores: Array) -> int:
    """2 for scores of y's shape (probabilities of class 1), k for scores (n, k, ...) against y (n, ...).

    Raises:
        DataError: the scores fit neither, or a label is not a class.
    """
    if scores.shape == y.shape:
        classes = 2
    elif scores.ndim == y.ndim + 1 and scores.shape[:1] + scores.shape[2:] == y.shape and scores.shape[1] >= 2:
        classes = scores.shape[1]
    else:
        raise DataError(
            "the scores do not fit the labels",
            path="scores",
            expected=f"{y.shape}, or ({', '.join(str(n) for n in ('n', 'k >= 2', *y.shape[1:]))})",
            got=scores.shape,
        )
    if y.size and not ((y >= 0) & (y < classes) & (y == np.floor(y))).all():
        raise DataError("a label is not a class", path="y", expected=f"0 to {classes - 1}", got=f"{y.min()} to {y.max()}")
    return classes


def predicted(y: Array, scores: Array) -> Array:
    """The predicted class of each label of y: the largest score, or 1 where its probability is over 0.5; a tie is the lower."""
    return (scores > 0.5).astype(np.int64) if scores.shape == y.shape else scores.argmax(axis=1)


def nan_where_nan(scores: Array) -> float:
    """1.0, or nan where a score is NaN: a factor for sums, since a diverged model has no accuracy."""
    return math.nan if scores.dtype.kind not in "iub" and np.isnan(scores).any() else 1.0
