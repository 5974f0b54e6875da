"""To a type checker, Server[T] and Clients[T] are T: what a function returns is what the next one takes."""

from typing import NamedTuple

import numpy as np

import hansa as hs
from hansa.core.protocols import Dataset


class Counted(NamedTuple):
    """A client's mean and its number of rows."""

    mean: float
    rows: int


def count(data: Dataset) -> Counted:
    return Counted(float(data.y.mean()), len(data))


@hs.federated_computation
def overall_mean(data: hs.Clients[Dataset]) -> hs.Server[float]:
    local = hs.federated_map(count, data)
    mean: float = hs.federated_mean(local.mean, weight=local.rows)
    return mean


@hs.federated_computation(hs.FederatedType(np.float32, hs.CLIENTS))
def average(readings: float) -> float:
    return hs.federated_mean(readings)


class Doubler(hs.Executor):
    """Answers every task with its metrics doubled."""

    def execute(self, task_name: str, shareable: hs.Shareable, fl_ctx: hs.FLContext, abort_signal: hs.Signal) -> hs.Shareable:
        abort_signal.check()
        return hs.Shareable(metrics={name: 2 * value for name, value in shareable.metrics.items()})


signature: hs.FunctionType = average.type_signature
