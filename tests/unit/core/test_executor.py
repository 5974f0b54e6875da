"""Executors: a task's name leads to functions; what they read leaves, and nothing else."""

from typing import NamedTuple

import numpy as np
import pytest

from hansa.core.computation import federated_computation
from hansa.core.executor import FunctionExecutor
from hansa.core.intrinsics import federated_broadcast, federated_map, federated_sum
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.types import Clients, Server
from hansa.errors import ConfigError, RunError


class Found(NamedTuple):
    total: float
    secret: float
    metrics: dict[str, float]


def add(by: float, x: float) -> Found:
    return Found(by + x, 42.0, {"rows": 1})


@federated_computation
def shifted(by: Server[float], x: Clients[float]) -> Server[float]:
    return federated_sum(federated_map(add, (federated_broadcast(by), x)).total)


def context(value: float, slot: int = 0) -> FLContext:
    return FLContext(site=f"s{slot}", slot=slot, load=lambda label: {"x": value}[label])


def test_a_reply_holds_what_the_stage_reads_and_the_functions_metrics() -> None:
    executor = FunctionExecutor([shifted])
    assert executor.tasks == ["add"]
    reply = executor.execute("add", Shareable({"by": np.asarray(10.0)}), context(5.0), Signal())
    assert {name: float(np.asarray(leaf)) for name, leaf in reply.body.items()} == {"total": 15.0}
    assert reply.metrics == {"rows": 1.0}


def test_an_unknown_task_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(RunError, match=r"task 'sub'.*\['add'\]"):
        FunctionExecutor([shifted]).execute("sub", Shareable(), context(1.0), Signal())


def test_two_stages_of_one_name_are_refused() -> None:
    @federated_computation
    def other(by: Server[float], x: Clients[float]) -> Server[float]:
        return federated_sum(federated_map(add, (federated_broadcast(by), x)).secret)

    with pytest.raises(ConfigError, match="two stages of a job have one task name"):
        FunctionExecutor([shifted, other])


def test_functions_get_the_context_and_the_signal_they_ask_for() -> None:
    def where(x: float, *, ctx: FLContext, abort: Signal) -> float:
        abort.check()
        return x + ctx.slot

    @federated_computation
    def places(x: Clients[float]) -> Server[float]:
        return federated_sum(federated_map(where, x))

    executor = FunctionExecutor([places])
    assert float(np.asarray(executor.execute("where", Shareable(), context(1.0, 3), Signal()).body["where"])) == 4.0
    stopped = Signal()
    stopped.trigger("enough")
    with pytest.raises(RunError, match="enough"):
        executor.execute("where", Shareable(), context(1.0), stopped)


def test_who_waits_for_something_else_is_called_when_a_stop_is_asked_for() -> None:
    signal, told = Signal(), list[str]()
    signal.calls.append(lambda: told.append(signal.reason))
    signal.trigger("enough")
    signal.trigger("again")
    assert told == ["enough"]
