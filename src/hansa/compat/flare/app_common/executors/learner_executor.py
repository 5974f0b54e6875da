"""LearnerExecutor: tasks for a Learner."""

from __future__ import annotations

from typing import Any

from hansa.compat.flare.apis.dxo import DataKind, MetaKey, from_shareable
from hansa.compat.flare.apis.event_type import EventType
from hansa.compat.flare.apis.executor import Executor
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable, make_reply
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app_common.abstract.learner_spec import Learner
from hansa.compat.flare.app_common.app_constant import AppConstants, ValidateType
from hansa.compat.flare.app_common.workflows.parts import part


class LearnerExecutor(Executor):
    """Validates the model that comes, then trains it; the validation's metrics go with the result as INITIAL_METRICS."""

    def __init__(
        self,
        learner_id: str,
        train_task: str = AppConstants.TASK_TRAIN,
        submit_model_task: str = AppConstants.TASK_SUBMIT_MODEL,
        validate_task: str = AppConstants.TASK_VALIDATION,
    ) -> None:
        super().__init__()
        self.learner_id, self.train_task = learner_id, train_task
        self.submit_model_task, self.validate_task = submit_model_task, validate_task
        self.learner: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            self.learner = part(fl_ctx, self.learner_id, Learner, "learner")
            self.learner.initialize(fl_ctx.get_engine().get_all_components(), fl_ctx)
        elif event_type == EventType.ABORT_TASK and self.learner is not None:
            self.learner.abort(fl_ctx)
        elif event_type == EventType.END_RUN and self.learner is not None:
            self.learner.finalize(fl_ctx)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name == self.train_task:
            return self.train(shareable, fl_ctx, abort_signal)
        if task_name == self.submit_model_task:
            name = shareable.get_header(AppConstants.SUBMIT_MODEL_NAME)
            found: Shareable = self.learner.get_model_for_validation(name, fl_ctx)
            return found
        if task_name == self.validate_task:
            shareable.set_header(AppConstants.VALIDATE_TYPE, ValidateType.MODEL_VALIDATE)
            validated: Shareable = self.learner.validate(shareable, fl_ctx, abort_signal)
            return validated
        self.log_error(fl_ctx, f"no task of the learner is called {task_name!r}")
        return make_reply(ReturnCode.TASK_UNKNOWN)

    def train(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The learner's result, with what the model was worth before."""
        shareable.set_header(AppConstants.VALIDATE_TYPE, ValidateType.BEFORE_TRAIN_VALIDATE)
        before = _metrics(self.learner.validate(shareable, fl_ctx, abort_signal))
        result: Shareable = self.learner.train(shareable, fl_ctx, abort_signal)
        if before is not None and isinstance(result, Shareable) and result.get_return_code() == ReturnCode.OK:
            dxo = from_shareable(result)
            dxo.set_meta_prop(MetaKey.INITIAL_METRICS, before)
            return dxo.update_shareable(result)
        return result


def _metrics(validated: object) -> Any:
    """The metrics in a validation's result: the one named INITIAL_METRICS, else all of them; None where there are none."""
    if not isinstance(validated, Shareable) or validated.get_return_code() != ReturnCode.OK:
        return None
    dxo = from_shareable(validated)
    if dxo.data_kind != DataKind.METRICS or not dxo.data:
        return None
    return dxo.data.get(MetaKey.INITIAL_METRICS, dxo.data)
