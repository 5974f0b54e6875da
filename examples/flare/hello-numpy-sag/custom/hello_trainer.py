"""A trainer in the style of FLARE 2.0 that adds a number to the model instead of training it."""

import os

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants


class HelloTrainer(Executor):
    """Adds `delta` to each weight, and keeps its own copy in the run's folder."""

    def __init__(self, delta=1, key="numpy_key"):
        super().__init__()
        self._delta = delta
        self._key = key

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The model, larger by delta."""
        if task_name != AppConstants.TASK_TRAIN:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        dxo = from_shareable(shareable)
        if dxo.data_kind != DataKind.WEIGHTS:
            self.system_panic("the model must be of kind WEIGHTS", fl_ctx)
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        weights = dxo.data
        weights[self._key] += self._delta  # in place, as many trainers do
        if abort_signal.triggered:
            return make_reply(ReturnCode.TASK_ABORTED)
        self.log_info(fl_ctx, f"round {shareable.get_header(AppConstants.CURRENT_ROUND)}: {weights[self._key].tolist()}")
        self._keep(weights[self._key], fl_ctx)
        return DXO(data_kind=dxo.data_kind, data=weights, meta={}).to_shareable()

    def _keep(self, array, fl_ctx):
        workspace = fl_ctx.get_engine().get_workspace()
        folder = os.path.join(workspace.get_run_dir(fl_ctx.get_prop(FLContextKey.CURRENT_RUN)), "model")
        os.makedirs(folder, exist_ok=True)
        np.save(os.path.join(folder, "best_numpy.npy"), array)
