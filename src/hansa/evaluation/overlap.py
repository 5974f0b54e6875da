"""F1 and Dice: 2 |A and B| / (|A| + |B|), over the rows of a class or over the pixels of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hansa.core.protocols import Evaluation
from hansa.core.trees import Array, Tree
from hansa.errors import DataError
from hansa.evaluation.scores import class_count, nan_where_nan, predicted, row_weights


@dataclass(frozen=True, slots=True)
class F1:
    """F1 from the weights of true positives, labels and predictions of each class (k,), which add up.

    `binary` is of class 1 of two. `macro` is the mean over classes that occur in the labels or the predictions, as in scikit-learn.
    """

    average: Literal["macro", "binary"] = "macro"
    name: str = "f1"
    higher_is_better: bool = True

    def measure(self, y: Array, evaluation: Evaluation, weights: Array | None = None) -> Tree:
        """The site's share.

        Raises:
            DataError: the scores do not fit the labels, or `binary` is asked of more than two classes.
        """
        y, scores = np.asarray(y), np.asarray(evaluation.scores)
        classes = class_count(y, scores)
        if self.average == "binary" and classes != 2:
            raise DataError("binary F1 is of two classes", path="scores", got=f"{classes} classes", hint='f1(average="macro")')
        each = np.broadcast_to(row_weights(y, weights).reshape(-1, *[1] * (y.ndim - 1)), y.shape).ravel()
        truth, guess = y.ravel().astype(np.int64), predicted(y, scores).ravel()
        hit = truth == guess
        return {
            "hits": np.bincount(truth[hit], each[hit], classes) * nan_where_nan(scores),
            "labels": np.bincount(truth, each, classes),
            "guesses": np.bincount(guess, each, classes),
        }

    def value(self, sums: Tree) -> float:
        """F1; nan where no class that counts occurs."""
        hits, labels, guesses = (np.asarray(sums[key]) for key in ("hits", "labels", "guesses"))
        counted = np.arange(len(hits)) == 1 if self.average == "binary" else np.ones(len(hits), dtype=bool)
        counted = counted & (labels + guesses > 0)
        return float(np.mean(2 * hits[counted] / (labels + guesses)[counted])) if counted.any() else math.nan


@dataclass(frozen=True, slots=True)
class Dice:
    """The mean over images of the foreground's Dice: masks y (n, h, w) against probabilities of the same shape, or (n, k, h, w).

    Sums are for each class but 0 (the background): the weighted `total` of the images' coefficients, and the weight of the `images`
    that have one. An image where the class is neither labelled nor predicted has none. The value is the mean over classes.
    """

    name: str = "dice"
    higher_is_better: bool = True

    def measure(self, y: Array, evaluation: Evaluation, weights: Array | None = None) -> Tree:
        """The site's share.

        Raises:
            DataError: y are not masks, or the scores do not fit them.
        """
        y, scores = np.asarray(y), np.asarray(evaluation.scores)
        if y.ndim < 2:
            raise DataError("Dice is of masks", path="y", expected="(n, h, w)", got=y.shape)
        classes = class_count(y, scores)
        each, guess = row_weights(y, weights), predicted(y, scores)
        axes = tuple(range(1, y.ndim))
        total, images = np.zeros(classes - 1), np.zeros(classes - 1)
        for label in range(1, classes):
            a, b = y == label, guess == label
            size = a.sum(axis=axes) + b.sum(axis=axes)
            counted = size > 0
            total[label - 1] = (each[counted] * 2 * (a & b).sum(axis=axes)[counted] / size[counted]).sum()
            images[label - 1] = each[counted].sum()
        return {"total": total * nan_where_nan(scores), "images": images}

    def value(self, sums: Tree) -> float:
        """The mean Dice; nan where no image has one."""
        total, images = np.asarray(sums["total"]), np.asarray(sums["images"])
        counted = images > 0
        return float(np.mean(total[counted] / images[counted])) if counted.any() else math.nan
