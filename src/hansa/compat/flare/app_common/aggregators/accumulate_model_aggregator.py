"""An aggregator that keeps contributions until the round is over, and then adds them up by their sites' names."""

from __future__ import annotations

from hansa.compat.flare.app_common.aggregators.intime_accumulate_model_aggregator import InTimeAccumulateWeightedAggregator


class AccumulateWeightedAggregator(InTimeAccumulateWeightedAggregator):
    """The weighted mean of contributions; the order in which they came does not matter to its bits."""

    _by_name = True
