"""ScatterAndGather with SCAFFOLD's control variates (Karimireddy 2020, https://arxiv.org/abs/1910.06378)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, from_shareable
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.model import ModelLearnableKey, model_learnable_to_dxo
from hansa.compat.flare.app_common.app_constant import AlgorithmConstants, AppConstants
from hansa.compat.flare.app_common.workflows.scatter_and_gather import ScatterAndGather


class ScatterAndGatherScaffold(ScatterAndGather):
    """Sends weights and the global controls as a COLLECTION, and takes their differences as one."""

    _controls: dict[str, Any]

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Begin with controls of zero."""
        super().start_controller(fl_ctx)
        weights = self._global_weights[ModelLearnableKey.WEIGHTS]
        self._controls = {name: np.zeros_like(value) for name, value in weights.items()}

    def task_data(self, fl_ctx: FLContext) -> Shareable:
        """The weights and the controls."""
        del fl_ctx
        parts = {
            AppConstants.MODEL_WEIGHTS: model_learnable_to_dxo(self._global_weights),
            AlgorithmConstants.SCAFFOLD_CTRL_GLOBAL: DXO(DataKind.WEIGHT_DIFF, dict(self._controls)),
        }
        return self.with_round(DXO(DataKind.COLLECTION, parts).to_shareable())

    def update(self, aggregated: Shareable, fl_ctx: FLContext) -> None:
        """Take in the mean differences of weights and of controls.

        Raises:
            ValueError: one of the two is missing.
        """
        parts = from_shareable(aggregated).data
        for name in (AppConstants.MODEL_WEIGHTS, AlgorithmConstants.SCAFFOLD_CTRL_DIFF):
            if not isinstance(parts.get(name), DXO):
                raise ValueError(f"the aggregate has no {name!r}: is the aggregator's expected_data_kind a dict of both?")
        super().update(parts[AppConstants.MODEL_WEIGHTS].to_shareable(), fl_ctx)
        for name, diff in parts[AlgorithmConstants.SCAFFOLD_CTRL_DIFF].data.items():
            before = self._controls[name]
            self._controls[name] = (before + diff).astype(before.dtype)
        fl_ctx.set_prop(AlgorithmConstants.SCAFFOLD_CTRL_GLOBAL, self._controls, private=True, sticky=True)
