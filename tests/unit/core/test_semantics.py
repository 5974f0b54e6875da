"""What computations mean when they run: TensorFlow Federated's values, and where it falls short, what is meant."""

import sys
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.core.computation import Computation, Polymorphic, federated_computation
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_eval,
    federated_map,
    federated_map_all_equal,
    federated_max,
    federated_mean,
    federated_min,
    federated_secure_modular_sum,
    federated_secure_sum,
    federated_secure_sum_bitwidth,
    federated_sum,
    federated_value,
    federated_zip,
)
from hansa.core.plan import plan
from hansa.core.types import CLIENTS, SERVER, FederatedType, FunctionType, SequenceType
from hansa.errors import HansaError, TraceError
from hansa.local import local_computation
from hansa.sequences import federated_select, sequence_map, sequence_reduce, sequence_sum

f32, i32 = np.float32, np.int32
FLOATS, INTS = FederatedType(f32, CLIENTS), FederatedType(i32, CLIENTS)


class Pair(NamedTuple):
    a: np.int32
    b: np.float32


@local_computation(f32, i32)
def plus(x: Any, n: Any) -> np.float32:
    return f32(x + n)


@local_computation(f32, f32)
def both(x: Any, y: Any) -> np.float32:
    return f32(x + y)


@local_computation(f32)
def tenfold(x: Any) -> np.float32:
    return f32(x * 10)


@local_computation
def seven() -> np.float32:
    return f32(7)


def fc(fn: Any, *types: object) -> Any:
    return federated_computation(fn, *types)


RESULTS: list[tuple[str, Any, tuple[Any, ...], Any]] = [
    ("mean", fc(lambda x: federated_mean(x), FLOATS), ([68.5, 70.3, 69.8],), f32(69.53333)),
    ("mean of ints", fc(lambda x: federated_mean(x), FLOATS), ([1, 2],), f32(1.5)),
    ("mean of nobody", fc(lambda x: federated_mean(x), FLOATS), ([],), f32(np.nan)),
    ("weighted", fc(lambda x, w: federated_mean(x, w), FLOATS, INTS), ([1, 2, 3], [1, 1, 2]), f32(2.25)),
    ("no weight at all", fc(lambda x, w: federated_mean(x, w), FLOATS, INTS), ([1, 2], [0, 0]), f32(np.nan)),
    ("sum of nobody", fc(lambda x: federated_sum(x), INTS), ([],), i32(0)),
    ("least of nobody", fc(lambda x: federated_min(x), INTS), ([],), i32(2147483647)),
    ("greatest of nobody", fc(lambda x: federated_max(x), INTS), ([],), i32(-2147483648)),
    ("least float of nobody", fc(lambda x: federated_min(x), FLOATS), ([],), np.finfo(f32).max),
    ("a sum wraps", fc(lambda x: federated_sum(x), INTS), ([2**31 - 1, 1],), i32(-(2**31))),
    ("aggregate", fc(lambda x: federated_aggregate(x, 0.0, both, both, tenfold), FLOATS), ([1, 2, 3],), f32(60)),
    ("aggregate nobody", fc(lambda x: federated_aggregate(x, 0.0, both, both, tenfold), FLOATS), ([],), f32(0)),
    ("secure bits", fc(lambda x: federated_secure_sum_bitwidth(x, 8), INTS), ([1, 2],), i32(3)),
    ("secure bits at the edge", fc(lambda x: federated_secure_sum_bitwidth(x, 4), INTS), ([15, 15],), i32(30)),
    ("secure modular", fc(lambda x: federated_secure_modular_sum(x, 8), INTS), ([5, 6],), i32(3)),
    ("secure modular, wide", fc(lambda x: federated_secure_modular_sum(x, 2**31 - 1), INTS), ([2**30] * 3,), i32(2**30 + 1)),
    ("sequence sum", fc(lambda s: sequence_sum(s), SequenceType(i32)), ([1, 2, 3],), i32(6)),
    ("sequence map", fc(lambda s: sequence_map(tenfold, s), SequenceType(f32)), ([1, 2],), [f32(10), f32(20)]),
    ("sequence reduce", fc(lambda s: sequence_reduce(s, 0.5, plus), SequenceType(i32)), ([1, 2],), f32(3.5)),
    ("at each client", fc(lambda x: federated_map(tenfold, x), FLOATS), ([1, 3],), [f32(10), f32(30)]),
    ("equal at all clients", fc(lambda x: federated_broadcast(x), FederatedType(f32, SERVER)).over(2), (4,), f32(4)),
    ("an array as a cohort", fc(lambda x: federated_sum(x), FLOATS), (np.arange(3),), f32(3)),
    ("a tuple as a cohort", fc(lambda x: federated_sum(x), FLOATS), ((1, 2),), f32(3)),
]


@pytest.mark.parametrize(("fn", "given", "expected"), [row[1:] for row in RESULTS], ids=[row[0] for row in RESULTS])
def test_a_computation_gives_the_values_of_tensorflow_federated(fn: Any, given: Any, expected: Any) -> None:
    result = fn(*given)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert np.asarray(result).dtype == np.asarray(expected).dtype


def test_where_no_argument_says_how_many_clients_there_are_the_caller_does() -> None:
    everywhere = fc(lambda: federated_eval(seven, CLIENTS))
    total = fc(lambda: federated_sum(federated_value(10, CLIENTS)))
    assert (everywhere.over(3)(), total.over(3)()) == ([7, 7, 7], 30)
    with pytest.raises(TraceError, match=r"no argument says how many.*over"):
        everywhere()


def test_dict_arguments_are_matched_by_key_and_containers_come_back() -> None:
    identity = fc(lambda x: x, FederatedType({"a": i32, "b": f32}, SERVER))
    assert identity({"b": 2.0, "a": 1}) == {"a": 1, "b": 2.0}
    assert fc(lambda x: x, FederatedType(Pair, SERVER))((1, 2.5)) == Pair(i32(1), f32(2.5))
    assert fc(lambda x, y: [x, (y, {"k": x})], FLOATS, FederatedType(i32, SERVER))([1.0], 2) == [[1.0], (2, {"k": [1.0]})]


WEIGHTS = FederatedType({"weights": [(f32, [2])]}, CLIENTS)
KEYS = FederatedType((i32, [1]), CLIENTS)
ROWS = federated_computation(lambda k: federated_select(k, federated_value(3, SERVER), federated_value(1.0, SERVER), plus), KEYS)
WRONG: list[tuple[Any, tuple[Any, ...], str]] = [
    (
        fc(lambda x: federated_sum(x), WEIGHTS),
        ([{"weights": [[1.0, 2.0]]}, {"weights": [[1.0]]}],),
        r"client 1 -> x/weights\[0\]; expected float32\[2\]; got float64\[1\]",
    ),
    (
        fc(lambda x: federated_sum(x), WEIGHTS),
        ([{"weights": [[1.0, 2.0]]}, {"weights": [np.ones(2)]}],),
        r"client 1 -> x/weights\[0\]; expected float32\[2\]; got float64\[2\]",
    ),
    (fc(lambda x: federated_sum(x), INTS), ([1, 2.5],), "client 1 -> x; expected int32; got float64"),
    (fc(lambda x, y: federated_sum((x, y)), INTS, INTS), ([1], [1, 2]), "different lengths"),
    (fc(lambda x: federated_secure_sum_bitwidth(x, 4), INTS), ([16],), r"expected 0\.\.15"),
    (fc(lambda x: federated_secure_sum(x, 9), INTS), ([-1],), r"expected 0\.\.9"),
    (ROWS, ([[3]],), r"a key that there is not; at path keys\[0\]; expected 0\.\.2; got 3"),
]


@pytest.mark.parametrize(("fn", "given", "message"), WRONG)
def test_a_wrong_argument_is_told_with_the_way_to_it(fn: Any, given: Any, message: str) -> None:
    with pytest.raises(HansaError, match=message):
        fn(*given)


def test_a_computation_is_called_within_another_and_is_traced_once() -> None:
    traced: list[str] = []

    @federated_computation(FLOATS)
    def average(x: Any) -> Any:
        traced.append("average")
        return federated_mean(x)

    @federated_computation(FLOATS, FLOATS)
    def apart(x: Any, y: Any) -> Any:
        return average(x), average(y)

    assert str(apart.type_signature) == "(<x={float32}@CLIENTS,y={float32}@CLIENTS> -> <float32@SERVER,float32@SERVER>)"
    assert apart([1, 3], [5, 7]) == (2.0, 6.0)
    assert apart([1, 3], [5, 7]) == (2.0, 6.0)
    assert traced == ["average"]
    with pytest.raises(TraceError, match=r"average does not take this; at path x; expected \{float32\}@CLIENTS"):
        fc(lambda n: average(n), INTS)


def test_computations_without_placements_run_where_they_are_mapped() -> None:
    @federated_computation(f32, SequenceType(i32))
    def trained(model: Any, rows: Any) -> Any:
        return tenfold(sequence_reduce(rows, model, plus))

    @federated_computation(FederatedType(f32, SERVER), FederatedType(SequenceType(i32), CLIENTS))
    def trained_everywhere(model: Any, rows: Any) -> Any:
        return federated_mean(federated_map(trained, (federated_broadcast(model), rows)))

    assert str(trained.type_signature) == "(<model=float32,rows=int32*> -> float32)"
    assert trained(1.0, [1, 2]) == 40.0
    assert trained_everywhere(1.0, [[1, 2], []]) == 25.0


def test_without_types_a_computation_is_traced_for_what_it_is_called_with() -> None:
    @federated_computation
    def twice(x: Any) -> Any:
        return x, x

    assert isinstance(twice, Polymorphic)
    assert (twice(1), twice(2.5)) == ((1, 1), (2.5, 2.5))
    assert twice.of(FLOATS) is twice.of(FLOATS)
    assert str(fc(lambda x: federated_zip(twice(x)), FLOATS).type_signature) == "({float32}@CLIENTS -> {<float32,float32>}@CLIENTS)"


def test_the_forms_of_the_decorator() -> None:
    assert str(fc(lambda p: p[1], f32, i32).type_signature) == "(<float32,int32> -> int32)"
    assert str(fc(lambda p: p.y, ("x", f32), ("y", i32)).type_signature) == "(<x=float32,y=int32> -> int32)"
    assert str(fc(lambda a, b: a, [("b", i32), ("a", f32)]).type_signature) == "(<b=int32,a=float32> -> float32)"
    assert str(federated_computation(None)(lambda: 10).type_signature) == "( -> int32)"
    assert (
        str(fc(lambda f, x: f(f(x)), FunctionType(f32, f32), f32).type_signature)
        == "(<f=(float32 -> float32),x=float32> -> float32)"
    )
    assert fc(lambda f, x: f(f(x)), FunctionType(f32, f32), f32)(tenfold, 1.0) == 100.0
    assert str(fc(lambda x: tenfold, f32).type_signature) == "(float32 -> (float32 -> float32))"


REFUSED: list[tuple[Any, tuple[object, ...], str]] = [
    (lambda x, y: x, (f32,), "has 2 parameters; expected 2 types; got float32"),
    (lambda a, b: a, ([("c", f32), ("d", f32)],), "the fields are not those"),
    (lambda a, b: a, ([("a", f32), i32],), "the fields are not those"),
    (lambda a=1: a, (i32,), "'a' of <lambda> has a default"),
    (lambda *a: a, (i32,), "variadic positional"),
    (lambda *, a: a, (i32,), "keyword-only"),
    (lambda x: None, (i32,), "returned None"),
    (lambda x: x[-1], (FederatedType([f32], CLIENTS),), "no field -1"),
    (lambda x: x[0:0], (FederatedType([f32], CLIENTS),), "a slice without elements"),
    (lambda x: x(1), (f32,), "only a function is called"),
    (lambda x: tenfold(x), (FLOATS,), "runs at one place.*use federated_map"),
    (lambda x: federated_map_all_equal(tenfold, x), (FLOATS,), "equal at all clients"),
]


@pytest.mark.parametrize(("fn", "types", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_cannot_be_traced_is_told_when_it_is_defined(fn: Any, types: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        fc(fn, *types)


def test_values_are_sliced_measured_and_unpacked_at_every_placement() -> None:
    kind = FederatedType([("a", i32), ("b", f32), ("c", f32)], CLIENTS, True)
    sliced = fc(lambda x: x[1:], kind)
    assert str(sliced.type_signature) == "(<a=int32,b=float32,c=float32>@CLIENTS -> {<b=float32,c=float32>}@CLIENTS)"
    assert str(fc(lambda x: x.a, kind).type_signature).endswith("-> int32@CLIENTS)")
    seen: list[Any] = []

    def look(x: Any) -> Any:
        seen.append((len(x), hasattr(x, "a"), hasattr(x, "zz"), [str(each.type_signature) for each in x]))
        return x

    fc(look, kind)
    assert seen == [(3, True, False, ["int32@CLIENTS", *["float32@CLIENTS"] * 2])]


def test_what_a_typed_function_gives_is_converted_or_refused_with_the_way_to_it() -> None:
    @local_computation(f32)
    def wrong(x: Any) -> Pair:
        return Pair(i32(1), "b")  # type: ignore[arg-type]  # that is what is tested

    assert isinstance(fc(lambda x: federated_map(wrong, x), FLOATS), Computation)
    with pytest.raises(TraceError, match="result of wrong/b; expected float32"):
        fc(lambda x: federated_map(wrong, x), FLOATS)([1.0])


def test_computations_are_called_from_any_thread() -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(RESULTS[0][1]([1.0, 2.0])))
    thread.start()
    thread.join(timeout=30)
    assert results == [1.5]


def calls_of(work: Any, size: int) -> int:
    """How many functions of Python are called: the same on a busy machine."""
    count = 0

    def seen(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(seen)
    try:
        work(size)
    finally:
        sys.setprofile(None)
    return count


def test_a_struct_of_many_tensors_is_traced_unpacked_and_planned_in_linear_time() -> None:
    def unpacked(count: int) -> None:
        kind = FederatedType([(f"t{i}", (f32, [2])) for i in range(count)], CLIENTS)
        assert len(fc(lambda x: federated_mean(list(x)), kind).result.type.member) == count

    def planned(count: int) -> None:
        kind = [(f"t{i}", (f32, [2])) for i in range(count)]

        def body(model: Any, data: Any) -> Any:
            moved = federated_map(lambda own, other: {**own, **other}, (federated_broadcast(model), data))
            return federated_mean(list(data)), federated_sum(moved)

        assert plan(fc(body, FederatedType(kind, SERVER), FederatedType(kind, CLIENTS))).stages

    for work in (unpacked, planned):
        small, large = calls_of(work, 100), calls_of(work, 500)
        assert large < 5.5 * small  # 25 when quadratic
        assert large < 500 * 250  # at about 0.1 us a call 500 tensors take some ms
