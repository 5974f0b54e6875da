from typing import Any

from hansa.aggregation.exact import ExactMean, ExactSum, FixedPoint
from hansa.aggregation.mean import Mean
from hansa.aggregation.sums import Sum
from hansa.core.protocols import Aggregator
from hansa.testing.aggregator_contract import AggregatorContract


class TestMean(AggregatorContract):
    def aggregator(self) -> Aggregator[Any]:
        return Mean()


class TestSum(AggregatorContract):
    def aggregator(self) -> Aggregator[Any]:
        return Sum()


class TestExactMean(AggregatorContract):
    exact = True
    order_free = True

    def aggregator(self) -> Aggregator[Any]:
        return ExactMean(FixedPoint(bound=1.0, weight=9.0, count=16))


class TestExactSum(AggregatorContract):
    exact = True
    order_free = True

    def aggregator(self) -> Aggregator[Any]:
        return ExactSum(FixedPoint(bound=1.0, count=16))
