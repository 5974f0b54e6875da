import math
from typing import Any

import numpy as np
import pytest

from hansa.core.protocols import Evaluation
from hansa.errors import ConfigError, DataError
from hansa.evaluation.auc import Auc, auc_error, exact_auc


def of(y: Any, scores: Any, weights: Any = None) -> float:
    metric = Auc()
    return metric.value(metric.measure(np.array(y), Evaluation(np.array(scores), 0.0), weights))


Y, SCORES = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]  # three of four pairs are in order


@pytest.mark.parametrize("area", [of, lambda y, s, w=None: exact_auc(np.array(y), np.array(s), w)])
def test_areas_by_hand(area: Any) -> None:
    assert area(Y, SCORES) == 0.75
    assert area([0, 1, 1], [0.5, 0.5, 0.9]) == 0.75  # a tie counts half
    assert area(Y, [0.5] * 4) == 0.5
    assert area([1, 0], [0.0, 1.0]) == 0.0
    assert area(Y, SCORES, np.array([1.0, 3.0, 1.0, 1.0])) == pytest.approx((1 + 1 + 3) / 8)
    assert area(Y, np.stack([1 - np.array(SCORES), SCORES], axis=1)) == 0.75
    assert area(np.array(Y)[:, None], np.array(SCORES)[:, None]) == 0.75


@pytest.mark.parametrize("area", [of, lambda y, s: exact_auc(np.array(y), np.array(s))])
def test_several_classes_are_each_taken_against_the_rest(area: Any) -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1]])
    # class 0 (rows 0, 3) 1; class 1 (rows 1, 2) 1; class 2 does not occur
    assert area([0, 1, 1, 0], scores) == 1.0
    # class 0 (row 0) 1; class 1 (row 1): over 0.2 and 0.3, under 0.5; class 2 (rows 2, 3): 0.2 over 0.1 (row 0), 0.1 ties it
    assert area([0, 1, 2, 2], scores) == pytest.approx((1 + 2 / 3 + (1 + 0 + 0.5 + 0) / 4) / 3)


@pytest.mark.parametrize("area", [of, lambda y, s: exact_auc(np.array(y), np.array(s))])
def test_without_positives_or_without_negatives_it_is_nan(area: Any) -> None:
    assert math.isnan(area([0, 0], [0.1, 0.2]))
    assert math.isnan(area([1, 1], [0.1, 0.2]))
    assert math.isnan(area(np.zeros(0), np.zeros(0)))
    assert math.isnan(area([0, 1], [math.nan, 0.5]))


def test_saturated_scores_are_told_apart() -> None:
    assert of([0, 1], [1e-6, 1.1e-6]) == 1.0
    assert of([0, 1], [1 - 1.1e-6, 1 - 1e-6]) == 1.0
    assert of([0, 1], [0.0, 1.0]) == 1.0


def test_the_error_is_stated() -> None:
    sums = Auc(bins=2).measure(np.array(Y), Evaluation(np.array(SCORES), 0.0))
    assert auc_error(sums) == 0.25  # two of four pairs share the lower bin
    assert abs(Auc().value(sums) - 0.75) <= 0.25


def test_the_error_is_below_a_thousandth_on_scores_like_a_models() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(4000) < 0.1).astype(int)
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1.0, 4000) + 1.5 * y - 3)))
    sums = Auc().measure(y, Evaluation(scores, 0.0))
    assert auc_error(sums) < 1e-3
    assert abs(Auc().value(sums) - exact_auc(y, scores)) < 1e-4


def test_what_is_not_a_probability_is_refused() -> None:
    with pytest.raises(DataError, match="0 to 1; got -1 to 3"):
        of([0, 1], [-1.0, 3.0])
    with pytest.raises(DataError, match="one label a row"):
        of(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ConfigError, match="bins"):
        Auc(bins=0)
