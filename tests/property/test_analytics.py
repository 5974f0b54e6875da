"""Analytics over sites give what the pooled rows give: exactly, or within the bound that is stated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa import analytics
from hansa.analytics.moments import Joined
from hansa.analytics.ranks import rank
from hansa.core.types import TensorType

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(FINITE, st.floats(-1e3, 1e3), st.just(math.nan), st.integers(-5, 5).map(float))
SITES = st.lists(st.lists(NUMBERS, max_size=8), min_size=1, max_size=5)
MODEST = st.lists(st.lists(st.floats(-1e6, 1e6).map(lambda x: x + 1e7), max_size=8), min_size=1, max_size=5)


def pooled(sites: list[list[float]]) -> list[float]:
    return [x for site in sites for x in site if not math.isnan(x)]


def same(found: Any, expected: float) -> bool:
    return bool(found == expected) or (math.isnan(found) and math.isnan(expected))


@given(SITES)
def test_counts_sums_ends_and_means_are_the_pooled_ones_to_the_last_bit(sites: list[list[float]]) -> None:
    rows = pooled(sites)
    assert analytics.count(sites) == len(rows)
    try:
        total = math.fsum(rows)
    except OverflowError:  # an intermediate sum is beyond float64; ours has none
        return
    assert analytics.sum(sites) == total
    assert same(analytics.min(sites), min(rows, default=math.nan))
    assert same(analytics.max(sites), max(rows, default=math.nan))
    if rows:
        assert analytics.mean(sites) == pytest.approx(total / len(rows), rel=2**-52, abs=5e-324)
    else:
        assert math.isnan(analytics.mean(sites))


@given(SITES, st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6, unique=True))
def test_a_histogram_is_numpys_of_the_pooled_rows(sites: list[list[float]], edges: list[float]) -> None:
    found = analytics.histogram(sorted(edges))(sites)
    assert found.tolist() == np.histogram(np.array(pooled(sites)), np.sort(edges))[0].tolist()


@given(MODEST)
def test_a_variance_is_the_pooled_one_to_rounding_however_large_the_mean(sites: list[list[float]]) -> None:
    rows = pooled(sites)
    found = analytics.variance(sites)
    if not rows:
        assert math.isnan(found)
        return
    mean = math.fsum(rows) / len(rows)
    expected = math.fsum((x - mean) ** 2 for x in rows) / len(rows)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12 * mean**2 * 2**-20)


@given(MODEST, st.lists(st.floats(0, 1), min_size=1, max_size=3), st.integers(1, 3))
@settings(deadline=None, max_examples=60)  # each example is traced anew
def test_a_quantile_is_within_its_bound(sites: list[list[float]], levels: list[float], rounds: int) -> None:
    rows = sorted(pooled(sites))
    found = analytics.quantiles(levels, rounds=rounds, bins=16)(sites)
    if not rows:
        assert np.isnan(found).all()
        return
    bound = (rows[-1] - rows[0]) / 16**rounds + 8 * np.spacing(rows[-1])
    for level, value in zip(levels, found, strict=True):
        exact = rows[rank(level, len(rows)) - 1]
        assert exact - 4 * np.spacing(exact) <= value <= exact + bound


def test_a_quantile_outside_of_given_bounds_is_the_bound() -> None:
    find = analytics.quantiles([0.0, 0.5, 1.0], bounds=(0.0, 1.0), rounds=2, bins=10)
    assert find([[-5.0, 0.5], [9.0]]).tolist() == pytest.approx([0.0, 0.5, 1.0], abs=0.01)


@pytest.mark.parametrize("size", [0, 1, 10, 1000, 5000, 40_000])
def test_a_distinct_count_is_within_four_standard_errors(size: int) -> None:
    precision = 10
    count = analytics.distinct(np.int64, precision=precision)
    items = np.random.default_rng(size).permutation(np.arange(size) * 7919)
    sites = [items[: size // 2], items[size // 3 :], np.repeat(items[:5], 3)]  # they share many
    assert count(sites) == pytest.approx(size, abs=4 * analytics.standard_error(precision) * size + 1e-9)


def test_items_of_every_dtype_are_counted_once_whatever_their_width_and_sign_of_zero() -> None:
    assert round(analytics.distinct(np.str_)([["a", "b", "b"], [], ["é", "a"]])) == 3
    assert round(analytics.distinct(np.float64)([[0.0, math.nan, 2.0], [-0.0, 2.0]])) == 2


def test_merging_moments_in_any_grouping_gives_the_same_to_rounding() -> None:
    joined, rng = Joined(), np.random.default_rng(0)
    parts = [rng.normal(1e8, 1.0, n) for n in (1, 5, 0, 40)]
    moments: list[Any] = [
        {
            "rows": np.float64(len(x)),
            "mean": np.float64(x.mean() if len(x) else 0),
            "squares": np.square(x - x.mean()).sum() if len(x) else 0,
        }
        for x in parts
    ]
    one: Any = joined.zero({})
    for each in moments:
        one = joined.add(one, {name: np.asarray(value, np.float64) for name, value in each.items()})
    two: Any = joined.merge(joined.merge(moments[0], moments[1]), joined.merge(moments[2], moments[3]))
    assert one["squares"] / 46 == pytest.approx(np.concatenate(parts).var(), rel=1e-7)
    assert one["squares"] == pytest.approx(two["squares"], rel=1e-7)


@pytest.mark.parametrize(
    ("computation", "signature"),
    [
        (analytics.count, "({float64[?]}@CLIENTS -> int64@SERVER)"),
        (analytics.sum, "({float64[?]}@CLIENTS -> float64@SERVER)"),
        (analytics.mean, "({float64[?]}@CLIENTS -> float64@SERVER)"),
        (analytics.variance, "({float64[?]}@CLIENTS -> float64@SERVER)"),
        (analytics.min, "({float64[?]}@CLIENTS -> float64@SERVER)"),
        (analytics.max, "({float64[?]}@CLIENTS -> float64@SERVER)"),
        (analytics.histogram([0, 1, 2, 3]), "({float64[?]}@CLIENTS -> int64[3]@SERVER)"),
        (analytics.quantiles([0.1, 0.9]), "({float64[?]}@CLIENTS -> float64[2]@SERVER)"),
        (analytics.distinct(np.str_), "({str[?]}@CLIENTS -> float64@SERVER)"),
    ],
)
def test_each_analysis_has_its_type(computation: Any, signature: str) -> None:
    assert str(computation.type_signature) == signature
    assert TensorType(np.float64, [None]).is_assignable_from(TensorType(np.float64, [5]))
