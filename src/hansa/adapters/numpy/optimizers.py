"""SGD and Adam over rows of parameters, one row a client, with what an algorithm adds to each gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hansa.adapters.numpy.nets import Net
from hansa.adapters.numpy.settings import Settings
from hansa.core.trees import Array, Tree

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Kingma & Ba 2015, https://arxiv.org/abs/1412.6980


@dataclass
class Optimizer:
    """`w`, `grad` (clients, size): write the gradients, call `step`. `start` is (1, size) where all begin from one model.

    Where it is `plain`, w - lr grad and nothing else, what is written must have been multiplied by `lr`: on the few errors that
    a gradient is made of that costs less than on its entries.
    """

    settings: Settings
    w: Array
    start: Array
    grad: Array
    lr: Array
    decay: Array | None
    correction: Array | None
    moment: Array | None
    square: Array | None
    count: int = 0

    @staticmethod
    def of(net: Net, clients: Sequence[tuple[Tree, Settings]], dtype: np.dtype[Any]) -> Optimizer:
        """The state before the first step: it begins anew with each local training."""
        settings = clients[0][1]
        models = [model for model, _ in clients]
        if all(model is models[0] for model in models):
            models = models[:1]
        start = np.empty((len(models), net.size), dtype)
        for row, model in zip(start, models, strict=True):
            net.flatten(model, row)
        w = np.repeat(start, len(clients), axis=0) if len(models) < len(clients) else start.copy()
        correction = None
        if any(s.correction is not None for _, s in clients):
            correction = np.zeros_like(w)
            for row, (_, s) in zip(correction, clients, strict=True):
                net.flatten(s.correction or {}, row)
        decay = None
        if settings.l2:
            decay = np.zeros(net.size, dtype)
            net.flatten({path: np.full(net.shapes[path], settings.l2) for path in net.shapes if path.endswith("weight")}, decay)
        adam = settings.optimizer == "adam"
        return Optimizer(
            settings,
            w,
            start,
            np.empty_like(w),
            np.array([s.lr for _, s in clients], dtype)[:, None],
            decay,
            correction,
            np.zeros_like(w) if adam or settings.momentum else None,
            np.zeros_like(w) if adam else None,
        )

    @property
    def plain(self) -> bool:
        """Whether a step is w - lr grad."""
        s = self.settings
        return self.moment is None and self.decay is None and self.correction is None and s.clip is None and not s.proximal

    def step(self, active: int) -> None:
        """Move the first `active` clients along their gradients, which are used up."""
        w, grad = self.w[:active], self.grad[:active]
        if self.plain:
            w -= grad
            return
        if self.decay is not None:
            grad += self.decay * w
        if self.settings.proximal:
            grad += self.settings.proximal * (w - self.start[:active])
        if self.correction is not None:
            grad += self.correction[:active]
        if self.settings.clip is not None:
            norm = np.sqrt(np.einsum("cp,cp->c", grad, grad, dtype=np.float64))
            grad *= np.minimum(1.0, self.settings.clip / np.maximum(norm, np.finfo(norm.dtype).tiny)).astype(grad.dtype)[:, None]
        self.count += 1
        w -= self._stride(grad, active)

    def _stride(self, grad: Array, active: int) -> Array:
        """How far to move, from the gradient and the moments; as torch.optim has it, eps and the order of steps included."""
        if self.moment is None:
            grad *= self.lr[:active]
            return grad
        moment = self.moment[:active]
        if self.square is None:
            moment *= self.settings.momentum
            moment += grad
            return self.lr[:active] * moment
        square = self.square[:active]
        moment += (1 - _BETA1) * (grad - moment)
        square *= _BETA2
        square += (1 - _BETA2) * grad * grad
        scale = np.sqrt(square) / float(np.sqrt(1 - _BETA2**self.count)) + _EPSILON
        return self.lr[:active] / float(1 - _BETA1**self.count) * moment / scale
