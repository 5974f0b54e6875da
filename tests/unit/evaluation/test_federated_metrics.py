import math

import numpy as np
import pytest

from hansa.core.protocols import Evaluation
from hansa.errors import ConfigError, SpecError
from hansa.evaluation.federated import combine, measure
from hansa.evaluation.metrics import resolve

METRICS = resolve(["accuracy", "auc"])
NORTH = measure(METRICS, np.array([0, 1, 1]), Evaluation(np.array([0.1, 0.2, 0.9]), 0.0))
SOUTH = measure(METRICS, np.array([0]), Evaluation(np.array([0.3]), 0.0))


def test_pooled_federated_and_per_site_values_by_hand() -> None:
    result = combine(METRICS, {"north": NORTH, "south": SOUTH})
    assert result["sites"]["north"] == {"accuracy": pytest.approx(2 / 3), "auc": 1.0}
    assert result["sites"]["south"]["accuracy"] == 1.0
    assert math.isnan(result["sites"]["south"]["auc"])  # no positives there
    assert result["pooled"] == {"accuracy": 0.75, "auc": 0.75}  # 0.2 is under the south's 0.3
    assert result["federated"] == {"accuracy": 0.75, "auc": 1.0}  # the south has no area of its own
    assert result["spread"]["accuracy"] == {"min": pytest.approx(2 / 3), "max": 1.0, "std": pytest.approx(1 / 6)}


def test_without_sites_everything_is_nan() -> None:
    result = combine(METRICS, {})
    assert math.isnan(result["pooled"]["auc"])
    assert math.isnan(result["federated"]["auc"])
    assert math.isnan(result["spread"]["auc"]["std"])


def test_a_site_that_did_not_measure_a_metric_is_named() -> None:
    with pytest.raises(SpecError, match="at site 'south', path auc"):
        combine(METRICS, {"north": NORTH, "south": {key: SOUTH[key] for key in ("rows", "accuracy")}})


def test_a_site_with_other_classes_is_named() -> None:
    other = measure(METRICS, np.array([0, 1]), Evaluation(np.eye(3)[[0, 1]], 0.0))
    with pytest.raises(SpecError, match="another shape; at site 'south', path auc"):
        combine(METRICS, {"north": NORTH, "south": other})


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="taken"):
        measure([*METRICS, *METRICS], np.zeros(1), Evaluation(np.zeros(1), 0.0))
