"""The aggregator of ScatterAndGather: the weighted mean of what comes, added as it comes."""

from __future__ import annotations

from typing import Any

from hansa.compat.flare.apis.dxo import DXO, DataKind, from_shareable
from hansa.compat.flare.apis.fl_constant import ReservedKey, ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.aggregator import Aggregator
from hansa.compat.flare.app_common.aggregators.dxo_aggregator import DXOAggregator
from hansa.compat.flare.app_common.app_constant import AppConstants

_ONE = "_single_"


class InTimeAccumulateWeightedAggregator(Aggregator):
    """The weighted mean of contributions. For a COLLECTION each argument may be a dict, by the names of its DXOs.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    _by_name = False

    def __init__(
        self,
        exclude_vars: str | dict[str, str | None] | None = None,
        aggregation_weights: dict[str, Any] | None = None,
        expected_data_kind: str | dict[str, str] = DataKind.WEIGHT_DIFF,
        weigh_by_local_iter: bool = True,
    ) -> None:
        super().__init__()
        self._single = not isinstance(expected_data_kind, dict)
        kinds = expected_data_kind if isinstance(expected_data_kind, dict) else {_ONE: expected_data_kind}
        self.dxo_aggregators: dict[str, DXOAggregator] = {}
        for name, kind in kinds.items():
            excluded: Any = exclude_vars.get(name) if isinstance(exclude_vars, dict) else exclude_vars
            inner = (aggregation_weights or {}).get(name)
            weights = inner if isinstance(inner, dict) else aggregation_weights
            postfix = "" if self._single else f"_{name}"
            self.dxo_aggregators[name] = DXOAggregator(excluded, weights, kind, postfix, weigh_by_local_iter, self._by_name)

    def reset(self, fl_ctx: FLContext) -> None:
        del fl_ctx
        for each in self.dxo_aggregators.values():
            each.reset()

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        try:
            dxo = from_shareable(shareable)
        except ValueError as error:
            self.log_error(fl_ctx, f"contribution not accepted: {error}")
            return False
        peer = fl_ctx.get_peer_context()
        contributor = peer.get_prop(ReservedKey.IDENTITY_NAME, "?") if peer is not None else "?"
        code = shareable.get_return_code()
        if code != ReturnCode.OK:
            self.log_warning(fl_ctx, f"contribution of {contributor!r} not accepted: {code}")
            return False
        number = shareable.get_header(AppConstants.CONTRIBUTION_ROUND)
        parts = {_ONE: dxo} if self._single else self._parts(dxo, contributor, fl_ctx)
        if parts is None:
            return False
        for name, each in parts.items():  # all of a collection, or nothing
            if (why := self.dxo_aggregators[name].objection(each, contributor, number, fl_ctx)) is not None:
                self.log_error(fl_ctx, f"contribution of {contributor!r} not accepted: {why}")
                return False
        for name, each in parts.items():
            self.dxo_aggregators[name].take(each, contributor, number)
        return True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        made = {name: each.aggregate(fl_ctx) for name, each in self.dxo_aggregators.items()}
        whole = made[_ONE] if self._single else DXO(DataKind.COLLECTION, dict(made))
        return whole.to_shareable()

    def _parts(self, dxo: DXO, contributor: str, fl_ctx: FLContext) -> dict[str, DXO] | None:
        """The DXOs of a collection by name; None if one that is expected is not there."""
        found = {name: dxo.data.get(name) for name in self.dxo_aggregators} if dxo.data_kind == DataKind.COLLECTION else {}
        parts = {name: each for name, each in found.items() if isinstance(each, DXO)}
        if parts.keys() != self.dxo_aggregators.keys():
            wanted = ", ".join(self.dxo_aggregators)
            self.log_error(fl_ctx, f"contribution of {contributor!r} not accepted: expected a collection of {wanted}")
            return None
        return parts
