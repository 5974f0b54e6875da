"""Tracing: once, with types from annotations or given, and errors at the user's line."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.core.computation import Computation, as_local, federated_computation
from hansa.core.graph import Value
from hansa.core.intrinsics import federated_broadcast, federated_map, federated_mean, federated_sum, federated_value, federated_zip
from hansa.core.task import FLContext
from hansa.core.types import CLIENTS, SERVER, Clients, FederatedType, SequenceType, Server
from hansa.errors import TraceError
from hansa.local import local_computation

FLOATS = FederatedType(np.float32, CLIENTS)
STATE = FederatedType(np.float32, SERVER)


class Counted(NamedTuple):
    mean: float
    rows: int


def line_of(error: pytest.ExceptionInfo[TraceError]) -> str:
    """The text of the line that the error's hint names."""
    name, _, number = str(error.value).rpartition("[")[2].rstrip(")").rstrip("]").partition(":")
    assert name == "test_computation.py"
    return Path(__file__).read_text(encoding="utf-8").splitlines()[int(number) - 1]


def test_a_function_is_traced_once_and_sees_values() -> None:
    seen: list[object] = []

    @federated_computation(FLOATS)
    def average(readings: Any) -> Any:
        seen.append(readings)
        return federated_mean(readings)

    assert [average([1.0, 2.0]), average([4.0])] == [1.5, 4.0]
    assert len(seen) == 1
    assert isinstance(seen[0], Value)


def test_annotations_and_given_types_make_the_same_signature() -> None:
    @federated_computation
    def annotated(readings: Clients[float]) -> Server[float]:
        return federated_mean(readings)

    @federated_computation(FLOATS)
    def given(readings: Any) -> Any:
        return federated_mean(readings)

    assert str(annotated.type_signature) == str(given.type_signature) == "({float32}@CLIENTS -> float32@SERVER)"


def test_several_parameters_are_a_struct_named_after_them() -> None:
    @federated_computation(STATE, FLOATS)
    def step(state: Any, data: Any) -> Any:
        return federated_map(lambda a, b: a + b, (state, federated_sum(data)))

    assert str(step.type_signature).startswith("(<state=float32@SERVER,data={float32}@CLIENTS> -> ")
    assert step(1.0, [2.0, 3.0]) == step(data=[2.0, 3.0], state=1.0) == 6.0


def test_one_struct_type_is_spread_over_the_parameters_by_name() -> None:
    @federated_computation([("b", FLOATS), ("a", STATE)])
    def second(a: Any, b: Any) -> Any:
        return a

    assert str(second.type_signature) == "(<b={float32}@CLIENTS,a=float32@SERVER> -> float32@SERVER)"

    @local_computation([("b", np.float32), ("a", np.int32)])
    def left(a: Any, b: Any) -> np.int32:
        return np.int32(a)

    assert str(left.type_signature) == "(<b=float32,a=int32> -> int32)"
    assert left(0.5, 7) == left(a=7, b=0.5) == 7


def test_without_parameters_the_signature_takes_nothing() -> None:
    @federated_computation
    def nothing() -> Any:
        from hansa.core.intrinsics import federated_value

        return federated_value(3.0, SERVER)

    assert str(nothing.type_signature).startswith("( -> ")
    assert nothing() == 3.0


def test_results_keep_their_containers() -> None:
    @federated_computation(FLOATS, FederatedType(np.int32, CLIENTS))
    def both(x: Any, w: Any) -> Any:
        return {"mean": federated_mean(x, weight=w), "pair": (federated_sum(w), federated_sum(x))}

    assert both([1.0, 3.0], [1, 3]) == {"mean": 2.5, "pair": (4, 4.0)}


def test_fields_of_a_clients_result_are_reached_by_name_place_and_unpacking() -> None:
    def count(x: float) -> Counted:
        return Counted(x, 2)

    @federated_computation(FLOATS)
    def summed(x: Any) -> Any:
        step = federated_map(count, x)
        mean, rows = step
        return federated_sum(step.mean), federated_sum(step[0]), federated_sum(mean), federated_sum(rows), len(step) + 0

    assert summed([1.0, 2.0]) == (3.0, 3.0, 3.0, 4, 2)


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: x == x,
        lambda x: bool(x),
        lambda x: x < 2,
        lambda x: x[0],
        lambda x: x.mean,
        lambda x: len(x),
        lambda x: {x: 1},
    ],
)
def test_a_value_cannot_be_computed_with_while_tracing(use: Any) -> None:
    with pytest.raises(TypeError):

        @federated_computation(FLOATS)
        def wrong(x: Any) -> Any:
            return federated_mean(use(x))


def test_a_missing_field_names_those_there_are_and_the_users_line() -> None:
    def count(x: float) -> Counted:
        return Counted(x, 2)

    with pytest.raises(TraceError, match=r"no field 'weight'.*\['mean', 'rows'\]") as caught:

        @federated_computation(FLOATS)
        def wrong(x: Any) -> Any:
            return federated_mean(federated_map(count, x).weight)  # type: ignore[attr-defined]  # the line to be named

    assert "# type: ignore[attr-defined]" in line_of(caught)


def test_a_wrong_number_of_types_is_refused() -> None:
    with pytest.raises(TraceError, match="2 parameters; expected 2 types; got float32@SERVER"):
        federated_computation(lambda a, b: a, STATE)


def test_a_parameter_without_placement_is_refused() -> None:
    with pytest.raises(TraceError, match="no single placement"):

        @federated_computation(np.float32)
        def wrong(x: Any) -> Any:
            return federated_mean(x)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "needs x"),
        (([1.0], [2.0]), {}, "takes 1 argument"),
        (([1.0],), {"x": [1.0]}, "no free parameter 'x'"),
        (([1.0],), {"y": [1.0]}, "no free parameter 'y'"),
        ((1.0,), {}, "a sequence with one entry a client; at path x"),
        (([1.0, "a"],), {}, "path client 1 -> x; expected float32"),
        (([[1.0]],), {}, r"another shape; at path client 0 -> x; expected float32; got float64\[1\]"),
    ],
)
def test_a_call_with_wrong_arguments_names_the_argument_and_the_client(args: Any, kwargs: Any, message: str) -> None:
    @federated_computation(FLOATS)
    def average(x: Any) -> Any:
        return federated_mean(x)

    with pytest.raises(TraceError, match=message):
        average(*args, **kwargs)


def test_client_arguments_of_different_lengths_are_refused() -> None:
    @federated_computation(FLOATS, FLOATS)
    def both(x: Any, y: Any) -> Any:
        return federated_mean(x), federated_mean(y)

    with pytest.raises(TraceError, match="different lengths"):
        both([1.0], [1.0, 2.0])


def test_cohorts_may_be_lists_tuples_arrays_and_generators() -> None:
    @federated_computation(FLOATS)
    def average(x: Any) -> Any:
        return federated_mean(x)

    for cohort in ([1, 3], (1.0, 3.0), np.array([1.0, 3.0]), (float(n) for n in (1, 3))):
        assert average(cohort) == 2.0
    assert average([68.5, 70.3, 69.8]).dtype == np.float32


def test_client_results_come_back_as_a_list_when_called_directly() -> None:
    @federated_computation(FLOATS)
    def halves(x: Any) -> Any:
        return federated_map(lambda v: v / 2, x)

    assert halves([1.0, 3.0]) == [0.5, 1.5]


def test_a_local_computation_has_a_type_and_converts_what_it_is_given() -> None:
    @local_computation(np.float32, np.int32)
    def scaled(x: Any, n: Any) -> np.float32:
        return np.float32(x * n)

    assert str(scaled.type_signature) == "(<x=float32,n=int32> -> float32)"
    assert scaled(1, 3) == scaled(n=3, x=1.0) == 3.0
    assert scaled(1, 3).dtype == np.float32
    with pytest.raises(TraceError, match="path n; expected int32"):
        scaled(1.0, 2.5)


def test_a_local_computation_of_a_sequence() -> None:
    @local_computation(SequenceType(np.float32))
    def mean(readings: Any) -> np.float32:
        return np.mean(np.asarray(readings), dtype=np.float32)

    assert str(mean.type_signature) == "(float32* -> float32)"
    assert mean([68.5, 70.3, 69.8]) == pytest.approx(69.53333)


def test_a_function_may_ask_for_its_context() -> None:
    def seed_of(x: float, *, ctx: FLContext) -> float:
        return x + ctx.slot

    @federated_computation(FLOATS)
    def slots(x: Any) -> Any:
        return federated_map(seed_of, x)

    assert slots([10.0, 10.0]) == [10.0, 11.0]


def test_what_is_no_local_function_is_refused() -> None:
    @federated_computation(FLOATS)
    def average(x: Any) -> Any:
        return federated_mean(x)

    with pytest.raises(TraceError, match="cannot run at one place"):
        as_local(average)
    with pytest.raises(TraceError, match="not a function"):
        as_local(3)


def test_a_broadcast_reaches_every_client() -> None:
    @federated_computation(STATE, FLOATS)
    def shifted(by: Any, x: Any) -> Any:
        return federated_sum(federated_map(lambda b, v: b + v, (federated_broadcast(by), x)))

    assert isinstance(shifted, Computation)
    assert shifted(10.0, [1.0, 2.0, 3.0]) == 36.0
    assert repr(shifted).startswith("<federated computation shifted (<by=float32@SERVER,x={float32}@CLIENTS> -> ")


def test_a_computation_without_arguments_becomes_part_of_the_one_that_calls_it() -> None:
    @federated_computation
    def start() -> Any:
        return federated_value(np.float32(2), SERVER)

    @federated_computation(FederatedType(np.float32, SERVER))
    def follow(value: Any) -> Any:
        return federated_zip((start(), value))

    assert str(follow.type_signature) == "(float32@SERVER -> <float32,float32>@SERVER)"
    assert follow(3.0) == (2.0, 3.0)
