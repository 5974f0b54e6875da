"""Weights that clients give become the first global model."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.dxo import DataKind, from_shareable
from hansa.compat.flare.apis.fl_constant import ReturnCode
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.model import make_model_learnable
from hansa.compat.flare.app_common.abstract.response_processor import ResponseProcessor
from hansa.compat.flare.app_common.app_constant import AppConstants
from hansa.compat.flare.app_common.app_event_type import AppEventType


class WeightMethod:
    """Whose weights are taken."""

    FIRST = "first"
    CLIENT = "client"


class GlobalWeightsInitializer(ResponseProcessor):
    """Takes the weights of the first client that answers, or of the one that is named; the others' must have the same shapes.

    Raises:
        ValueError: there is no such method, or it needs a client's name.
    """

    def __init__(
        self,
        weights_prop_name: str = AppConstants.GLOBAL_MODEL,
        weight_method: str = WeightMethod.FIRST,
        client_name: str | None = None,
    ) -> None:
        super().__init__()
        if weight_method not in (WeightMethod.FIRST, WeightMethod.CLIENT):
            raise ValueError(f"weight_method must be 'first' or 'client', but got {weight_method!r}")
        if weight_method == WeightMethod.CLIENT and not client_name:
            raise ValueError("weight_method 'client' needs weights_client_name")
        self._prop, self._method, self._client = weights_prop_name, weight_method, client_name
        self._chosen: dict[str, Any] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}

    def create_task_data(self, task_name: str, fl_ctx: FLContext) -> Shareable:
        del task_name, fl_ctx
        return Shareable()

    def process_client_response(self, client: Client, task_name: str, response: Shareable, fl_ctx: FLContext) -> bool:
        """Whether the weights can be a model, and fit those that came before."""
        code = response.get_return_code()
        if code != ReturnCode.OK:
            self.log_error(fl_ctx, f"no weights of {client.name!r} for {task_name!r}: {code}")
            return False
        dxo = from_shareable(response)
        shapes = {name: np.asarray(value).shape for name, value in dxo.data.items()}
        if dxo.data_kind != DataKind.WEIGHTS or not shapes or (self._shapes and shapes != self._shapes):
            self.log_error(fl_ctx, f"the weights of {client.name!r} are not like the others': {dxo.data_kind}, {shapes}")
            return False
        self._shapes = shapes
        if self._chosen is None and (self._method == WeightMethod.FIRST or client.name == self._client):
            self._chosen = dxo.data
        return True

    def final_process(self, fl_ctx: FLContext) -> bool:
        """Whether there is a model now; it is the prop's value."""
        if self._chosen is None:
            self.log_error(fl_ctx, "no client gave the weights to start from")
            return False
        fl_ctx.set_prop(self._prop, make_model_learnable(self._chosen, {}), private=True, sticky=True)
        fl_ctx.sync_sticky()
        self.fire_event(AppEventType.GLOBAL_WEIGHTS_UPDATED, fl_ctx)
        return True
