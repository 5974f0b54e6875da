"""IntimeModelSelectionHandler: which round's global model was the best, by what sites say of it before they train on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_constant import FLContextKey, ReservedKey
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.app_event_type import AppEventType


class IntimeModelSelectionHandler(FLComponent):
    """Takes the mean of the sites' metrics of a round; a new best fires GLOBAL_BEST_MODEL_AVAILABLE, before the model changes.

    weigh_by_local_iter: weigh sites by their steps. aggregation_weights: further weights by site, 1 for who is not named.
    validation_metric_name: the name in the result's meta; where it has a dict, its first number. More is better. Round 0 is
    skipped: its model was not trained.
    """

    def __init__(
        self,
        weigh_by_local_iter: bool = False,
        aggregation_weights: dict[str, float] | None = None,
        validation_metric_name: str = MetaKey.INITIAL_METRICS,
    ) -> None:
        super().__init__()
        self.validation_metric_name, self.weigh_by_local_iter = validation_metric_name, weigh_by_local_iter
        self.aggregation_weights = aggregation_weights or {}
        self._told: list[tuple[float, float]] = []  # metric, weight
        self.best_val_metric = -float("inf")

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            self._told, self.best_val_metric = [], -float("inf")
        elif event_type == AppEventType.ROUND_STARTED:
            self._told = []
        elif event_type == AppEventType.BEFORE_CONTRIBUTION_ACCEPT:
            self._take(fl_ctx)
        elif event_type == AppEventType.BEFORE_AGGREGATION:
            self._judge(fl_ctx)

    def _take(self, fl_ctx: FLContext) -> None:
        peer = fl_ctx.get_peer_context()
        shareable = peer.get_prop(FLContextKey.SHAREABLE) if peer is not None else None
        current = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        if not isinstance(shareable, Shareable) or current == 0 or shareable.get_header(AppConstants.CONTRIBUTION_ROUND) != current:
            return
        dxo = from_shareable(shareable)
        inner = dxo.data.get(AppConstants.MODEL_WEIGHTS) if dxo.data_kind == DataKind.COLLECTION else None
        meta = {**(inner.meta if isinstance(inner, DXO) else {}), **dxo.meta}
        metric = _number(meta.get(self.validation_metric_name))
        site = str(peer.get_prop(ReservedKey.IDENTITY_NAME))
        steps = _number(meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND)) if self.weigh_by_local_iter else 1.0
        if metric is None or not steps or steps < 0:
            self.log_debug(fl_ctx, f"no metric {self.validation_metric_name!r} of {site!r}")
            return
        self._told.append((metric, steps * float(self.aggregation_weights.get(site, 1.0))))

    def _judge(self, fl_ctx: FLContext) -> None:
        weight = sum(each for _, each in self._told)
        if weight <= 0:
            return
        metric = sum(value * each for value, each in self._told) / weight
        self._told = []
        if metric > self.best_val_metric:
            self.best_val_metric = metric
            self.log_info(fl_ctx, f"new best global model: {metric}")
            fl_ctx.put(self.validation_metric_name, metric)
            self.fire_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)


class IntimeModelSelector(IntimeModelSelectionHandler):
    """The same by its later name."""


def _number(told: Any) -> float | None:
    """The number, or the first of several by name; None where there is none that is finite."""
    given = next(iter(told.values()), None) if isinstance(told, Mapping) else told
    if not isinstance(given, int | float | np.number) or not np.isfinite(float(given)):
        return None
    return float(given)
