import math
from typing import Any

import numpy as np
import pytest

from hansa.core.protocols import Evaluation
from hansa.errors import ConfigError, DataError
from hansa.evaluation import metrics
from hansa.evaluation.metrics import R2, Accuracy, Error


def of(metric: Any, y: Any, scores: Any, weights: Any = None, loss: float = 0.0) -> float:
    """The value over one place's rows."""
    given = () if weights is None else (np.array(weights),)
    return float(metric.value(metric.measure(np.array(y), Evaluation(np.array(scores), loss), *given)))


def test_loss_is_a_mean_over_rows() -> None:
    metric = metrics.loss()
    one = metric.measure(np.zeros(3), Evaluation(np.zeros(3), 0.5))
    two = metric.measure(np.zeros(1), Evaluation(np.zeros(1), 2.5))
    assert metric.value({key: one[key] + two[key] for key in one}) == 1.0  # type: ignore[operator]  # leaves, not branches
    assert math.isnan(metric.value(metric.measure(np.zeros(0), Evaluation(np.zeros(0), math.nan))))


def test_accuracy_of_class_scores_and_of_probabilities() -> None:
    assert of(metrics.accuracy(), [0, 1, 2, 2], np.eye(3)[[0, 1, 2, 0]]) == 0.75
    assert of(metrics.accuracy(), [0, 1, 1, 0], [0.1, 0.6, 0.4, 0.5]) == 0.75  # a tie at 0.5 is class 0, as argmax has it
    assert of(Accuracy(), [0, 1, 1], [0.1, 0.6, 0.4], weights=[1.0, 1.0, 2.0]) == 0.5
    assert of(metrics.accuracy(), [[[0, 1], [1, 1]]], [[[0.0, 1.0], [1.0, 0.0]]]) == 0.75


def test_regression_errors_by_hand() -> None:
    y, scores = [1.0, 2.0, 4.0], [1.0, 4.0, 0.0]  # errors 0, 2, -4
    assert of(metrics.mse(), y, scores) == pytest.approx(20 / 3)
    assert of(metrics.rmse(), y, scores) == pytest.approx(math.sqrt(20 / 3))
    assert of(metrics.mae(), y, scores) == 2.0
    assert of(Error("mse"), y, scores, weights=[1.0, 3.0, 0.0]) == 3.0
    assert of(metrics.mae(), [[1.0, 2.0]], [[2.0, 5.0]]) == 2.0


def test_r2_by_hand() -> None:
    # mean 2, total 2, residuals 0.25 + 0 + 0.25
    assert of(metrics.r2(), [1.0, 2.0, 3.0], [1.5, 2.0, 2.5]) == 0.75
    assert of(metrics.r2(), [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == 0.0
    assert of(metrics.r2(), [[1.0, 5.0], [3.0, 5.0]], [[1.0, 0.0], [3.0, 0.0]]) == 1.0  # the constant output has none
    assert of(R2(), [1.0, 3.0, 9.0], [1.0, 2.0, 0.0], weights=[1.0, 1.0, 0.0]) == 0.5
    assert math.isnan(of(metrics.r2(), [0.1] * 7, [0.2] * 7))
    assert math.isnan(of(metrics.r2(), [], []))


@pytest.mark.parametrize("name", ["accuracy", "auc", "f1", "mse", "rmse", "mae", "r2"])
def test_without_rows_a_value_is_nan(name: str) -> None:
    assert math.isnan(of(metrics.resolve([name])[0], np.zeros(0), np.zeros(0)))


@pytest.mark.parametrize("name", ["accuracy", "auc", "f1", "mse", "rmse", "mae", "r2"])
def test_a_diverged_model_has_the_value_nan(name: str) -> None:
    assert math.isnan(of(metrics.resolve([name])[0], [0, 1, 1], [0.2, math.nan, 0.9]))


@pytest.mark.parametrize(
    ("y", "scores"),
    [
        ([0, 1], [[0.5], [0.5]]),
        ([0, 1], [0.5]),
        ([0, 1], [[0.5, 0.5]]),
        ([0, 2], [0.5, 0.5]),
        ([-1, 1], [0.5, 0.5]),
        ([0, 3], [[1.0, 0, 0]] * 2),
        ([0.5, 1], [0.5, 0.5]),
    ],
)
def test_scores_that_do_not_fit_the_labels_are_refused(y: Any, scores: Any) -> None:
    for metric in (metrics.accuracy(), metrics.auc(), metrics.f1()):
        with pytest.raises(DataError):
            of(metric, y, scores)


def test_predictions_of_another_shape_are_refused_and_not_broadcast() -> None:
    for metric in (metrics.mse(), metrics.mae(), metrics.r2()):
        with pytest.raises(DataError, match="expected \\(2,\\); got \\(2, 1\\)"):
            of(metric, [0.0, 1.0], [[0.0], [1.0]])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, math.nan]])
def test_weights_that_mean_nothing_are_refused(weights: Any) -> None:
    with pytest.raises(DataError, match="weight"):
        of(Accuracy(), [0, 1], [0.5, 0.5], weights=weights)


def test_names_are_resolved_and_a_wrong_one_names_the_nearest() -> None:
    names = ["loss", "accuracy", "auc", "f1", "dice", "mse", "rmse", "mae", "r2"]
    found = metrics.resolve(names)
    assert [metric.name for metric in found] == names
    assert [metric.name for metric in found if not metric.higher_is_better] == ["loss", "mse", "rmse", "mae"]
    with pytest.raises(ConfigError, match="did you mean 'accuracy'") as caught:
        metrics.resolve(["loss", "acuracy"])
    assert caught.value.path == "metrics.names[1]"
    with pytest.raises(ConfigError, match="twice"):
        metrics.resolve(["loss", "loss"])
