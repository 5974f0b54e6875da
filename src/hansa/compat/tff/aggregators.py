"""`tff.aggregators`: aggregations that compose."""

from hansa.aggregators import (
    DiscreteFourierTransformFactory,
    HadamardTransformFactory,
    MeanFactory,
    SecureModularSumFactory,
    SecureSumFactory,
    SumFactory,
    UnweightedMeanFactory,
    add_measurements,
    as_weighted_aggregator,
    clipping_factory,
    concat_factory,
    zeroing_factory,
)
from hansa.templates import AggregationFactory, UnweightedAggregationFactory, WeightedAggregationFactory

__all__ = [
    "AggregationFactory",
    "DiscreteFourierTransformFactory",
    "HadamardTransformFactory",
    "MeanFactory",
    "SecureModularSumFactory",
    "SecureSumFactory",
    "SumFactory",
    "UnweightedAggregationFactory",
    "UnweightedMeanFactory",
    "WeightedAggregationFactory",
    "add_measurements",
    "as_weighted_aggregator",
    "clipping_factory",
    "concat_factory",
    "zeroing_factory",
]
