"""Aggregates DXOs of one kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, MetaKey
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.core import gate

KINDS = (DataKind.WEIGHT_DIFF, DataKind.WEIGHTS, DataKind.METRICS)


class DXOAggregator(FLComponent):
    """The mean of DXOs, weighted by `aggregation_weights` (1 for who is not named) times NUM_STEPS_CURRENT_ROUND.

    by_name: keep contributions until the end, and add them in the order of their names: the order in which they came is then no
    matter to the bits.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        exclude_vars: str | None = None,
        aggregation_weights: dict[str, float] | None = None,
        expected_data_kind: str = DataKind.WEIGHT_DIFF,
        name_postfix: str = "",
        weigh_by_local_iter: bool = True,
        by_name: bool = False,
    ) -> None:
        super().__init__()
        if exclude_vars is not None and not isinstance(exclude_vars, str):
            raise TypeError(f"exclude_vars must be a regular expression, but got {type(exclude_vars)}")
        if aggregation_weights is not None and not isinstance(aggregation_weights, dict):
            raise TypeError(f"aggregation_weights must be a dict, but got {type(aggregation_weights)}")
        if expected_data_kind not in KINDS:
            raise ValueError(f"expected_data_kind {expected_data_kind!r} is none of {', '.join(KINDS)}")
        self._name += name_postfix
        self.expected_data_kind, self.aggregation_weights = expected_data_kind, aggregation_weights or {}
        self._by_steps, self._by_name = weigh_by_local_iter, by_name
        self._kept: dict[str, tuple[dict[str, Any], float, int]] = {}
        self.aggregation_helper = WeightedAggregationHelper(exclude_vars)

    def reset(self) -> None:
        """Forget what was accepted."""
        self._kept.clear()
        self.aggregation_helper.reset_stats()

    def accept(self, dxo: DXO, contributor_name: str, contribution_round: int | None, fl_ctx: FLContext) -> bool:
        """Whether the contribution was taken in; one that was not has left nothing."""
        if (why := self.objection(dxo, contributor_name, contribution_round, fl_ctx)) is not None:
            self.log_error(fl_ctx, f"contribution of {contributor_name!r} not accepted: {why}")
            return False
        self.take(dxo, contributor_name, contribution_round)
        return True

    def take(self, dxo: DXO, contributor_name: str, contribution_round: int | None) -> None:
        """Add a contribution to which there is no objection."""
        weight, number = self._weight(dxo, contributor_name), int(contribution_round or 0)
        if self._by_name:
            self._kept[contributor_name] = dxo.data, weight, number
        else:
            self.aggregation_helper.add(dxo.data, weight, contributor_name, number)

    def aggregate(self, fl_ctx: FLContext) -> DXO:
        """The weighted mean as a DXO."""
        for contributor, (data, weight, number) in sorted(self._kept.items()):
            self.aggregation_helper.add(data, weight, contributor, number)
        self._kept.clear()
        self.log_info(fl_ctx, f"aggregating {self.aggregation_helper.get_len()} contributions")
        return DXO(self.expected_data_kind, self.aggregation_helper.get_result())

    def objection(self, dxo: DXO, contributor: str, contribution_round: int | None, fl_ctx: FLContext) -> str | None:
        """Why the contribution cannot be taken in; None if it can."""
        current = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        processed = dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM)
        before = {*self._kept, *(each["contributor_name"] for each in self.aggregation_helper.history)}
        bad = [name for name, value in dxo.data.items() if not _finite(value)]
        for holds, why in (
            (dxo.data_kind == self.expected_data_kind, f"expected {self.expected_data_kind}, but got {dxo.data_kind}"),
            (processed is None, f"it is still processed by {processed}"),
            (bool(dxo.data), "it has no data"),
            (contribution_round == current, f"it is of round {contribution_round}, and this is {current}"),
            (contributor not in before, "it has contributed already"),
            (not bad, f"{bad[:1]} is no array of finite numbers"),
        ):
            if not holds:
                return why
        weight = self._weight(dxo, contributor)
        if not (np.isfinite(weight) and weight > 0):
            return f"its weight is {weight}"
        return self.aggregation_helper.mismatch(dxo.data)

    def _weight(self, dxo: DXO, contributor: str) -> float:
        steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0) if self._by_steps else 1.0
        number = float(steps) if isinstance(steps, int | float | np.number) else float("nan")
        return float(self.aggregation_weights.get(contributor, 1.0)) * number


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind in "biuf" and gate.is_finite(array)
