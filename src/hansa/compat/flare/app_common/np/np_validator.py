"""An executor that measures an array instead of validating a model."""

from __future__ import annotations

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, from_shareable
from hansa.compat.flare.apis.executor import Executor
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable, make_reply
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.np.constants import NPConstants


class NPValidator(Executor):
    """Answers a validation with the array's sum over its largest entry, as `accuracy`. The same array gives the same number."""

    def __init__(self, validate_task_name: str = AppConstants.TASK_VALIDATION) -> None:
        super().__init__()
        self._validate = validate_task_name

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        del abort_signal
        if task_name != self._validate:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        dxo = from_shareable(shareable)
        if dxo.data_kind != DataKind.WEIGHTS or NPConstants.NUMPY_KEY not in dxo.data:
            self.log_error(fl_ctx, f"expected {NPConstants.NUMPY_KEY} of kind WEIGHTS, but got {dxo.data_kind}")
            return make_reply(ReturnCode.BAD_TASK_DATA)
        array = np.asarray(dxo.data[NPConstants.NUMPY_KEY], np.float64)
        largest = float(np.abs(array).max(initial=0.0))
        return DXO(DataKind.METRICS, {"accuracy": float(array.sum()) / largest if largest else 0.0}).to_shareable()
