"""Optimizers as pure functions on lists of any framework's arrays, with TensorFlow Federated's states.

`optimizers` moves Trees at the server, in NumPy and float64. These compute with operators alone, and so become part of a graph that
TensorFlow or JAX traces at a client.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hansa.core.round import is_real
from hansa.errors import ConfigError

State: TypeAlias = OrderedDict[str, Any]
Rule: TypeAlias = Callable[[State, list[Any], list[Any]], tuple[dict[str, Any], list[Any]]]


@dataclass(frozen=True)
class StepRule:
    """An optimizer: `initialize(specs) -> state`, `next(state, weights, gradients) -> (state, weights)`.

    A state has the hyper-parameters (float32) first, then the step's number and lists of slots as the rule needs them.
    """

    name: str
    hparams: tuple[tuple[str, float], ...]
    slots: tuple[tuple[str, float], ...]  # each with its first value
    rule: Rule
    counts: bool = False

    def initialize(self, specs: Sequence[Any]) -> State:
        """The state before the first step, for weights of these shapes and dtypes."""
        state: State = OrderedDict((name, np.float32(value)) for name, value in self.hparams)
        if self.counts:
            state["step"] = np.float32(0)  # not an int: no operator makes a float of one in every framework
        for name, first in self.slots:
            state[name] = [np.full(tuple(spec.shape), first, _numpy(spec.dtype)) for spec in specs]
        return state

    def next(self, state: Mapping[str, Any], weights: Sequence[Any], gradients: Sequence[Any]) -> tuple[State, list[Any]]:
        """The state and the weights after a step down the gradients.

        >>> state, weights = build_sgdm(0.1).next({"learning_rate": 0.1}, [np.ones(1)], [np.full(1, 0.5)])
        >>> print(weights)
        [array([0.95])]
        """
        before = OrderedDict(state)
        if self.counts:
            before["step"] = before["step"] + 1
        changed, steps = self.rule(before, list(weights), list(gradients))
        return OrderedDict({**before, **changed}), [w - step for w, step in zip(weights, steps, strict=True)]

    def get_hparams(self, state: Mapping[str, Any]) -> State:
        """The hyper-parameters in a state."""
        return OrderedDict((name, state[name]) for name, _ in self.hparams)

    def set_hparams(self, state: Mapping[str, Any], hparams: Mapping[str, Any]) -> State:
        """The state with other hyper-parameters."""
        return OrderedDict({**state, **{name: hparams[name] for name, _ in self.hparams}})


def build_sgdm(learning_rate: float = 0.01, momentum: float | None = None) -> StepRule:
    """SGD; with momentum, the accumulator is multiplied by the learning rate after it was added to."""
    rate = _checked(learning_rate=learning_rate)
    if not momentum:
        return StepRule("sgdm", rate, (), lambda s, _, g: ({}, [s["learning_rate"] * each for each in g]))

    def rule(s: State, _: list[Any], g: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        moved = [s["momentum"] * m + each for m, each in zip(s["accumulator"], g, strict=True)]
        return {"accumulator": moved}, [s["learning_rate"] * m for m in moved]

    return StepRule("sgdm", (*rate, *_checked(momentum=momentum)), (("accumulator", 0.0),), rule)


def build_adagrad(learning_rate: float, initial_preconditioner_value: float = 0.1, epsilon: float = 1e-7) -> StepRule:
    """Adagrad (Duchi 2011)."""

    def rule(s: State, _: list[Any], g: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        sums = [p + each * each for p, each in zip(s["preconditioner"], g, strict=True)]
        steps = [s["learning_rate"] * each / (p + s["epsilon"]) ** 0.5 for p, each in zip(sums, g, strict=True)]
        return {"preconditioner": sums}, steps

    slots = (("preconditioner", initial_preconditioner_value),)
    return StepRule("adagrad", _checked(learning_rate=learning_rate, epsilon=epsilon), slots, rule)


def build_rmsprop(learning_rate: float, decay: float = 0.9, epsilon: float = 1e-7) -> StepRule:
    """RMSprop (Tieleman and Hinton 2012)."""

    def rule(s: State, _: list[Any], g: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        means = [s["decay"] * p + (1 - s["decay"]) * each * each for p, each in zip(s["preconditioner"], g, strict=True)]
        steps = [s["learning_rate"] * each / (p + s["epsilon"]) ** 0.5 for p, each in zip(means, g, strict=True)]
        return {"preconditioner": means}, steps

    hparams = _checked(learning_rate=learning_rate, decay=decay, epsilon=epsilon)
    return StepRule("rmsprop", hparams, (("preconditioner", 0.0),), rule)


def build_adam(learning_rate: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> StepRule:
    """Adam (Kingma and Ba 2015)."""
    return _adaptive("adam", _mean_of_squares, 0.0, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def build_adamw(
    learning_rate: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7, weight_decay: float = 0.004
) -> StepRule:
    """Adam with weight decay beside the gradient (Loshchilov and Hutter 2019)."""
    hparams = {"learning_rate": learning_rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "weight_decay": weight_decay}
    return _adaptive("adamw", _mean_of_squares, 0.0, **hparams)


def build_yogi(
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-3,
    initial_preconditioner_value: float = 1e-6,
) -> StepRule:
    """Yogi (Zaheer 2018)."""
    hparams = {"learning_rate": learning_rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    return _adaptive("yogi", _towards_squares, initial_preconditioner_value, **hparams)


def _adaptive(name: str, second: Callable[[State, Any, Any], Any], first: float, **hparams: float) -> StepRule:
    def rule(s: State, weights: list[Any], g: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        means = [s["beta_1"] * m + (1 - s["beta_1"]) * each for m, each in zip(s["accumulator"], g, strict=True)]
        squares = [second(s, p, each) for p, each in zip(s["preconditioner"], g, strict=True)]
        number = s["step"]
        rate = s["learning_rate"] * (1 - s["beta_2"] ** number) ** 0.5 / (1 - s["beta_1"] ** number)
        steps = [rate * m / (p**0.5 + s["epsilon"]) for m, p in zip(means, squares, strict=True)]
        if "weight_decay" in s:
            steps = [step + s["learning_rate"] * s["weight_decay"] * w for step, w in zip(steps, weights, strict=True)]
        return {"accumulator": means, "preconditioner": squares}, steps

    return StepRule(name, _checked(**hparams), (("accumulator", 0.0), ("preconditioner", first)), rule, counts=True)


def _mean_of_squares(s: State, p: Any, g: Any) -> Any:
    return s["beta_2"] * p + (1 - s["beta_2"]) * g * g


def _towards_squares(s: State, p: Any, g: Any) -> Any:
    difference = p - g * g
    sign = difference / (abs(difference) + 1e-30)  # operators only: there is no sign among them
    return p - (1 - s["beta_2"]) * sign * g * g


def _checked(**hparams: object) -> tuple[tuple[str, float], ...]:
    for name, value in hparams.items():
        if not (is_real(value) and float(value) >= 0):  # type: ignore[arg-type]  # a real number, as was looked
            raise ConfigError("a hyper-parameter is a number of at least 0", path=name, got=repr(value))
    return tuple((name, float(value)) for name, value in hparams.items())  # type: ignore[arg-type]  # as above


def _numpy(dtype: Any) -> Any:
    return np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
