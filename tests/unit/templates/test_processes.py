"""Processes check, when they are made, that their computations fit together."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import hansa as hs
from hansa.core.types import CLIENTS, SERVER, FederatedType, Type
from hansa.errors import TraceError
from hansa.templates import (
    AggregationNotFederatedError,
    AggregationPlacementError,
    AggregationProcess,
    EstimateNotAssignableError,
    EstimationProcess,
    IterativeProcess,
    MeasuredProcess,
    MeasuredProcessOutput,
    TemplateInitFnParamNotEmptyError,
    TemplateNextFnNumArgsError,
    TemplateNotMeasuredProcessOutputError,
    TemplateStateNotAssignableError,
    chain_measured_processes,
    concatenate_measured_processes,
)

F32, I32 = FederatedType(np.float32, SERVER), FederatedType(np.int32, SERVER)
VALUES = FederatedType(np.float32, CLIENTS)


@hs.local_computation
def zero() -> np.int32:
    return np.int32(0)


@hs.local_computation(np.int32, np.int32)
def add(state, value) -> np.int32:  # type: ignore[no-untyped-def]  # typed by the decorator
    return state + value  # type: ignore[no-any-return]


@hs.federated_computation
def nothing() -> Any:
    return hs.federated_value((), hs.SERVER)


@hs.federated_computation
def zero_at_server() -> Any:
    return hs.federated_value(np.float32(0), hs.SERVER)


NOTHING: Type = nothing.type_signature.result


def test_an_iterative_process_gives_its_computations_and_the_type_of_its_state() -> None:
    process = IterativeProcess(zero, add)
    assert str(process.state_type) == "int32"
    assert process.is_stateful
    assert process.next(process.next(process.initialize(), 2), 3) == 5


def test_what_a_next_gives_first_is_the_state_where_it_gives_more() -> None:
    @hs.federated_computation(F32, VALUES)
    def step(state: Any, value: Any) -> Any:
        return state, hs.federated_sum(value)

    process = IterativeProcess(zero_at_server, step)
    assert str(process.state_type) == "float32@SERVER"
    assert process.next(0.0, [1.0, 2.0]) == (0.0, 3.0)


def test_a_struct_that_is_the_whole_argument_is_the_state() -> None:
    @hs.local_computation
    def pair() -> tuple[np.int32, np.float32]:
        return np.int32(1), np.float32(2)

    @hs.local_computation(pair.type_signature.result)
    def same(state) -> tuple[np.int32, np.float32]:  # type: ignore[no-untyped-def]  # typed by the decorator
        return state  # type: ignore[no-any-return]

    assert str(IterativeProcess(pair, same).state_type) == "<int32,float32>"
    with pytest.raises(TemplateStateNotAssignableError, match=r"expected int32; got <int32,float32>"):
        IterativeProcess(pair, same, next_is_multi_arg=True)


def test_the_empty_state_is_no_state() -> None:
    @hs.federated_computation(NOTHING, VALUES)
    def step(state: Any, value: Any) -> Any:
        return state, hs.federated_sum(value)

    assert not IterativeProcess(nothing, step).is_stateful


def test_each_fault_of_an_iterative_process_has_an_error_of_its_own_that_names_both_types() -> None:
    with pytest.raises(TraceError, match="`initialize` is a computation with types"):
        IterativeProcess(lambda: 0, add)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TemplateInitFnParamNotEmptyError, match=r"got \(<state=int32,value=int32> -> int32\)"):
        IterativeProcess(add, add)
    with pytest.raises(TemplateNextFnNumArgsError, match="takes the state"):
        IterativeProcess(zero, zero)

    @hs.local_computation(np.float32, np.int32)
    def takes_another(state, value) -> np.float32:  # type: ignore[no-untyped-def]  # typed by the decorator
        return state + value  # type: ignore[no-any-return]

    with pytest.raises(TemplateStateNotAssignableError, match="does not take what `initialize` gives; expected float32; got int32"):
        IterativeProcess(zero, takes_another)

    @hs.local_computation(np.int32, np.int32)
    def gives_another(state, value) -> np.float32:  # type: ignore[no-untyped-def]  # typed by the decorator
        return np.float32(state + value)

    with pytest.raises(TemplateStateNotAssignableError, match="does not give a state that it takes; expected int32; got float32"):
        IterativeProcess(zero, gives_another)


def doubled() -> MeasuredProcess:
    """At the server: twice the value, and a state that stays zero."""

    @hs.local_computation(np.int32)
    def twice(value) -> np.int32:  # type: ignore[no-untyped-def]  # typed by the decorator
        return value * 2  # type: ignore[no-any-return]

    @hs.federated_computation(F32, I32)
    def step(state: Any, values: Any) -> MeasuredProcessOutput:
        return MeasuredProcessOutput(state, hs.federated_map(twice, values), values)

    return MeasuredProcess(zero_at_server, step)


def test_measured_processes_are_chained_and_put_side_by_side_with_tffs_types() -> None:
    pair = OrderedDict(a=doubled(), b=doubled())
    chain, beside = chain_measured_processes(pair), concatenate_measured_processes(pair)
    states = "<a=float32,b=float32>@SERVER"
    told = "measurements=<a=int32,b=int32>@SERVER"
    assert (
        str(chain.next.type_signature) == f"(<state={states},values=int32@SERVER> -> <state={states},result=int32@SERVER,{told}>)"
    )
    assert str(beside.next.type_signature).startswith(f"(<state={states},values=<a=int32@SERVER,b=int32@SERVER>> -> ")
    assert chain.next(chain.initialize(), 3).result == 12
    assert chain.next(chain.initialize(), 3).measurements == {"a": 3, "b": 6}
    assert beside.next(beside.initialize(), {"a": 3, "b": 4}).result == {"a": 6, "b": 8}


def test_a_chain_whose_links_do_not_fit_is_refused() -> None:
    @hs.federated_computation(F32, F32)
    def step(state: Any, values: Any) -> MeasuredProcessOutput:
        return MeasuredProcessOutput(state, values, values)

    with pytest.raises(TraceError, match=r"expected float32@SERVER; got int32@SERVER"):
        chain_measured_processes(OrderedDict(a=doubled(), b=MeasuredProcess(zero_at_server, step)))
    with pytest.raises(TraceError, match="no processes"):
        chain_measured_processes({})


def test_a_measured_process_gives_its_own_container_and_nothing_that_looks_like_it() -> None:
    @hs.federated_computation(F32, VALUES)
    def step(state: Any, value: Any) -> Any:
        return {"state": state, "result": hs.federated_sum(value), "measurements": state}

    with pytest.raises(TemplateNotMeasuredProcessOutputError, match="no MeasuredProcessOutput"):
        MeasuredProcess(zero_at_server, step)


def test_an_aggregation_is_of_clients_values_with_its_state_and_results_at_the_server() -> None:
    @hs.federated_computation(F32, VALUES, VALUES)
    def weighted(state: Any, value: Any, weight: Any) -> MeasuredProcessOutput:
        return MeasuredProcessOutput(state, hs.federated_mean(value, weight), hs.federated_value((), SERVER))

    @hs.federated_computation(F32, F32)
    def at_server(state: Any, value: Any) -> MeasuredProcessOutput:
        return MeasuredProcessOutput(state, value, state)

    @hs.federated_computation(F32, VALUES)
    def stays_there(state: Any, value: Any) -> MeasuredProcessOutput:
        return MeasuredProcessOutput(state, value, state)

    @hs.federated_computation(F32, VALUES)
    def in_parts(state: Any, value: Any) -> MeasuredProcessOutput:
        return MeasuredProcessOutput(state, hs.federated_sum(value), {"a": state})

    assert AggregationProcess(zero_at_server, weighted).is_weighted
    with pytest.raises(AggregationPlacementError, match=r"`value` of `next` is at the wrong placement; expected .* CLIENTS"):
        AggregationProcess(zero_at_server, at_server)
    with pytest.raises(AggregationPlacementError, match=r"`result` that .* at the wrong placement; .*got \{float32\}@CLIENTS"):
        AggregationProcess(zero_at_server, stays_there)
    with pytest.raises(AggregationNotFederatedError, match=r"tip: .*federated_zip"):
        AggregationProcess(zero_at_server, in_parts)

    @hs.local_computation(np.int32, np.int32)
    def local_step(state, value) -> MeasuredProcessOutput:  # type: ignore[no-untyped-def]  # typed by the decorator
        return MeasuredProcessOutput(state, value, value)

    with pytest.raises(TraceError):
        AggregationProcess(zero, local_step)


def test_an_estimate_is_reported_and_mapped() -> None:
    @hs.federated_computation(F32, VALUES)
    def step(state: Any, value: Any) -> Any:
        del state
        return hs.federated_mean(value)

    @hs.federated_computation(F32)
    def report(state: Any) -> Any:
        return state

    @hs.local_computation(np.float32)
    def half(value) -> np.float32:  # type: ignore[no-untyped-def]  # typed by the decorator
        return value / 2  # type: ignore[no-any-return]

    @hs.local_computation(np.int32)
    def of_integers(value) -> np.int32:  # type: ignore[no-untyped-def]  # typed by the decorator
        return value  # type: ignore[no-any-return]

    process = EstimationProcess(zero_at_server, step, report)
    halved = process.map(half)
    assert halved.report(halved.next(halved.initialize(), [2.0, 4.0])) == 1.5
    with pytest.raises(EstimateNotAssignableError, match=r"got float32@SERVER"):
        process.map(of_integers)
    with pytest.raises(TemplateStateNotAssignableError, match="`report` does not take the state; expected float32; got int32"):
        EstimationProcess(zero, add, half)
    with pytest.raises(TemplateNextFnNumArgsError, match="the state alone"):
        EstimationProcess(zero, add, add)
