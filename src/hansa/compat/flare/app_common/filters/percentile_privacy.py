"""PercentilePrivacy: the largest changes alone leave the site (Shokri 2015, https://doi.org/10.1145/2810103.2813687)."""

from __future__ import annotations

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, MetaKey
from hansa.compat.flare.apis.dxo_filter import DXOFilter
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class PercentilePrivacy(DXOFilter):
    """Of the change per step: what is below the percentile of all absolute values is 0, the rest is clipped to +-gamma.

    It is no differential privacy: what leaves is exact.

    Raises:
        ValueError: percentile is not from 0 to 100, or gamma not above 0.
    """

    def __init__(self, percentile: float = 10, gamma: float = 0.01, data_kinds: list[str] | None = None) -> None:
        super().__init__([DataKind.WEIGHT_DIFF], data_kinds)
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile must be from 0 to 100, but got {percentile}")
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, but got {gamma}")
        self.percentile, self.gamma = percentile, gamma

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        del shareable, fl_ctx
        if not dxo.data:
            return None
        steps = float(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0))
        rates = {name: np.asarray(value, np.float64) / steps for name, value in dxo.data.items()}
        cutoff = np.percentile(np.concatenate([np.abs(each).ravel() for each in rates.values()]), self.percentile)
        kept = {name: np.where(np.abs(each) < cutoff, 0.0, np.clip(each, -self.gamma, self.gamma)) for name, each in rates.items()}
        made = {name: (each * steps).astype(_float(dxo.data[name])) for name, each in kept.items()}
        return DXO(dxo.data_kind, made, dxo.meta)


def _float(value: object) -> np.dtype[np.float64]:
    kind = np.asarray(value).dtype
    return kind if kind.kind == "f" else np.dtype(np.float64)
