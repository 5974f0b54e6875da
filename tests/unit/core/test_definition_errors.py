"""What is ill-typed is told when it is defined: with the user's line, what was expected, and what came. Nothing has run by then."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import hansa as hs
from hansa.errors import TraceError

f32, i32 = np.float32, np.int32
ROWS = {"x": (f32, [None, 12]), "y": (i32, [None])}
PIXELS = {"x": (f32, [None, 784]), "y": (i32, [None])}


class Counted(NamedTuple):
    mean: np.float32
    rows: np.int32


@hs.local_computation(hs.SequenceType(PIXELS), returns=Counted)
def count(batches: Any) -> Any:
    return Counted(f32(0), i32(len(batches)))


def at_the_wrong_placement() -> None:
    @hs.federated_computation(hs.FederatedType(f32, hs.SERVER))
    def average(model: Any) -> Any:
        return hs.federated_mean(model)  # here


def unbroadcast() -> None:
    @hs.federated_computation(hs.FederatedType(f32, hs.SERVER), hs.FederatedType(f32, hs.CLIENTS))
    def shifted(by: Any, x: Any) -> Any:
        return hs.federated_map(lambda b, v: b + v, (by, x))  # here


def unaggregated() -> None:
    @hs.federated_computation  # here
    def everything(readings: hs.Clients[float]) -> hs.Server[float]:
        return readings


def unaggregated_as_a_job() -> None:
    @hs.federated_computation  # here
    def everything(readings: hs.Clients[float]) -> hs.Clients[float]:
        return readings

    hs.Job("everything", everything, data="readings")


def without_that_field() -> None:
    @hs.federated_computation(hs.FederatedType(hs.SequenceType(PIXELS), hs.CLIENTS))
    def average(data: Any) -> Any:
        return hs.federated_mean(hs.federated_map(count, data).weight)  # here


def a_mean_of_integers() -> None:
    @hs.federated_computation(hs.FederatedType({"mean": f32, "rows": i32}, hs.CLIENTS))
    def average(counted: Any) -> Any:
        return hs.federated_mean(counted)  # here


def another_schema() -> None:
    @hs.federated_computation(hs.FederatedType(hs.SequenceType(ROWS), hs.CLIENTS))
    def counted(data: Any) -> Any:
        return hs.federated_sum(hs.federated_map(count, data).rows)  # here


def without_an_argument() -> None:
    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def added(x: Any) -> Any:
        return hs.federated_sum(hs.federated_map(lambda a, b: a + b, x))  # here


def without_an_argument_of_a_local_computation() -> None:
    @hs.local_computation(f32, f32, backend="numpy")
    def plus(a: Any, b: Any = 1) -> Any:
        return a + b

    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def added(x: Any) -> Any:
        return hs.federated_sum(hs.federated_map(plus, {"b": x}))  # here


def a_mean_by_numpy() -> None:
    @hs.federated_computation(hs.FederatedType(f32, hs.CLIENTS))
    def average(x: Any) -> Any:
        return np.mean(x)  # here


def a_power() -> None:
    @hs.federated_computation(hs.FederatedType(f32, hs.SERVER))
    def squared(x: Any) -> Any:
        return x**2  # here


def without_a_placement() -> None:
    @hs.federated_computation
    def average(x: np.float32) -> Any:
        return hs.federated_mean(x)  # here


def a_function_that_does_not_fit() -> None:
    @hs.local_computation((f32, [3]), (f32, [4]), backend="numpy")  # here
    def product(x: Any, y: Any) -> Any:
        return x @ y


WRONG: list[tuple[Callable[[], None], str]] = [
    (at_the_wrong_placement, r"federated_mean takes a value at CLIENTS; expected {float32}@CLIENTS; got float32@SERVER"),
    (unbroadcast, r"values of one placement; got <float32@SERVER,{float32}@CLIENTS> \(broadcast"),
    (unaggregated, r"everything returns something else than it says; expected float32@SERVER; got {float32}@CLIENTS \(aggregate"),
    (unaggregated_as_a_job, r"everything returns client values; got {float32}@CLIENTS \(aggregate them, or say federated_collect"),
    (without_that_field, r"no field 'weight'; expected \['mean', 'rows'\]; got {<mean=float32,rows=int32>}@CLIENTS"),
    (a_mean_of_integers, r"a mean is taken of floating-point values; at path rows; expected float or complex; got int32"),
    (another_schema, r"count does not take this; at path batches; expected <x=float32\[\?,784\],.*; got <x=float32\[\?,12\],"),
    (without_an_argument, r"function takes 2 arguments \(a, b\); got 1"),
    (without_an_argument_of_a_local_computation, r"plus takes 2 arguments \(a, b\); got \['b'\]"),
    (a_mean_by_numpy, r"only described while a computation is traced.*got {float32}@CLIENTS \(put the arithmetic in a function"),
    (a_power, r"only described while a computation is traced.*got float32@SERVER"),
    (without_a_placement, r"takes a value at CLIENTS; got float32, which has no single placement \(annotate the parameter Clients"),
    (a_function_that_does_not_fit, r"product does not run on stand-ins.*got ValueError: matmul"),
]


@pytest.mark.parametrize(("define", "message"), WRONG, ids=[define.__name__ for define, _ in WRONG])
def test_a_fault_is_told_at_its_line_with_expected_and_got(define: Callable[[], None], message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        define()
    found = re.search(rf"\[{Path(__file__).name}:(\d+)\]", str(caught.value))
    assert found is not None
    source, first = inspect.getsourcelines(define)
    assert source[int(found.group(1)) - first].rstrip().endswith("# here")
