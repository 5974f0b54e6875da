"""Learner: training, validation and a model, without the task engine."""

from __future__ import annotations

from typing import Any

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable, make_reply
from hansa.compat.flare.apis.signal import Signal


class Learner(FLComponent):
    """What a LearnerExecutor calls. What a subclass does not have is answered as unsupported."""

    def initialize(self, parts: dict[str, Any], fl_ctx: FLContext) -> None:
        """Prepare; `parts` are the components of the site by id."""

    def train(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        del data, fl_ctx, abort_signal
        return make_reply(ReturnCode.TASK_UNSUPPORTED)

    def get_model_for_validation(self, model_name: str, fl_ctx: FLContext) -> Shareable:
        del model_name, fl_ctx
        return make_reply(ReturnCode.TASK_UNSUPPORTED)

    def validate(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        del data, fl_ctx, abort_signal
        return make_reply(ReturnCode.TASK_UNSUPPORTED)

    def abort(self, fl_ctx: FLContext) -> None:
        """Stop what is under way."""

    def finalize(self, fl_ctx: FLContext) -> None:
        """Clean up."""
