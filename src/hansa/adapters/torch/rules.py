"""Step rules and what an algorithm adds to a gradient, on lists of tensors: one client's, or stacked over many clients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from hansa.adapters.settings import RuleName, require_rule
from hansa.errors import ConfigError

Rate: TypeAlias = float | Tensor  # one step size, or one for each stacked client
Grads: TypeAlias = Sequence[Tensor | None]  # None: the parameter had no part in the loss, and is left alone
Factory: TypeAlias = Callable[[list[Tensor], float], torch.optim.Optimizer]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Kingma 2015


class Rule(Protocol):
    """Moves parameters in place, and keeps what it remembers between steps."""

    def step(self, params: Sequence[Tensor], grads: Grads, lr: Rate) -> None: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rule: by name, or the user's own factory of a torch optimizer."""

    optimizer: RuleName | Factory = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_rule(self.optimizer, self.momentum, self.weight_decay, own="a function of (params, lr)")

    def rule(self, params: list[Tensor], lr: float) -> Rule:
        """A new rule for one local training."""
        return self.stacked(params) if isinstance(self.optimizer, str) else Own(self.optimizer(params, lr))

    def stacked(self, params: list[Tensor]) -> Sgd | Adam:
        """A new rule for the training of many clients at once.

        Raises:
            ConfigError: the optimizer is the user's own: what it does with a stacked parameter is not known.
        """
        if not isinstance(self.optimizer, str):
            raise ConfigError("your own optimizer cannot train batched clients", path="optimizer", hint="the loop engine takes any")
        if self.optimizer == "sgd":
            return Sgd(params, momentum=self.momentum, decay=self.weight_decay)
        return Adam(params, decay=self.weight_decay, decoupled=self.optimizer == "adamw")


class Sgd:
    """w -= lr v, with v = momentum v + g + decay w."""

    def __init__(self, params: Sequence[Tensor], *, momentum: float, decay: float) -> None:
        self._momentum, self._decay = momentum, decay
        self._velocity = [torch.zeros_like(p) for p in params] if momentum else []

    def step(self, params: Sequence[Tensor], grads: Grads, lr: Rate) -> None:
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if g is None:
                continue
            if self._decay:
                g = g.add(p, alpha=self._decay)
            if self._momentum:
                g = self._velocity[i].mul_(self._momentum).add_(g)
            if isinstance(lr, Tensor):
                p.sub_(g * column(lr, p))
            else:
                p.sub_(g, alpha=lr)

    def keep(self, count: int) -> None:
        """Of stacked clients, go on with the first `count`."""
        self._velocity = [v[:count] for v in self._velocity]


class Adam:
    """Kingma 2015; `decoupled` takes the decay from the weights, not the gradient (Loshchilov 2019)."""

    def __init__(self, params: Sequence[Tensor], *, decay: float, decoupled: bool) -> None:
        self._decay, self._decoupled = decay, decoupled
        self._first = [torch.zeros_like(p) for p in params]
        self._second = [torch.zeros_like(p) for p in params]
        self._steps = [0] * len(params)

    def step(self, params: Sequence[Tensor], grads: Grads, lr: Rate) -> None:
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            if g is not None:
                self._move(i, p, g, column(lr, p) if isinstance(lr, Tensor) else lr)

    def _move(self, i: int, p: Tensor, g: Tensor, lr: Rate) -> None:
        if self._decay and self._decoupled:
            p.mul_(1 - lr * self._decay)
        elif self._decay:
            g = g.add(p, alpha=self._decay)
        self._steps[i] += 1
        first = self._first[i].lerp_(g, 1 - _BETA1)
        second = self._second[i].mul_(_BETA2).addcmul_(g, g, value=1 - _BETA2)
        scale = second.sqrt().div_(math.sqrt(1 - _BETA2 ** self._steps[i])).add_(_EPSILON)
        rate = lr / (1 - _BETA1 ** self._steps[i])
        if isinstance(rate, Tensor):
            p.sub_(first.div(scale).mul_(rate))
        else:
            p.addcdiv_(first, scale, value=-rate)

    def keep(self, count: int) -> None:
        """Of stacked clients, go on with the first `count`."""
        self._first, self._second = [m[:count] for m in self._first], [v[:count] for v in self._second]


class Own:
    """A torch optimizer; it reads the gradients from the parameters."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError("your function must return a torch optimizer", path="optimizer", got=type(optimizer).__name__)
        self._optimizer = optimizer

    def step(self, params: Sequence[Tensor], grads: Grads, lr: Rate) -> None:  # noqa: ARG002  the optimizer was built with it
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        self._optimizer.step()


def column(values: Tensor, like: Tensor) -> Tensor:
    """(C,) as (C, 1, ...), to meet a stacked parameter (C, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass(slots=True)
class Terms:
    """What an algorithm asks of each gradient: mu (w - start), a correction added, then the whole clipped to a norm."""

    proximal: float
    start: list[Tensor]
    correction: list[Tensor | None]
    clip: float | None
    stacked: bool = False

    def __call__(self, params: Sequence[Tensor], grads: Grads) -> Grads:
        """The gradients with the terms; new tensors where something is added."""
        out = list(grads)
        if self.proximal:
            out = [g if g is None else g.add(p - w, alpha=self.proximal) for g, p, w in zip(out, params, self.start, strict=True)]
        if self.correction:
            pairs = zip(out, self.correction, strict=True)
            out = [g if c is None else (c if g is None else g + c) for g, c in pairs]
        return out if self.clip is None else clipped(out, self.clip, stacked=self.stacked)

    def keep(self, count: int) -> None:
        """Of stacked clients, go on with the first `count`."""
        self.start = [w[:count] for w in self.start]
        self.correction = [c if c is None else c[:count] for c in self.correction]


def clipped(grads: Grads, norm: float, *, stacked: bool) -> list[Tensor | None]:
    """Gradients scaled so that the L2 norm over all of them, for each stacked client by itself, is at most `norm`."""
    present = [g for g in grads if g is not None]
    if not present:
        return list(grads)
    rows = [g.reshape(len(g) if stacked else 1, -1) for g in present]
    sizes = [torch.linalg.vector_norm(r, dim=1, dtype=torch.promote_types(r.dtype, torch.float32)) for r in rows]
    factor = (norm / torch.linalg.vector_norm(torch.stack(sizes), dim=0)).clamp(max=1.0)
    return [g if g is None else g * (column(factor, g) if stacked else factor[0]).to(g.dtype) for g in grads]
