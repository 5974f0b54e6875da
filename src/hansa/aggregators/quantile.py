"""Estimates from round to round: a constant, or a quantile of what clients hold (Andrew 2021, https://arxiv.org/abs/1905.03871)."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np

from hansa.aggregators.counts import Count
from hansa.aggregators.leaves import FLOAT32, INT32, local
from hansa.aggregators.means import nothing
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_eval,
    federated_map,
    federated_secure_sum,
    federated_value,
    federated_zip,
)
from hansa.core.round import is_real
from hansa.core.types import CLIENTS, SERVER, FederatedType
from hansa.errors import ConfigError
from hansa.templates import EstimationProcess


def constant(value: float) -> EstimationProcess:
    """The estimate that never changes."""
    here = local("constant", lambda: np.float32(value), {}, FLOAT32, about=repr(value))
    start = federated_computation(nothing)
    state = start.type_signature.result

    def next_fn(state: Any, value: Any) -> Any:  # noqa: ARG001  whatever the clients hold
        return state

    def report(state: Any) -> Any:  # noqa: ARG001  there is nothing in it
        return federated_eval(here, SERVER)

    stepped = federated_computation(next_fn, state, FederatedType(FLOAT32, CLIENTS))
    return EstimationProcess(start, stepped, federated_computation(report, state))


def quantile_estimation(
    initial_estimate: float, target_quantile: float, learning_rate: float, *, secure_estimation: bool = False
) -> EstimationProcess:
    """The quantile of a number that each client holds, one step a round:

        estimate <- estimate * exp(-learning_rate * (share of clients at most the estimate - target_quantile))

    A client says whether its number is at most the estimate, and nothing else. Without noise: this is not differentially private.
    `secure_estimation` counts by secure sums.

    >>> median = quantile_estimation(1.0, 0.5, 0.2)
    >>> state = median.next(median.initialize(), [1.0, 2.0, 3.0, 4.0])
    >>> print(median.report(state))
    1.0512711

    Raises:
        ConfigError: the first estimate or the learning rate is not positive, or the quantile not between 0 and 1; names it.
    """
    positive(initial_estimate, "initial_estimate")
    positive(learning_rate, "learning_rate")
    if not (is_real(target_quantile) and 0 <= target_quantile <= 1):
        raise ConfigError("a quantile is between 0 and 1", path="target_quantile", got=repr(target_quantile))
    first = local("first_estimate", lambda: np.float32(initial_estimate), {}, FLOAT32, about=repr(initial_estimate))
    at_most = local("at_most", lambda value, bound: np.int32(value <= bound), {"value": FLOAT32, "bound": FLOAT32}, INT32)

    def moved(estimate: Any, below: Any, clients: Any) -> Any:
        share = below / clients if clients else target_quantile  # nobody answered: it stays
        return np.float32(estimate * math.exp(-learning_rate * (share - target_quantile)))

    about = f"quantile={target_quantile}, learning_rate={learning_rate}"
    move = local("move_estimate", moved, {"estimate": FLOAT32, "below": INT32, "clients": INT32}, FLOAT32, about=about)

    @federated_computation
    def initialize() -> Any:
        return federated_zip(OrderedDict(current_estimate=federated_eval(first, SERVER)))

    state_type = initialize.type_signature.result

    def next_fn(state: Any, value: Any) -> Any:
        estimate = state["current_estimate"]
        below = federated_map(at_most, (value, federated_broadcast(estimate)))
        told, clients = _counted(below, secure=secure_estimation)
        return federated_zip(OrderedDict(current_estimate=federated_map(move, (estimate, told, clients))))

    def report(state: Any) -> Any:
        return state["current_estimate"]

    stepped = federated_computation(next_fn, state_type, FederatedType(FLOAT32, CLIENTS))
    return EstimationProcess(initialize, stepped, federated_computation(report, state_type))


def estimated(value: float | EstimationProcess, path: str) -> EstimationProcess:
    """The process of a bound: the given one, or that of a number.

    Raises:
        ConfigError: the number is not positive and finite.
    """
    return value if isinstance(value, EstimationProcess) else constant(positive(value, path))


def affine(process: EstimationProcess, *, multiplier: float = 1.0, increment: float = 0.0) -> EstimationProcess:
    """The process whose estimate is `multiplier` times the given one's, plus `increment`."""
    change = lambda estimate: np.float32(estimate * multiplier + increment)  # noqa: E731  named below, as plans print it
    return process.map(local("affine", change, {"estimate": FLOAT32}, FLOAT32, about=f"{multiplier} times, plus {increment}"))


def positive(value: Any, path: str) -> float:
    """The number, which is finite and above 0.

    Raises:
        ConfigError: it is not; names the argument.
    """
    if not (is_real(value) and math.isfinite(value) and value > 0):
        raise ConfigError(f"{path} is a finite number > 0", path=path, got=repr(value))
    return float(value)


def _counted(yes: Any, *, secure: bool) -> tuple[Any, Any]:
    """How many clients said yes, and how many answered."""
    if not secure:
        return federated_aggregate(yes, Count(positive=True)), federated_aggregate(yes, Count())
    return federated_secure_sum(yes, 1), federated_secure_sum(federated_value(np.int32(1), CLIENTS), 1)
