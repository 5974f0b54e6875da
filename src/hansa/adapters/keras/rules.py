"""Which step rule, by name or the user's own, and what an algorithm adds to a gradient, on tensors of any framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops

from hansa.adapters.settings import RuleName, require_rule, rule_name
from hansa.core.trees import Array
from hansa.errors import ConfigError

Factory: TypeAlias = Callable[[float], Any]  # from the step size to a Keras optimizer

_EPSILON = 1e-8  # Kingma 2015; Keras's own 1e-7 differs from other frameworks


@dataclass(frozen=True)
class Chosen:
    """Which rule: by name, or a function from the step size to a Keras optimizer.

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

    @property
    def decay(self) -> float:
        """What of each weight is added to its gradient; "adamw" takes it from the weight instead (Loshchilov 2019)."""
        return 0.0 if self.optimizer == "adamw" else self.weight_decay

    def at(self, lr: float) -> Any:
        """A new Keras optimizer with a step size.

        Raises:
            ConfigError: the user's function gives something else.
        """
        match self.optimizer:
            case "sgd":
                return keras.optimizers.SGD(lr, momentum=self.momentum)
            case "adam":
                return keras.optimizers.Adam(lr, epsilon=_EPSILON)
            case "adamw":
                return keras.optimizers.AdamW(lr, weight_decay=self.weight_decay, epsilon=_EPSILON)
        made = self.optimizer(lr)
        if not isinstance(made, keras.optimizers.Optimizer):
            raise ConfigError("your function must return a Keras optimizer", path="optimizer", got=type(made).__name__)
        return made


class Asked(NamedTuple):
    """What an algorithm adds to each gradient; a part that is None is not there at all. `start` goes with `proximal`."""

    proximal: Any | None = None
    start: list[Any] | None = None
    correction: list[Any] | None = None
    clip: Any | None = None

    @staticmethod
    def of(proximal: float, start: list[Array], correction: list[Array] | None, clip: float | None) -> Asked:
        """The parts that are asked for, as arrays."""
        limit = None if clip is None else np.float32(clip)
        return Asked(np.float32(proximal), start, correction, limit) if proximal else Asked(correction=correction, clip=limit)

    def converted(self) -> Asked:
        """The same in the framework's tensors."""
        start, correction = (
            None if p is None else [ops.convert_to_tensor(leaf) for leaf in p] for p in (self.start, self.correction)
        )
        return self._replace(start=start, correction=correction)


def shaped(grads: Sequence[Any], weights: Sequence[Any], asked: Asked, decay: float) -> list[Any]:
    """mu (w - start) added, then the correction, then the whole scaled down to the norm; then the rule's own decay."""
    new = list(grads)
    if asked.start is not None:
        new = [g + ops.cast(asked.proximal, g.dtype) * (w - s) for g, w, s in zip(new, weights, asked.start, strict=True)]
    if asked.correction is not None:
        new = [g + ops.cast(c, g.dtype) for g, c in zip(new, asked.correction, strict=True)]
    if asked.clip is not None:
        norm = ops.sqrt(sum(ops.sum(ops.square(ops.cast(g, "float32"))) for g in new))
        scale = ops.minimum(1.0, asked.clip / ops.maximum(norm, 1e-38))
        new = [g * ops.cast(scale, g.dtype) for g in new]
    return [g + decay * ops.cast(w, g.dtype) for g, w in zip(new, weights, strict=True)] if decay else new
