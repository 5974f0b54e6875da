"""Plans: reads of one stage fused, stages in order, phases that fit together."""

import copy
import gc
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.core.computation import Computation, federated_computation
from hansa.core.intrinsics import (
    federated_broadcast,
    federated_collect,
    federated_map,
    federated_mean,
    federated_sum,
)
from hansa.core.plan import phases, plan
from hansa.core.task import FLContext
from hansa.core.types import CLIENTS, SERVER, Clients, FederatedType, SequenceType, Server, StructType, Type
from hansa.errors import TraceError


class Counted(NamedTuple):
    mean: float
    rows: int
    metrics: dict[str, float]


def count(x: float) -> Counted:
    return Counted(x, 2, {"seen": 1.0})


def centred(mean: float, x: float) -> float:
    return (x - mean) ** 2


def two_reads() -> Computation:
    @federated_computation
    def overall(x: Clients[float]) -> Server[float]:
        step = federated_map(count, x)
        return federated_mean(step.mean, weight=step.rows)

    return overall


def test_all_that_one_stage_reads_leaves_in_one_task_named_after_its_function() -> None:
    (stage,) = plan(two_reads()).stages
    assert stage.task == "count"
    assert [label for label, _ in stage.reads] == ["mean", "rows"]
    assert [apply.fn.name for apply in stage.functions] == ["count"]
    assert [node.name for node in stage.parameters] == ["x"]


def test_what_needs_an_aggregate_is_a_later_stage_and_its_inputs_are_computed_there_again() -> None:
    @federated_computation
    def variance(x: Clients[float]) -> Server[float]:
        mean = federated_mean(federated_map(count, x).mean)
        apart = federated_map(centred, (federated_broadcast(mean), federated_map(count, x).mean))
        return federated_mean(apart)

    first, second = plan(variance).stages
    assert (first.task, second.task) == ("count", "centred")
    assert [label for label, _ in second.goes] == ["mean_mean"]
    assert [apply.fn.name for apply in second.functions] == ["count", "centred"]
    assert [apply.fn.name for apply in second.fresh] == ["centred"]
    assert variance([1.0, 3.0]) == 1.0


def test_one_value_read_by_two_reductions_leaves_once() -> None:
    @federated_computation
    def both(x: Clients[float]) -> Any:
        y = federated_map(count, x).mean
        return federated_sum(y), federated_mean(y), federated_collect(y)

    (stage,) = plan(both).stages
    assert [label for label, _ in stage.reads] == ["mean"]
    assert len(stage.reductions) == 3


def test_values_of_one_name_get_labels_of_their_own() -> None:
    @federated_computation
    def both(x: Clients[float], y: Clients[float]) -> Any:
        return federated_sum(federated_map(count, x).mean), federated_sum(federated_map(count, y).mean)

    (stage,) = plan(both).stages
    assert [label for label, _ in stage.reads] == ["mean", "mean_2"]


def test_each_phase_takes_what_was_given_or_made_before_it() -> None:
    @federated_computation(FederatedType(np.float32, SERVER), FederatedType(SequenceType(np.float32), CLIENTS))
    def averaged(state: Any, data: Any) -> Any:
        trained = federated_map(trained_on, (federated_broadcast(state), data))
        return federated_mean(trained), federated_sum(federated_map(length, data))

    made = plan(averaged)
    (stage,) = made.stages
    assert {name: str(kind) for name, kind in phases(stage)._asdict().items()} == {
        "prepare": "(<state=float32@SERVER> -> <goes=<state=float32@SERVER>,starts=<>>)",
        "broadcast": "(<state=float32@SERVER> -> <state=float32@CLIENTS>)",
        "work": "(<own=<data={float32*}@CLIENTS>,goes=<state=float32@CLIENTS>> -> "
        "<trained_on={float32}@CLIENTS,length={int32}@CLIENTS>)",
        "aggregate": "(<starts=<>,reads=<trained_on={float32}@CLIENTS,length={int32}@CLIENTS>> -> "
        "<mean_trained_on=float32@SERVER,sum_length=int32@SERVER>)",
    }
    assert str(made.report) == "(<mean_trained_on=float32@SERVER,sum_length=int32@SERVER> -> <float32@SERVER,int32@SERVER>)"


def trained_on(state: np.float32, data: Any) -> np.float32:
    return np.float32(state + sum(data))


def length(data: Any) -> np.int32:
    return np.int32(len(data))


@pytest.mark.parametrize("depth", range(4))
def test_the_phases_of_several_stages_fit_together(depth: int) -> None:
    @federated_computation
    def chained(state: Server[float], x: Clients[float]) -> Any:
        value = state
        for _ in range(depth):
            value = federated_mean(federated_map(centred, (federated_broadcast(value), x)))
        return value

    made = plan(chained)
    assert len(made.stages) == depth
    here = {"state"}
    for stage in made.stages:
        kinds = phases(stage)
        prepared, worked = struct(kinds.prepare.result), struct(kinds.work.parameter)
        assert set(struct(kinds.prepare.parameter).fields()) <= here
        assert kinds.broadcast.parameter == prepared["goes"]
        assert worked["goes"] == kinds.broadcast.result
        assert kinds.aggregate.parameter == StructType({"starts": prepared["starts"], "reads": kinds.work.result})
        here |= set(struct(kinds.aggregate.result).fields())
    assert set(struct(made.report.parameter).fields()) <= here
    assert made.report.result == chained.type_signature.result


def struct(kind: Type | None) -> StructType:
    assert isinstance(kind, StructType)
    return kind


def test_client_values_may_not_be_a_result() -> None:
    @federated_computation
    def leak(x: Clients[float]) -> Any:
        return {"sum": federated_sum(x), "raw": federated_map(count, x)}

    with pytest.raises(TraceError, match=r"leak returns client values.*federated_collect.*\[test_plan.py:\d+\]"):
        plan(leak)


def test_a_computation_without_clients_has_no_stage() -> None:
    def start(*, ctx: FLContext) -> float:
        return float(ctx.seed)

    @federated_computation
    def first() -> Any:
        from hansa.core.intrinsics import federated_eval

        return federated_eval(start, SERVER)

    assert plan(first).stages == ()
    assert [each.fn.name for each in plan(first).at_server] == ["start"]


def test_a_plan_is_made_once_and_goes_with_its_computation() -> None:
    def made() -> Computation:
        @federated_computation
        def total(x: Clients[float]) -> Server[float]:
            return federated_sum(x)

        return total

    computation = made()
    assert plan(computation) is plan(computation)
    altered = copy.copy(computation)
    assert plan(altered).computation is altered
    gone = weakref.ref(computation)
    del computation, altered
    gc.collect()
    assert gone() is None
