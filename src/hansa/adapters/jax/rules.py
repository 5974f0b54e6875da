"""Step rules on lists of arrays, as pure functions: what Optax calls a gradient transformation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp

from hansa.adapters.settings import RuleName, require_rule, rule_name

Factory: TypeAlias = Callable[[Any], Any]  # of a step size: something with Optax's init and update

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Kingma 2015


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rule: by name, or a function from the step size to one of Optax's.

    Raises:
        ConfigError: a setting that cannot be; names it.
    """

    optimizer: RuleName | Factory = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_rule(self.optimizer, self.momentum, self.weight_decay, own="a function of the step size")

    @property
    def rule(self) -> str | None:
        """The rule's name, or None for one of the user's own."""
        return rule_name(self.optimizer, self.momentum)

    def at(self, lr: Any) -> Any:
        """The rule with a step size, which may be traced: `init(params)` and `update(grads, state, params)`."""
        if not isinstance(self.optimizer, str):
            return self.optimizer(lr)
        return Sgd(lr, self.momentum, self.weight_decay) if self.optimizer == "sgd" else Adam(lr, self.weight_decay, self.optimizer)


@dataclass(frozen=True, slots=True)
class Sgd:
    """w <- w - lr v, with v <- momentum v + g."""

    lr: Any
    momentum: float
    decay: float

    def init(self, params: list[Any]) -> list[Any]:
        return [jnp.zeros_like(p) for p in params] if self.momentum else []

    def update(self, grads: list[Any], state: list[Any], params: list[Any]) -> tuple[list[Any], list[Any]]:
        if self.decay:
            grads = [g + self.decay * p for g, p in zip(grads, params, strict=True)]
        if self.momentum:
            grads = state = [self.momentum * v + g for v, g in zip(state, grads, strict=True)]
        return [(-self.lr * g).astype(g.dtype) for g in grads], state


@dataclass(frozen=True, slots=True)
class Adam:
    """Kingma 2015; "adamw" takes the decay from the weights, not the gradient (Loshchilov 2019)."""

    lr: Any
    decay: float
    name: str

    def init(self, params: list[Any]) -> tuple[list[Any], list[Any], Any]:
        return [jnp.zeros_like(p) for p in params], [jnp.zeros_like(p) for p in params], jnp.zeros((), jnp.int32)

    def update(self, grads: list[Any], state: Any, params: list[Any]) -> tuple[list[Any], Any]:
        first, second, count = state
        count = count + 1
        if self.decay and self.name == "adam":
            grads = [g + self.decay * p for g, p in zip(grads, params, strict=True)]
        first = [_BETA1 * m + (1 - _BETA1) * g for m, g in zip(first, grads, strict=True)]
        second = [_BETA2 * v + (1 - _BETA2) * g * g for v, g in zip(second, grads, strict=True)]
        one, two = 1 - _BETA1**count, 1 - _BETA2**count
        moves = [-self.lr / one * m / (jnp.sqrt(v) / jnp.sqrt(two) + _EPSILON) for m, v in zip(first, second, strict=True)]
        if self.decay and self.name == "adamw":
            moves = [u - self.lr * self.decay * p for u, p in zip(moves, params, strict=True)]
        return [u.astype(p.dtype) for u, p in zip(moves, params, strict=True)], (first, second, count)
