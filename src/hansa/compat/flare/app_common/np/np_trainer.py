"""An executor that adds a number to one array instead of training."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, from_shareable
from hansa.compat.flare.apis.executor import Executor
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable, make_reply
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.np.constants import NPConstants


class NPTrainer(Executor):
    """Trains by adding `delta`, and submits what it has trained. `sleep_time`: seconds that a task takes."""

    def __init__(
        self,
        delta: float = 1,
        sleep_time: float = 0,
        train_task_name: str = AppConstants.TASK_TRAIN,
        submit_model_task_name: str = AppConstants.TASK_SUBMIT_MODEL,
        model_name: str = "best_numpy.npy",
        model_dir: str = "model",
    ) -> None:
        super().__init__()
        if not isinstance(delta, int | float):
            raise TypeError("delta must be a number")
        self._delta, self._sleep_time = delta, sleep_time
        self._train, self._submit = train_task_name, submit_model_task_name
        self._model_name, self._model_dir = model_name, model_dir

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        run = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_run_number())
        file = Path(run, self._model_dir, self._model_name)
        if not self._worked(abort_signal):
            return make_reply(ReturnCode.TASK_ABORTED)
        if task_name == self._submit:
            if not file.exists():
                return make_reply(ReturnCode.EMPTY_RESULT)
            return DXO(DataKind.WEIGHTS, {NPConstants.NUMPY_KEY: np.load(file, allow_pickle=False)}).to_shareable()
        if task_name != self._train:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        dxo = from_shareable(shareable)
        if dxo.data_kind != DataKind.WEIGHTS or NPConstants.NUMPY_KEY not in dxo.data:
            return make_reply(ReturnCode.BAD_TASK_DATA)
        trained = dxo.data[NPConstants.NUMPY_KEY] + self._delta
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, trained, allow_pickle=False)
        return DXO(DataKind.WEIGHTS, {NPConstants.NUMPY_KEY: trained}).to_shareable()

    def _worked(self, abort_signal: Signal) -> bool:
        """Whether the task's time passed without an abort."""
        until = time.monotonic() + self._sleep_time
        while (left := until - time.monotonic()) > 0 and not abort_signal.triggered:
            time.sleep(min(left, 0.05))  # it stands for work
        return not abort_signal.triggered
