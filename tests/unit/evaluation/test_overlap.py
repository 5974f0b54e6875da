import math
from typing import Any

import numpy as np
import pytest

from hansa.core.protocols import Evaluation
from hansa.errors import DataError
from hansa.evaluation.overlap import F1, Dice


def of(metric: Any, y: Any, scores: Any, weights: Any = None) -> float:
    given = () if weights is None else (np.array(weights),)
    return float(metric.value(metric.measure(np.array(y), Evaluation(np.array(scores), 0.0), *given)))


def test_binary_f1_by_hand() -> None:
    # one hit, one miss, one false alarm: 2 / (2 + 1 + 1)
    assert of(F1("binary"), [1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1]) == 0.5
    assert of(F1("binary"), [1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1], weights=[3, 1, 1, 1]) == 0.75
    assert of(F1("binary"), [1, 1, 0, 0], np.eye(2)[[1, 0, 1, 0]]) == 0.5


def test_macro_f1_is_the_mean_over_the_classes_that_occur() -> None:
    # class 0: 2 / 3, class 1: 2 / 3, class 2: 0 (predicted once, never labelled), class 3 does not occur
    assert of(F1(), [0, 0, 1], np.eye(4)[[0, 2, 1]]) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_f1_without_positives_or_predictions_is_nan() -> None:
    assert math.isnan(of(F1("binary"), [0, 0], [0.1, 0.2]))
    assert of(F1("binary"), [0, 0], [0.1, 0.9]) == 0.0


def test_binary_f1_of_three_classes_is_refused() -> None:
    with pytest.raises(DataError, match="two classes"):
        of(F1("binary"), [0, 1], np.eye(3)[[0, 1]])


def test_dice_is_a_mean_over_images_that_have_the_class() -> None:
    masks = [[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    guess = [[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    assert of(Dice(), masks, np.array(guess) * 0.9) == 0.75  # 2 * 1 / 4, none, 1
    assert of(Dice(), masks, np.array(guess) * 0.9, weights=[3, 1, 1]) == 0.625


def test_dice_of_class_scores_is_a_mean_over_the_foreground_classes() -> None:
    masks = np.array([[[0, 1], [2, 2]]])
    guess = np.array([[[0, 1], [1, 2]]])
    scores = np.moveaxis(np.eye(4)[guess], -1, 1)
    assert of(Dice(), masks, scores) == pytest.approx((2 / 3 + 2 / 3) / 2)  # class 3 is nowhere


def test_dice_without_any_foreground_is_nan() -> None:
    assert math.isnan(of(Dice(), np.zeros((2, 3, 3)), np.zeros((2, 3, 3))))
    assert math.isnan(of(Dice(), np.zeros((0, 3, 3)), np.zeros((0, 3, 3))))


def test_dice_of_labels_that_are_no_masks_is_refused() -> None:
    with pytest.raises(DataError, match="masks"):
        of(Dice(), [0, 1], [0.1, 0.9])
