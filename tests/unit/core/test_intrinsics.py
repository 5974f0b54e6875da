"""The federated operators: types, placement errors at the user's line, and TFF's values at the edges."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hansa.aggregation.mean import Mean
from hansa.aggregation.sums import Sum
from hansa.core.computation import Computation, federated_computation
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_collect,
    federated_eval,
    federated_map,
    federated_mean,
    federated_sum,
    federated_value,
    federated_zip,
)
from hansa.core.types import CLIENTS, SERVER, FederatedType, SequenceType
from hansa.errors import TraceError
from hansa.local import local_computation

i32, f32 = np.int32, np.float32
ANYTHING: Any = 3
ANYTHINGS: Any = (0.0, round)


def at(member: object, placement: Any = CLIENTS, all_equal: bool | None = None) -> FederatedType:
    return FederatedType(member, placement, all_equal)


def comp(fn: Callable[..., Any], *types: object) -> Computation:
    made: Computation = federated_computation(fn, *types)
    return made


@local_computation(f32)
def rounded(x: Any) -> np.int32:
    return i32(round(float(x)))


@local_computation(f32, i32)
def weighed(x: Any, n: Any) -> np.float32:
    return f32(x * n)


SIGNATURES: list[tuple[Computation, str]] = [
    (comp(lambda x: federated_map(rounded, x), at(f32)), "({float32}@CLIENTS -> {int32}@CLIENTS)"),
    (comp(lambda x: federated_map(rounded, x), at(f32, CLIENTS, True)), "(float32@CLIENTS -> {int32}@CLIENTS)"),
    (comp(lambda x: federated_map(rounded, x), at(f32, SERVER)), "(float32@SERVER -> int32@SERVER)"),
    (
        comp(lambda x, y: federated_map(weighed, (x, y)), at(f32), at(i32)),
        "(<x={float32}@CLIENTS,y={int32}@CLIENTS> -> {float32}@CLIENTS)",
    ),
    (
        comp(lambda x, y: federated_map(weighed, {"n": y, "x": x}), at(f32), at(i32)),
        "(<x={float32}@CLIENTS,y={int32}@CLIENTS> -> {float32}@CLIENTS)",
    ),
    (comp(lambda x: federated_map(weighed, x), at((f32, i32))), "({<float32,int32>}@CLIENTS -> {float32}@CLIENTS)"),
    (comp(lambda x: federated_mean(x), at(f32)), "({float32}@CLIENTS -> float32@SERVER)"),
    (
        comp(lambda x: federated_mean(x), at(((f32, [2]), [("a", np.float64)]))),
        "({<float32[2],<a=float64>>}@CLIENTS -> <float32[2],<a=float64>>@SERVER)",
    ),
    (comp(lambda x: federated_mean(x), at(np.complex64)), "({complex64}@CLIENTS -> complex64@SERVER)"),
    (comp(lambda x: federated_mean(x), at(ml_dtypes.bfloat16)), "({bfloat16}@CLIENTS -> bfloat16@SERVER)"),
    (
        comp(lambda x, y: federated_mean((x, y)), at(f32), at(f32)),
        "(<x={float32}@CLIENTS,y={float32}@CLIENTS> -> <float32,float32>@SERVER)",
    ),
    (
        comp(lambda x, w: federated_mean(x, weight=w), at(f32), at(i32)),
        "(<x={float32}@CLIENTS,w={int32}@CLIENTS> -> float32@SERVER)",
    ),
    (comp(lambda x: federated_sum(x), at(i32)), "({int32}@CLIENTS -> int32@SERVER)"),
    (comp(lambda x: federated_broadcast(x), at(f32, SERVER)), "(float32@SERVER -> float32@CLIENTS)"),
    (
        comp(lambda x, y: federated_broadcast((x, y)), at(f32, SERVER), at(i32, SERVER)),
        "(<x=float32@SERVER,y=int32@SERVER> -> <float32,int32>@CLIENTS)",
    ),
    (comp(lambda x: federated_collect(x), at(f32)), "({float32}@CLIENTS -> float32*@SERVER)"),
    (
        comp(lambda x, y: federated_zip({"a": x, "b": y}), at(f32), at(i32)),
        "(<x={float32}@CLIENTS,y={int32}@CLIENTS> -> {<a=float32,b=int32>}@CLIENTS)",
    ),
    (comp(lambda x: federated_aggregate(x, Mean()), at(f32)), "({float32}@CLIENTS -> float32@SERVER)"),
]


@pytest.mark.parametrize(("computation", "signature"), SIGNATURES, ids=[text for _, text in SIGNATURES])
def test_signatures_are_those_of_tensorflow_federated(computation: Computation, signature: str) -> None:
    assert str(computation.type_signature) == signature


REFUSED: list[tuple[str, Callable[..., Any], tuple[object, ...], str]] = [
    ("mean of integers", lambda x: federated_mean(x), (at(i32),), "a mean is taken of floating-point values; got|floating-point"),
    ("mean of booleans", lambda x: federated_mean(x), (at(np.bool_),), "floating-point"),
    ("mean of strings", lambda x: federated_mean(x), (at(np.str_),), "floating-point"),
    ("mean of a struct with an integer", lambda x: federated_mean(x), (at((f32, i32)),), "floating-point"),
    ("mean at the server", lambda x: federated_mean(x), (at(f32, SERVER),), "at CLIENTS.*got float32@SERVER"),
    ("vector weight", lambda x, w: federated_mean(x, weight=w), (at(f32), at((f32, [2]))), "a weight is one integer or float"),
    ("boolean weight", lambda x, w: federated_mean(x, weight=w), (at(f32), at(np.bool_)), "a weight is one"),
    ("complex weight", lambda x, w: federated_mean(x, weight=w), (at(f32), at(np.complex64)), "a weight is one"),
    ("struct weight", lambda x, w: federated_mean(x, weight=w), (at(f32), at([f32])), "a weight is one"),
    ("weight at the server", lambda x, w: federated_mean(x, weight=w), (at(f32), at(f32, SERVER)), "the weight.*CLIENTS"),
    ("constant weight", lambda x: federated_mean(x, weight=1.0), (at(f32),), "no single placement"),
    ("sum of booleans", lambda x: federated_sum(x), (at(np.bool_),), "a sum is taken of numbers"),
    ("sum of strings", lambda x: federated_sum(x), (at(np.str_),), "a sum is taken of numbers"),
    ("sum of a sequence", lambda x: federated_sum(x), (at(SequenceType(f32)),), "a sum is taken of numbers"),
    ("sum at the server", lambda x: federated_sum(x), (at(i32, SERVER),), "at CLIENTS"),
    ("broadcast of client values", lambda x: federated_broadcast(x), (at(f32),), "at SERVER"),
    ("collect at the server", lambda x: federated_collect(x), (at(f32, SERVER),), "at CLIENTS"),
    ("map of another type", lambda x: federated_map(rounded, x), (at(i32),), "path x; expected float32; got int32"),
    ("map over two placements", lambda x, y: federated_map(weighed, (x, y)), (at(f32), at(i32, SERVER)), "one placement"),
    ("map of a constant", lambda x: federated_map(rounded, 1.0), (at(f32),), "one placement"),
    ("map with too many arguments", lambda x, y: federated_map(rounded, (x, y)), (at(f32), at(f32)), "takes 1 arguments"),
    ("map with another keyword", lambda x: federated_map(rounded, {"z": x}), (at(f32),), "takes 1 arguments"),
    ("map of no function", lambda x: federated_map(x, rounded), (at(f32),), "not a function|one placement"),
    ("zip of two placements", lambda x, y: federated_zip((x, y)), (at(f32), at(f32, SERVER)), "one placement"),
    ("zip of no struct", lambda x: federated_zip(x), (at(f32),), "a struct of values"),
    ("eval with parameters", lambda x: federated_eval(rounded, SERVER), (at(f32),), "without parameters"),
    ("value of a value", lambda x: federated_value(x, SERVER), (at(f32),), "places what has no placement"),
    ("no aggregator", lambda x: federated_aggregate(x, ANYTHING), (at(f32),), "not an Aggregator"),
    ("half an aggregate", lambda x: federated_aggregate(x, *ANYTHINGS), (at(f32),), "zero, accumulate, merge and report"),
]


@pytest.mark.parametrize(("fn", "types", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_does_not_fit_is_refused_at_the_users_line(fn: Any, types: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        comp(fn, *types)
    assert f"[test_intrinsics.py:{fn.__code__.co_firstlineno}]" in str(caught.value)


def test_the_mean_has_tffs_values_at_the_edges() -> None:
    mean = comp(lambda x: federated_mean(x), at(f32))
    assert mean([68.5, 70.3, 69.8]) == pytest.approx(69.53333, rel=1e-6)
    assert np.isnan(mean([]))
    weighted = comp(lambda x, w: federated_mean(x, weight=w), at(f32), at(f32))
    assert weighted([1.0, 2.0, 3.0], [1.0, 1.0, 2.0]) == 2.25
    assert np.isnan(weighted([1.0, 2.0], [0.0, 0.0]))


def test_the_sum_has_tffs_values_at_the_edges() -> None:
    ints = comp(lambda x: federated_sum(x), at(i32))
    assert ints([]) == 0
    assert ints([2**31 - 1, 1]) == -(2**31)
    assert ints([1, 2]).dtype == i32
    floats = comp(lambda x: federated_sum(x), at(np.float16))
    assert floats([np.float16(0.1)] * 1000) == np.float16(1000 * float(np.float16(0.1)))  # added wide, rounded once


def test_a_mean_of_half_precision_is_taken_wide() -> None:
    mean = comp(lambda x: federated_mean(x), at(np.float16))
    assert mean([np.float16(0.1)] * 1000) == np.float16(0.1)
    bfloat = comp(lambda x: federated_mean(x), at(ml_dtypes.bfloat16))
    assert float(bfloat([ml_dtypes.bfloat16(0.1)] * 1000)) == float(ml_dtypes.bfloat16(0.1))


def test_aggregate_has_tffs_values() -> None:
    def plus(a: float, b: float) -> float:
        return a + b

    def tenfold(a: float) -> float:
        return 10 * a

    aggregate = comp(lambda x: federated_aggregate(x, 0.0, plus, plus, tenfold), at(f32))
    assert aggregate([1.0, 2.0, 3.0]) == 60.0
    assert aggregate([]) == 0.0


def test_structs_are_reduced_leaf_by_leaf_and_keep_their_container() -> None:
    total = comp(lambda x: federated_sum(x), at([(f32, [2]), (f32, [3])]))
    result = total([[[1, 2], [3, 4, 5]], [[1, 1], [3, 0, -5]]])
    assert [np.asarray(part).tolist() for part in result] == [[2.0, 3.0], [6.0, 4.0, 0.0]]
    assert isinstance(result, list)


def test_a_value_and_an_eval_at_the_server() -> None:
    assert comp(lambda: federated_value(3.5, SERVER))() == 3.5

    def seven() -> int:
        return 7

    assert comp(lambda: federated_eval(seven, SERVER))() == 7


def test_collect_gives_each_clients_value_in_order() -> None:
    assert comp(lambda x: federated_collect(x), at(f32))([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]


def test_an_aggregator_takes_trees_and_single_arrays() -> None:
    assert comp(lambda x: federated_aggregate(x, Sum()), at((f32, [2])))([[1, 2], [3, 4]]).tolist() == [4.0, 6.0]
    weighted = comp(lambda x, w: federated_aggregate(x, Mean(), weight=w), at([("a", f32)]), at(i32))
    assert weighted([{"a": 1.0}, {"a": 4.0}], [1, 2])["a"] == 3.0
