"""The whole model goes out; weights or their differences come back."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.compat.flare.apis.dxo import DataKind, from_shareable
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.learnable import Learnable
from hansa.compat.flare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, model_learnable_to_dxo
from hansa.compat.flare.app_common.abstract.shareable_generator import ShareableGenerator
from hansa.compat.flare.app_common.app_constant import AppConstants


class FullModelShareableGenerator(ShareableGenerator):
    """WEIGHT_DIFF is added to GLOBAL_MODEL, WEIGHTS take its weights' place."""

    def learnable_to_shareable(self, model: Learnable, fl_ctx: FLContext) -> Shareable:
        del fl_ctx
        return model_learnable_to_dxo(model).to_shareable()  # type: ignore[arg-type]  # it says what it is not

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable:
        """The global model after a result.

        Raises:
            TypeError, ValueError: there is no global model, or the result's kind is another.
        """
        if not isinstance(shareable, Shareable):
            raise TypeError(f"shareable must be a Shareable, but got {type(shareable)}")
        model = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
        if not isinstance(model, ModelLearnable):
            raise ValueError("there is no global model in the context")
        dxo = from_shareable(shareable)
        weights = model[ModelLearnableKey.WEIGHTS]
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            added = {name: _sum(weights[name], diff) for name, diff in dxo.data.items() if name in weights}
            model[ModelLearnableKey.WEIGHTS] = {**weights, **added}
        elif dxo.data_kind == DataKind.WEIGHTS:
            if dxo.data:
                model[ModelLearnableKey.WEIGHTS] = {**{n: w for n, w in weights.items() if n not in dxo.data}, **dxo.data}
        else:
            raise ValueError(f"data of kind {dxo.data_kind} are no weights")
        model[ModelLearnableKey.META] = dxo.get_meta_props()
        return model


def _sum(base: Any, diff: Any) -> Any:
    """A new array, of the model's own dtype where that is a float."""
    before = np.asarray(base)
    made = before + np.asarray(diff)
    return made.astype(before.dtype) if before.dtype.kind == "f" else made
