"""Vectorised clients: a function with a batched form takes many of them in one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hansa.core.computation import federated_computation
from hansa.core.executor import FunctionExecutor
from hansa.core.intrinsics import federated_broadcast, federated_map, federated_sum
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.types import CLIENTS, SERVER, Clients, FederatedType, Server
from hansa.errors import ConfigError
from hansa.local import local_computation
from hansa.simulation.vectorised import execute_many


def plain(x: float) -> float:
    return x


@federated_computation
def scaled_one_by_one(x: Clients[float]) -> Server[float]:
    return federated_sum(federated_map(plain, x))


def context(value: float, slot: int = 0) -> FLContext:
    return FLContext(slot=slot, load=lambda _: value)


def batched() -> FunctionExecutor:
    def many(rows: Sequence[tuple[float, float]], contexts: Sequence[FLContext], abort: Signal) -> list[float]:
        return [by * x for by, x in rows]

    @local_computation(np.float32, np.float32, many=many)
    def times(by: Any, x: Any) -> np.float32:
        raise AssertionError("the batched form is used")

    @federated_computation(FederatedType(np.float32, SERVER), FederatedType(np.float32, CLIENTS))
    def scaled(by: Any, x: Any) -> Any:
        return federated_sum(federated_map(times, {"x": x, "by": federated_broadcast(by)}))

    return FunctionExecutor([scaled])


def test_many_clients_are_computed_in_one_call_where_there_is_a_batched_form() -> None:
    contexts = [context(1.0, 0), context(2.0, 1)]
    replies = execute_many(batched(), "times", Shareable({"by": np.asarray(3.0, np.float32)}), contexts, Signal())
    assert [float(np.asarray(reply.body["times"])) for reply in replies] == [3.0, 6.0]


def test_without_a_batched_form_nothing_is_looped_in_silence() -> None:
    with pytest.raises(ConfigError, match=r"plain has no batched form.*engine loop"):
        execute_many(FunctionExecutor([scaled_one_by_one]), "plain", Shareable({"by": np.asarray(1.0)}), [context(1.0)], Signal())
