"""Sums of sites add up to the value over all rows, and areas from histograms stay within their stated error."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.core import trees
from hansa.core.protocols import Evaluation
from hansa.evaluation.auc import Auc, auc_error, exact_auc
from hansa.evaluation.metrics import R2, Accuracy, Error, Loss
from hansa.evaluation.overlap import F1, Dice

CLASSIFIERS: list[Any] = [Accuracy(), Auc(bins=64), F1(), F1("binary")]
REGRESSIONS: list[Any] = [Error("mse"), Error("rmse"), Error("mae"), R2()]


def split(metric: Any, y: Any, scores: Any, weights: Any, cuts: list[int]) -> float:
    """The value of the sum over sites that hold the rows between the cuts."""
    edges = [0, *sorted(min(cut, len(y)) for cut in cuts), len(y)]
    sums = [metric.measure(y[a:b], Evaluation(scores[a:b], 0.0), weights[a:b]) for a, b in itertools.pairwise(edges)]
    return float(metric.value(functools.reduce(trees.add, sums)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.lists(st.integers(0, 40), max_size=3), st.sampled_from([0, 2, 3, 5]))
def test_sites_add_up_to_the_whole(seed: int, rows: int, cuts: list[int], classes: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, rows).astype(float)
    y = rng.integers(0, classes or 2, rows)
    scores = rng.dirichlet(np.ones(classes), rows) if classes else rng.random(rows)
    for metric in CLASSIFIERS[: 4 if classes in (0, 2) else 3]:
        whole = metric.value(metric.measure(y, Evaluation(scores, 0.0), weights))
        assert split(metric, y, scores, weights, cuts) == pytest.approx(whole, rel=1e-12, nan_ok=True)
    target = rng.normal(2, 1, (rows, 2))
    for metric in REGRESSIONS:
        whole = metric.value(metric.measure(target, Evaluation(target + 0.1, 0.0), weights))
        assert split(metric, target, target + 0.1, weights, cuts) == pytest.approx(whole, rel=1e-6, nan_ok=True)
    masks = rng.integers(0, 2, (rows, 2, 3))
    guess = rng.random((rows, 2, 3))
    whole = Dice().value(Dice().measure(masks, Evaluation(guess, 0.0), weights))
    assert split(Dice(), masks, guess, weights, cuts) == pytest.approx(whole, rel=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 29))
def test_a_whole_weight_is_as_many_rows(seed: int, rows: int, chosen: int) -> None:
    rng = np.random.default_rng(seed)
    y, scores = rng.integers(0, 2, rows), rng.random(rows)
    times = np.ones(rows, dtype=int)
    times[chosen % rows] = 3
    for metric in [*CLASSIFIERS, *REGRESSIONS]:
        weighted = metric.value(metric.measure(y, Evaluation(scores, 0.0), times.astype(float)))
        repeated = metric.value(metric.measure(np.repeat(y, times), Evaluation(np.repeat(scores, times), 0.0)))
        assert weighted == pytest.approx(repeated, rel=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 10)), min_size=1, max_size=5))
def test_loss_is_the_mean_over_rows(sites: list[tuple[int, float]]) -> None:
    sums = [Loss().measure(np.zeros(rows), Evaluation(np.zeros(rows), loss if rows else float("nan"))) for rows, loss in sites]
    rows = sum(rows for rows, _ in sites)
    want = sum(rows * loss for rows, loss in sites) / rows if rows else float("nan")
    assert Loss().value(functools.reduce(trees.add, sums)) == pytest.approx(want, rel=1e-12, nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 6), st.floats(-8, 8), st.floats(0, 3), st.sampled_from([np.float32, np.float64]))
def test_the_area_from_histograms_is_within_its_stated_error(
    seed: int, spread: float, centre: float, gap: float, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 300)
    logits = rng.normal(centre, spread, 300) + gap * spread * y
    scores = (1 / (1 + np.exp(-logits))).astype(dtype)
    sums = Auc().measure(y, Evaluation(scores, 0.0))
    exact = exact_auc(y, scores)
    assert abs(Auc().value(sums) - exact) <= auc_error(sums) + 1e-9
    if spread >= 1 and abs(centre) <= 4:  # a trained model's scores
        assert abs(Auc().value(sums) - exact) < 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_the_exact_area_is_the_share_of_ordered_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, scores = rng.integers(0, 2, 25), rng.integers(0, 6, 25) / 5
    pairs = np.subtract.outer(scores[y == 1], scores[y == 0])
    want = float(np.mean((pairs > 0) + 0.5 * (pairs == 0))) if pairs.size else float("nan")
    assert exact_auc(y, scores) == pytest.approx(want, nan_ok=True)
