"""ConvertWeights: between weights and their difference to the model that came."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, from_shareable
from hansa.compat.flare.apis.dxo_filter import DXOFilter
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.fl_constant import FLContextKey
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import ReservedHeaderKey, Shareable


class ConvertWeights(DXOFilter):
    """At a site, on results: `weights_to_diff` subtracts the model that came with the task, `diff_to_weights` adds it.

    Raises:
        ValueError: there is no such direction.
    """

    WEIGHTS_TO_DIFF = "weights_to_diff"
    DIFF_TO_WEIGHTS = "diff_to_weights"

    def __init__(self, direction: str) -> None:
        kinds = {self.WEIGHTS_TO_DIFF: DataKind.WEIGHTS, self.DIFF_TO_WEIGHTS: DataKind.WEIGHT_DIFF}
        if direction not in kinds:
            raise ValueError(f"direction must be {' or '.join(kinds)}, but got {direction!r}")
        super().__init__([kinds[direction]])
        self.direction = direction
        self._base: dict[str, Any] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keep the model before a trainer changes it in place."""
        if event_type == EventType.BEFORE_TASK_EXECUTION:
            data = fl_ctx.get_prop(FLContextKey.TASK_DATA)
            dxo = isinstance(data, Shareable) and data.get_header(ReservedHeaderKey.CONTENT_TYPE) == "DXO"
            given = from_shareable(data).data if dxo else {}
            self._base = {name: np.array(value) for name, value in given.items() if isinstance(value, np.ndarray | np.generic)}

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """The other kind.

        Raises:
            ValueError: a weight did not come with the task.
        """
        del shareable, fl_ctx
        if missing := sorted(set(dxo.data) - set(self._base)):
            raise ValueError(f"{missing[0]!r} did not come with the task, so that there is no difference to it")
        if self.direction == self.WEIGHTS_TO_DIFF:
            return DXO(DataKind.WEIGHT_DIFF, {name: value - self._base[name] for name, value in dxo.data.items()}, dxo.meta)
        return DXO(DataKind.WEIGHTS, {name: value + self._base[name] for name, value in dxo.data.items()}, dxo.meta)
