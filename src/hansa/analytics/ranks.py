"""Histograms and quantiles over all sites' numbers, from counts alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hansa.analytics.values import FLOAT64, INT64, NUMBERS, known, local, values_of
from hansa.core.computation import Computation, federated_computation
from hansa.core.intrinsics import federated_broadcast, federated_eval, federated_map, federated_max, federated_min, federated_sum
from hansa.core.round import is_count, is_real
from hansa.core.trees import Array
from hansa.core.types import SERVER, TensorType
from hansa.errors import ConfigError


def histogram(edges: Sequence[float]) -> Computation:
    """How many numbers fall into each bin between ascending edges: as np.histogram, the last bin holds its right edge.

    Numbers outside are not counted.

    >>> print(histogram([0.0, 1.0, 2.0]).type_signature)
    ({float64[?]}@CLIENTS -> int64[2]@SERVER)
    >>> histogram([0.0, 1.0, 2.0])([[0.5, 1.0], [2.0, 3.0]])
    array([1, 2])

    Raises:
        ConfigError: not two or more finite numbers, ascending.
    """
    bounds = np.asarray(edges, dtype=np.float64)
    if bounds.ndim != 1 or len(bounds) < 2 or not np.isfinite(bounds).all() or not (np.diff(bounds) > 0).all():
        raise ConfigError("not the edges of bins", path="edges", expected="two or more numbers, ascending", got=edges)
    counted = TensorType(np.int64, [len(bounds) - 1])

    def counts(values: Any) -> Array:
        return np.histogram(known(values), bounds)[0].astype(np.int64)

    count = local("histogram", counts, {"values": NUMBERS}, counted, about=f"edges={bounds.tolist()}")

    @federated_computation(values_of())
    def total(values: Any) -> Any:
        return federated_sum(federated_map(count, values))

    return total


def quantiles(
    levels: Sequence[float], *, bounds: tuple[float, float] | None = None, rounds: int = 3, bins: int = 256
) -> Computation:
    """For each level q the least number that a share q of all numbers is at most, by refining a histogram round by round.

    Each round counts the numbers at most each of `bins` + 1 edges between the ends where a quantile must lie, and goes on in one
    bin. What is given is at least the quantile, and above it by at most (high - low) / bins**rounds, and a rounding. The ends are
    the least and the greatest number of all, which a first round finds, or `bounds`: a quantile outside of these is the bound.
    Nan of no numbers.

    >>> print(quantiles([0.5]).type_signature)
    ({float64[?]}@CLIENTS -> float64[1]@SERVER)
    >>> quantiles([0.5, 1.0])([[1.0, 2.0], [3.0, 10.0]]).round(6)
    array([ 2., 10.])

    Raises:
        ConfigError: a level is not between 0 and 1, or another argument is out of its range; names it.
    """
    _check(levels, bounds, rounds, bins)
    many = len(levels)
    ends, counted = TensorType(np.float64, [many, 2]), TensorType(np.int64, [many, bins + 1])

    def at_most(ends: Array, values: Any) -> Array:
        ordered = np.sort(known(values))
        return np.searchsorted(ordered, _edges(ends, bins), side="right").astype(np.int64)

    def narrowed(ends: Array, counts: Array, size: int) -> Array:
        if size == 0:
            return np.full((many, 2), np.nan)
        edges = _edges(ends, bins)
        out = np.array(ends)
        for k, level in enumerate(levels):
            place = int(np.searchsorted(counts[k], rank(level, int(size)), side="left"))
            out[k] = edges[k, [min(max(place - 1, 0), bins), min(place, bins)]]
        return out

    count = local("at_most", at_most, {"ends": ends, "values": NUMBERS}, counted, about=f"{bins} bins")
    narrow = local("narrow", narrowed, {"ends": ends, "counts": counted, "size": INT64}, ends, about=f"levels={list(levels)}")
    size = local("size", lambda values: np.int64(len(known(values))), {"values": NUMBERS}, INT64)
    least = local("least", lambda values: np.float64(known(values).min(initial=np.inf)), {"values": NUMBERS}, FLOAT64)
    most = local("greatest", lambda values: np.float64(known(values).max(initial=-np.inf)), {"values": NUMBERS}, FLOAT64)
    between = local("ends", lambda low, high: np.tile([low, high], (many, 1)), {"low": FLOAT64, "high": FLOAT64}, ends)
    given = local("bounds", lambda: np.tile(np.asarray(bounds, np.float64), (many, 1)), {}, ends, about=repr(bounds))
    upper = local("upper_ends", lambda ends: np.array(ends[:, 1]), {"ends": ends}, TensorType(np.float64, [many]))

    @federated_computation(values_of())
    def refined(values: Any) -> Any:
        n = federated_sum(federated_map(size, values))
        if bounds is None:
            ends_now = federated_map(
                between, (federated_min(federated_map(least, values)), federated_max(federated_map(most, values)))
            )
        else:
            ends_now = federated_eval(given, SERVER)
        for _ in range(rounds):
            counts = federated_sum(federated_map(count, (federated_broadcast(ends_now), values)))
            ends_now = federated_map(narrow, (ends_now, counts, n))
        return federated_map(upper, ends_now)

    return refined


def rank(level: float, size: int) -> int:
    """Which number in ascending order, from 1, is the quantile of so many: the least of which at least that share is no greater.

    >>> [rank(q, 10) for q in (0.0, 0.1, 0.3, 0.301, 1.0)]
    [1, 1, 3, 4, 10]
    """
    return min(max(math.ceil(round(level * size, 9)), 1), size)


def _edges(ends: Array, bins: int) -> Array:
    """The edges between each pair of ends, ascending; the first and the last are the ends themselves."""
    low, high = ends[:, :1], ends[:, 1:]
    with np.errstate(invalid="ignore"):
        edges = low + (high - low) * (np.arange(bins + 1) / bins)
    edges[:, -1:] = high
    return np.asarray(np.maximum.accumulate(edges, axis=1))


def _check(levels: Sequence[float], bounds: tuple[float, float] | None, rounds: int, bins: int) -> None:
    if not levels or not all(is_real(q) and 0 <= q <= 1 for q in levels):
        raise ConfigError("levels are numbers from 0 to 1", path="levels", expected="such as [0.25, 0.5, 0.75]", got=repr(levels))
    if bounds is not None and not (len(bounds) == 2 and all(map(is_real, bounds)) and bounds[0] < bounds[1]):
        raise ConfigError("bounds are two numbers, the lower one first", path="bounds", got=repr(bounds))
    if not (is_count(rounds) and rounds <= 20):
        raise ConfigError("rounds refine the histogram", path="rounds", expected="1 to 20", got=repr(rounds))
    if not (is_count(bins) and 2 <= bins <= 65_536):
        raise ConfigError("bins of the histogram", path="bins", expected="2 to 65536", got=repr(bins))
