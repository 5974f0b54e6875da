"""Server optimizers as pure functions: a step of SGD, Adam, Yogi or Adagrad along a gradient (Reddi 2021).

State is a tree of slots; what a step gives back is the new model and the new state. Arithmetic is float64, cast once. Leaves that
no gradient moves (counters and running statistics of batch norm) take no part: `advance` adds their mean change as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from hansa.core import trees
from hansa.core.round import is_real
from hansa.core.trees import Array, Tree
from hansa.errors import ConfigError
from hansa.learning.standardise import MEAN, SCALE
from hansa.registry import nearest

Name: TypeAlias = Literal["sgd", "adam", "yogi", "adagrad"]
Slots: TypeAlias = dict[str, Array]

# Floating-point leaves that are counted, not trained, as torch and Keras name them, and those of `standardise`. A server
# optimizer's step on a variance could make it negative.
STATISTICS = ("*running_mean", "*running_var", "*moving_mean", "*moving_variance", MEAN, SCALE)


@dataclass(frozen=True)
class Optimizer:
    """A server optimizer's settings. `momentum` is SGD's; `betas` Adam's and Yogi's; `epsilon` their and Adagrad's floor.

    Defaults of `epsilon` and of the first accumulator follow TFF: Adam 1e-7 and 0, Yogi 1e-3 and 1e-6, Adagrad 1e-7 and 0.1.
    """

    name: Name = "sgd"
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in _RULES:
            hint = nearest(str(self.name), sorted(_RULES))
            raise ConfigError("no such server optimizer", path="optimizer", got=repr(self.name), hint=hint)
        if not (is_real(self.momentum) and 0 <= self.momentum < 1):
            raise ConfigError("momentum is in [0, 1)", path="momentum", got=repr(self.momentum))
        betas = self.betas if isinstance(self.betas, list | tuple) else ()
        if not (len(betas) == 2 and all(is_real(beta) and 0 <= beta < 1 for beta in betas)):
            raise ConfigError("betas are two numbers in [0, 1)", path="betas", got=repr(self.betas))
        if not (self.epsilon is None or (is_real(self.epsilon) and self.epsilon > 0)):
            raise ConfigError("epsilon is positive", path="epsilon", got=repr(self.epsilon))

    def start(self, model: Tree) -> Tree:
        """The state before the first step: float64 slots shaped as the leaves that gradients move."""
        first = _FIRST[self.name](self)
        return {name: trees.map(lambda a, v=value: np.full(a.shape, v), trained(model)) for name, value in first.items()}

    def step(self, model: Tree, gradient: Tree, state: Tree, *, lr: float, number: int) -> tuple[Tree, Tree]:
        """The model after step `number` (1 is the first) down the gradient, and the new state.

        >>> model, _ = Optimizer().step({"w": np.ones(1)}, {"w": np.full(1, 0.5)}, {}, lr=0.1, number=1)
        >>> print(model["w"])
        [0.95]
        """
        slots = {name: trees.flatten(cast(Tree, slot)) for name, slot in state.items()}
        after: dict[str, Array] = {}
        moved: dict[str, dict[str, Array]] = {name: {} for name in slots}
        gradients = trees.flatten(gradient)
        for path, leaf in trees.leaves(model):
            g = gradients[path].astype(np.float64)
            change, new = _RULES[self.name](self, g, {name: slot[path] for name, slot in slots.items()}, lr, number)
            for name, value in new.items():
                moved[name][path] = value
            after[path] = trees.cast_like(leaf.astype(np.float64) - change, leaf.dtype)
        return trees.unflatten(after), {name: trees.unflatten(flat) for name, flat in moved.items()}


def advance(
    model: Tree, delta: Tree, *, lr: float = 1.0, optimizer: Optimizer | None = None, state: Tree | None = None, number: int = 1
) -> tuple[dict[str, Any], Tree]:
    """The model after one server step along the clients' mean change, and the optimizer's new state: the gradient is -delta.

    `delta` is used up: the new model may take its memory, so that a round of a large model holds two and not three.

    >>> model, _ = advance({"w": np.ones(1), "steps": np.array([3])}, {"w": np.full(1, 0.5), "steps": np.array([2])}, lr=0.1)
    >>> print(model["w"], model["steps"])
    [1.05] [5]
    """
    rule = optimizer or Optimizer()
    if rule == Optimizer() and lr == 1.0:  # w + delta needs no wide copy of a large model
        return trees.map(_moved, model, delta), {}
    own, moving = trained(model), trained(delta)
    stepped, slots = rule.step(own, trees.map(np.negative, moving), state or {}, lr=lr, number=number)
    return trees.merge(trees.add(model, delta), stepped), slots


def _moved(leaf: Array, change: Array) -> Array:
    """leaf + change in the dtype of the leaf, in the memory of the change where that is its own and fits."""
    fits = type(change) is np.ndarray and change.dtype == leaf.dtype and change.shape == leaf.shape
    free = fits and change.flags.owndata and change.flags.writeable
    return np.asarray(np.add(leaf, change, out=change if free else None, dtype=leaf.dtype, casting="unsafe"))


def trained(tree: Tree) -> dict[str, Any]:
    """The leaves that gradients move: floating-point, and no running statistics."""
    _, rest = trees.split(tree, STATISTICS)
    return trees.unflatten({path: leaf for path, leaf in trees.leaves(rest) if _floats(leaf)})


def parted(tree: Tree) -> tuple[dict[str, Any], dict[str, Any]]:
    """The leaves that gradients move, and the others: counters and running statistics.

    >>> parted({"w": np.ones(1), "bn.running_var": np.ones(1)})
    ({'w': array([1.])}, {'bn.running_var': array([1.])})
    """
    moved = trained(tree)
    paths = {path for path, _ in trees.leaves(moved)}
    return moved, trees.unflatten({path: leaf for path, leaf in trees.leaves(tree) if path not in paths})


def _floats(leaf: Array) -> bool:
    return leaf.dtype.kind == "f" or leaf.dtype.name == "bfloat16"


def _sgd(o: Optimizer, g: Array, slots: Slots, lr: float, number: int) -> tuple[Array, Slots]:  # noqa: ARG001  a rule's signature
    if not o.momentum:
        return lr * g, {}
    m = o.momentum * slots["momentum"] + g
    return lr * m, {"momentum": m}


def _adam(o: Optimizer, g: Array, slots: Slots, lr: float, number: int) -> tuple[Array, Slots]:
    m = o.betas[0] * slots["first"] + (1 - o.betas[0]) * g
    v = o.betas[1] * slots["second"] + (1 - o.betas[1]) * g * g
    return _scaled(o, m, v, lr, number, 1e-7), {"first": m, "second": v}


def _yogi(o: Optimizer, g: Array, slots: Slots, lr: float, number: int) -> tuple[Array, Slots]:
    m = o.betas[0] * slots["first"] + (1 - o.betas[0]) * g
    square = g * g
    v = slots["second"] + (1 - o.betas[1]) * np.sign(square - slots["second"]) * square
    return _scaled(o, m, v, lr, number, 1e-3), {"first": m, "second": v}


def _adagrad(o: Optimizer, g: Array, slots: Slots, lr: float, number: int) -> tuple[Array, Slots]:  # noqa: ARG001  a rule's signature
    v = slots["second"] + g * g
    return lr * g / (np.sqrt(v) + (o.epsilon or 1e-7)), {"second": v}


def _scaled(o: Optimizer, m: Array, v: Array, lr: float, number: int, epsilon: float) -> Array:
    # Kingma & Ba 2015, section 2: both bias corrections folded into the step size
    corrected = lr * math.sqrt(1 - o.betas[1] ** number) / (1 - o.betas[0] ** number)
    return np.asarray(corrected * m / (np.sqrt(v) + (o.epsilon or epsilon)))


_RULES: dict[str, Callable[[Optimizer, Array, Slots, float, int], tuple[Array, Slots]]] = {
    "sgd": _sgd,
    "adam": _adam,
    "yogi": _yogi,
    "adagrad": _adagrad,
}
_FIRST: dict[str, Callable[[Optimizer], dict[str, Any]]] = {
    "sgd": lambda o: {"momentum": 0.0} if o.momentum else {},
    "adam": lambda _: {"first": 0.0, "second": 0.0},
    "yogi": lambda _: {"first": 0.0, "second": 1e-6},
    "adagrad": lambda _: {"second": 0.1},
}
