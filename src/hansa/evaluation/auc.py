"""The area under the ROC curve, from histograms that add up across sites, and exactly from the scores of one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hansa.core.protocols import Evaluation
from hansa.core.trees import Array, Tree
from hansa.errors import ConfigError, DataError
from hansa.evaluation.scores import class_count, nan_where_nan, row_weights

KNEE = 8.0  # logits beyond this are binned ever more coarsely: few scores lie there
LOGIT = 40.0  # logits beyond this share the outermost bins: float64 tells none apart near 1 from 37 on
BINARY_BINS = 8192  # 0.0045 in logit near 0; 128 KiB of sums a site
CLASS_BINS = 2048  # for each of k > 2 classes, whose scores spread wider; 32 KiB a class and site


@dataclass(frozen=True, slots=True)
class Auc:
    """The probability that a positive outranks a negative, a tie counting half.

    For k > 2 classes: the mean, over the classes that have both, of the class against the rest.

    Sums are histograms (classes, bins) of positives and negatives over `bins` equal steps of asinh(logit / 8), logits from -40 to
    40, which resolve rare and saturated scores alike. Pairs in one bin count half, so that the value is off by at most
    `auc_error`: below 1e-3 where logits spread by 1 or more. Scores that are equal are in one bin, as they should be.
    """

    bins: int | None = None
    name: str = "auc"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        """Refuse a histogram without bins."""
        if self.bins is not None and self.bins < 2:
            raise ConfigError("not a number of bins", path="bins", expected=">= 2", got=self.bins)

    def measure(self, y: Array, evaluation: Evaluation, weights: Array | None = None) -> Tree:
        """The site's share.

        Raises:
            DataError: the scores do not fit the labels, or are not probabilities.
        """
        y, scores, classes = _columns(y, evaluation.scores)
        each = row_weights(y, weights)
        bins = self.bins or (BINARY_BINS if len(classes) == 1 else CLASS_BINS)
        positives, negatives = np.zeros((len(classes), bins)), np.zeros((len(classes), bins))
        for row, label in enumerate(classes):
            place, positive = _bin(scores[:, row], bins), y == label
            positives[row] = np.bincount(place[positive], each[positive], bins)
            negatives[row] = np.bincount(place[~positive], each[~positive], bins)
        return {"positives": positives * nan_where_nan(scores), "negatives": negatives}

    def value(self, sums: Tree) -> float:
        """The area; nan without positives or without negatives."""
        positives, negatives = np.asarray(sums["positives"]), np.asarray(sums["negatives"])
        below = np.cumsum(negatives, axis=1) - negatives
        wins = (positives * (below + negatives / 2)).sum(axis=1)
        return _mean_of_defined(wins, positives.sum(axis=1) * negatives.sum(axis=1))


def auc_error(sums: Tree) -> float:
    """How far Auc's value may be from the exact area: half the share of pairs that lie in one bin, equal scores included."""
    positives, negatives = np.asarray(sums["positives"]), np.asarray(sums["negatives"])
    return _mean_of_defined((positives * negatives).sum(axis=1) / 2, positives.sum(axis=1) * negatives.sum(axis=1))


def exact_auc(y: Array, scores: Array, weights: Array | None = None) -> float:
    """The area under the ROC curve from ranks, exactly: for one place, where all scores are at hand. Shapes and means as in Auc.

    >>> exact_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75

    Raises:
        DataError: the scores do not fit the labels, or are not probabilities.
    """
    y, scores, classes = _columns(y, scores)
    if math.isnan(nan_where_nan(scores)):
        return math.nan
    each = row_weights(y, weights)
    wins, pairs = np.zeros(len(classes)), np.zeros(len(classes))
    for row, label in enumerate(classes):
        _, rank = np.unique(scores[:, row], return_inverse=True)
        size = int(rank.max(initial=-1)) + 1
        positives = np.bincount(rank[y == label], each[y == label], size)
        negatives = np.bincount(rank[y != label], each[y != label], size)
        wins[row] = (positives * (np.cumsum(negatives) - negatives / 2)).sum()
        pairs[row] = positives.sum() * negatives.sum()
    return _mean_of_defined(wins, pairs)


def _columns(y: Array, scores: Array) -> tuple[Array, Array, list[int]]:
    """Labels (n,), float64 scores (n, columns), and the class that each column stands for: 1 alone for two classes."""
    y, scores = np.asarray(y), np.asarray(scores)
    if y.ndim == 2 and y.shape[1] == 1:
        scores, y = (scores[:, 0] if scores.shape == y.shape else scores), y[:, 0]
    if y.ndim != 1:
        raise DataError("the area under the curve is of one label a row", path="y", expected="(n,)", got=y.shape)
    classes = class_count(y, scores)
    scores = scores.astype(np.float64)
    if ((scores < 0) | (scores > 1)).any():
        raise DataError(
            "a score is not a probability", path="scores", expected="0 to 1", got=f"{scores.min():g} to {scores.max():g}"
        )
    if classes == 2:
        return y, (scores if scores.ndim == 1 else scores[:, 1]).reshape(-1, 1), [1]
    return y, scores, list(range(classes))


def _bin(scores: Array, bins: int) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        logit = np.nan_to_num(np.log(scores) - np.log1p(-scores), nan=0.0)  # a NaN poisons the sums elsewhere
    end = np.arcsinh(LOGIT / KNEE)
    place = np.floor((np.arcsinh(np.clip(logit, -LOGIT, LOGIT) / KNEE) + end) * (bins / (2 * end)))
    out: Array = np.minimum(place.astype(np.int64), bins - 1)
    return out


def _mean_of_defined(wins: Array, pairs: Array) -> float:
    defined = ~(pairs == 0)
    return float(np.mean(wins[defined] / pairs[defined])) if defined.any() else math.nan
