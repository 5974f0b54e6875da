"""Stacks of aggregators that people begin with."""

from __future__ import annotations

import math
from typing import Literal, overload

from hansa.aggregators.means import MeanFactory, SumFactory, UnweightedMeanFactory
from hansa.aggregators.norms import clipping_factory, zeroing_factory
from hansa.aggregators.quantile import affine, quantile_estimation
from hansa.aggregators.quantised import QuantizedSumFactory
from hansa.aggregators.secure import SecureSumFactory, adaptive_bound
from hansa.templates import AggregationFactory, EstimationProcess, UnweightedAggregationFactory, WeightedAggregationFactory


@overload
def robust_aggregator(
    *, zeroing: bool = ..., clipping: bool = ..., weighted: Literal[True] = ...
) -> WeightedAggregationFactory: ...
@overload
def robust_aggregator(*, zeroing: bool = ..., clipping: bool = ..., weighted: Literal[False]) -> UnweightedAggregationFactory: ...
def robust_aggregator(*, zeroing: bool = True, clipping: bool = True, weighted: bool = True) -> AggregationFactory:
    """A mean of values that are clipped to the 0.8-quantile of their norms, after those that are far too large count as zero.

    Zeroed is what exceeds twice the 0.98-quantile of the largest entries, plus one. Both quantiles are learned from round to round.

    >>> from hansa.core.types import to_type
    >>> import numpy as np
    >>> process = robust_aggregator().create(to_type((np.float32, [2])), to_type(np.float32))
    >>> print(process.next(process.initialize(), [[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).result)
    [0.5236068 0.8472136]
    """
    return _bounded(_mean(SumFactory(), weighted=weighted), zeroing=zeroing, clipping=clipping)


@overload
def compression_aggregator(
    *, zeroing: bool = ..., clipping: bool = ..., weighted: Literal[True] = ...
) -> WeightedAggregationFactory: ...
@overload
def compression_aggregator(
    *, zeroing: bool = ..., clipping: bool = ..., weighted: Literal[False]
) -> UnweightedAggregationFactory: ...
def compression_aggregator(*, zeroing: bool = True, clipping: bool = True, weighted: bool = True) -> AggregationFactory:
    """As `robust_aggregator`; tensors of more than 20,000 entries travel in 8 bits an entry, and bits are counted."""
    return _bounded(_mean(QuantizedSumFactory(8, 20_000), weighted=weighted), zeroing=zeroing, clipping=clipping)


@overload
def secure_aggregator(
    *, zeroing: bool = ..., clipping: bool = ..., weighted: Literal[True] = ...
) -> WeightedAggregationFactory: ...
@overload
def secure_aggregator(*, zeroing: bool = ..., clipping: bool = ..., weighted: Literal[False]) -> UnweightedAggregationFactory: ...
def secure_aggregator(*, zeroing: bool = True, clipping: bool = True, weighted: bool = True) -> AggregationFactory:
    """As `robust_aggregator`, by secure sums alone: of values within a learned bound, and of weights up to 2^20 - 1."""
    values = SecureSumFactory(adaptive_bound(50.0, 0.95, 1.0, 2.0))
    counted = SecureSumFactory(1, 0)
    weights = SecureSumFactory(2**20 - 1, 0)
    mean: AggregationFactory = MeanFactory(values, weights) if weighted else UnweightedMeanFactory(values, counted)
    return _bounded(mean, zeroing=zeroing, clipping=clipping, secure=True, counts=counted)


def _mean(value_sum: UnweightedAggregationFactory, *, weighted: bool) -> AggregationFactory:
    return MeanFactory(value_sum) if weighted else UnweightedMeanFactory(value_sum)


def _bounded(
    mean: AggregationFactory,
    *,
    zeroing: bool,
    clipping: bool,
    secure: bool = False,
    counts: UnweightedAggregationFactory | None = None,
) -> AggregationFactory:
    if clipping:
        mean = clipping_factory(quantile_estimation(1.0, 0.8, 0.2, secure_estimation=secure), mean, counts)
    if zeroing:
        mean = zeroing_factory(_large(secure=secure), mean, zeroed_count_sum_factory=counts)
    return mean


def _large(*, secure: bool) -> EstimationProcess:
    """Twice the 0.98-quantile, plus one; it grows tenfold a round until it has come so far."""
    return affine(quantile_estimation(10.0, 0.98, math.log(10.0), secure_estimation=secure), multiplier=2.0, increment=1.0)
