"""Composable aggregators: typed aggregations with a state and measurements of their own, one around the other."""

from hansa.aggregators.means import (
    MeanFactory,
    SumFactory,
    UnweightedMeanFactory,
    add_measurements,
    as_weighted_aggregator,
    concat_factory,
)
from hansa.aggregators.norms import clipping_factory, zeroing_factory
from hansa.aggregators.quantile import affine, quantile_estimation
from hansa.aggregators.quantised import (
    DeterministicDiscretizationFactory,
    QuantizedSumFactory,
    StochasticDiscretizationFactory,
)
from hansa.aggregators.rotation import DiscreteFourierTransformFactory, HadamardTransformFactory
from hansa.aggregators.secure import SecureModularSumFactory, SecureSumFactory
from hansa.aggregators.stacks import compression_aggregator, robust_aggregator, secure_aggregator

__all__ = [
    "DeterministicDiscretizationFactory",
    "DiscreteFourierTransformFactory",
    "HadamardTransformFactory",
    "MeanFactory",
    "QuantizedSumFactory",
    "SecureModularSumFactory",
    "SecureSumFactory",
    "StochasticDiscretizationFactory",
    "SumFactory",
    "UnweightedMeanFactory",
    "add_measurements",
    "affine",
    "as_weighted_aggregator",
    "clipping_factory",
    "compression_aggregator",
    "concat_factory",
    "quantile_estimation",
    "robust_aggregator",
    "secure_aggregator",
    "zeroing_factory",
]
