"""SVTPrivacy: some noisy changes leave the site, chosen by the sparse vector technique, and what that costs is counted.

Lyu, Su, Li 2017, https://doi.org/10.14778/3055330.3055331, algorithm 7; the use on updates is Li 2019, https://arxiv.org/abs/1910.00962.
"""

from __future__ import annotations

import math
import secrets
from typing import Final

import numpy as np

from hansa.compat.flare.apis.dxo import DXO, DataKind, MetaKey
from hansa.compat.flare.apis.dxo_filter import DXOFilter
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable

EPSILON_SPENT: Final = "epsilon_spent"  # in the result's meta: by this filter, in this run so far


class SVTPrivacy(DXOFilter):
    """Releases at most `fraction` of the changes per step, those whose noisy size is above a noisy `tau`; all others are 0.

    gamma: changes are clipped to it, so that one differs by at most 2 gamma. epsilon: of the threshold. noise_var: epsilon of each
    value that is released. The values are looked at once, in random order, until n = fraction x size were accepted:

        accept i:  |d_i| + Lap(4 gamma n / e2)  >=  tau + Lap(2 gamma / epsilon),   e2 = epsilon (2n)^(2/3)
        release:   d_i + Lap(2 gamma / noise_var)

    A call costs epsilon + e2 + (values released) x noise_var, by basic composition, for neighbours that differ in the whole
    update; the sum over the run's calls is in the result's meta as `epsilon_spent`, in the log, and in the run's metrics. With the
    defaults it is large: that is what these settings cost. The noise is drawn from the operating system's entropy, in floats.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        fraction: float = 0.1,
        epsilon: float = 0.1,
        noise_var: float = 0.1,
        gamma: float = 1e-5,
        tau: float = 1e-6,
        data_kinds: list[str] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__([DataKind.WEIGHT_DIFF], data_kinds)
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, but got {fraction}")
        for name, given in (("epsilon", epsilon), ("noise_var", noise_var), ("gamma", gamma), ("tau", tau)):
            if not (math.isfinite(given) and given > 0):
                raise ValueError(f"{name} must be above 0, but got {given}")
        self.fraction, self.eps_1, self.eps_3, self.gamma, self.tau = fraction, epsilon, noise_var, gamma, tau
        self._rng = np.random.default_rng(secrets.randbits(128) if seed is None else seed)
        self.spent = 0.0

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        del shareable
        if not dxo.data:
            return None
        steps = float(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0))
        arrays = {name: np.asarray(value) for name, value in dxo.data.items()}
        flat = np.concatenate([each.astype(np.float64).ravel() for each in arrays.values()]) / steps
        released, cost = self.release(flat)
        self.spent += cost
        self.log_info(
            fl_ctx, f"released {np.count_nonzero(released)} of {flat.size} values; epsilon {cost:.6g}, so far {self.spent:.6g}"
        )
        made, start = {}, 0
        for name, each in arrays.items():
            part = released[start : start + each.size].reshape(each.shape) * steps
            made[name] = part.astype(each.dtype) if each.dtype.kind == "f" else part
            start += each.size
        return DXO(dxo.data_kind, made, {**dxo.meta, EPSILON_SPENT: self.spent})

    def release(
        self, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    ) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], float]:
        """The values as they may leave, and the epsilon that it costs."""
        most = max(1, int(self.fraction * values.size))
        eps_2 = self.eps_1 * (2.0 * most) ** (2.0 / 3.0)
        clipped = np.clip(values, -self.gamma, self.gamma)
        threshold = self.tau + self._rng.laplace(scale=2.0 * self.gamma / self.eps_1)
        order = self._rng.permutation(values.size)
        noisy = np.abs(clipped[order]) + self._rng.laplace(scale=4.0 * self.gamma * most / eps_2, size=values.size)
        accepted = order[np.flatnonzero(noisy >= threshold)[:most]]
        released = np.zeros_like(clipped)
        released[accepted] = clipped[accepted] + self._rng.laplace(scale=2.0 * self.gamma / self.eps_3, size=accepted.size)
        return released, self.eps_1 + eps_2 + accepted.size * self.eps_3
