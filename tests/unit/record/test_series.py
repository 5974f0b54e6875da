import math
from typing import Any

import pytest

from hansa.record import series
from hansa.record.svg import ticks

RECORDS: list[dict[str, Any]] = [
    {"round": 1, "global": {"loss": 0.5}, "sites": {"a": {"loss": 0.4, "auc": 0.7}, "b": {"loss": 0.6}}},
    {"round": 2},
    {"round": 3, "global": {"loss": math.nan}, "sites": {"a": {"loss": 0.2}, "b": {"loss": math.nan}}},
]


def test_curves_follow_the_records_and_skip_rounds_that_were_not_evaluated() -> None:
    loss, auc = series.curves(RECORDS)
    assert loss.name == "loss"
    assert loss.shared[0] == (1, 0.5)
    assert loss.sites["a"] == [(1, 0.4), (3, 0.2)]
    assert auc.shared == []
    assert auc.sites == {"a": [(1, 0.7)]}


def test_counts_have_no_curve_and_training_comes_last() -> None:
    values = {"train_loss": 0.5, "examples": 30.0, "auc": 0.7}
    found = series.curves([{"round": 1, "global": {"train_loss": 0.5}, "sites": {"a": values}}])
    assert [curve.name for curve in found] == ["auc", "train_loss"]


def test_the_band_holds_the_finite_values_of_the_sites() -> None:
    (loss, _) = series.curves(RECORDS)
    assert loss.band(0.0, 1.0) == [(1, 0.4, 0.6), (3, 0.2, 0.2)]


def test_the_best_value_is_the_lowest_loss_and_the_highest_accuracy_of_the_earliest_round() -> None:
    points = [(1, 0.5), (2, math.nan), (3, 0.7), (4, 0.7)]
    assert series.extremes("loss", points) == (0.7, 0.5, 1)
    assert series.extremes("accuracy", points) == (0.7, 0.7, 3)


def test_a_curve_without_a_finite_value_has_no_best() -> None:
    last, best, at = series.extremes("loss", [(1, math.nan)])
    assert math.isnan(last)
    assert math.isnan(best)
    assert at == 0


@pytest.mark.parametrize(("name", "lower"), [("valid_loss", True), ("val_rmse", True), ("dice_score", False)])
def test_the_end_of_an_unknown_name_says_which_way_is_better(name: str, lower: bool) -> None:
    assert series.lower_is_better(name) is lower


def test_sites_are_sorted_as_people_count() -> None:
    curve = series.Curve("loss", sites={"site-10": [], "site-2": [], "alpha": []})
    assert series.site_names([curve]) == ["alpha", "site-2", "site-10"]


def test_numbers_have_four_digits() -> None:
    assert [series.number(v) for v in (0.5, 12345.678, math.nan, 7000, "x")] == ["0.5000", "12,346", "–", "7,000", "x"]  # noqa: RUF001


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (1, 20, [5, 10, 15, 20]), (-3, 12, [-2, 0, 2, 4, 6, 8, 10, 12])],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)
