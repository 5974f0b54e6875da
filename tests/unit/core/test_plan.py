"""Plans: reads of one stage fused, stages in order, a text for site owners, a hash that is stable."""

import copy
import gc
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.aggregation.mean import Mean
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_collect,
    federated_map,
    federated_mean,
    federated_sum,
)
from hansa.core.plan import plan
from hansa.core.task import FLContext
from hansa.core.types import CLIENTS, SERVER, Clients, FederatedType, Server
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
    assert stage.own == ["x"]


def test_a_plan_prints_what_runs_what_goes_and_what_leaves() -> None:
    assert str(plan(two_reads())) == "\n".join(
        [
            "overall ({float32}@CLIENTS -> float32@SERVER)",
            "stage 1: task 'count'",
            "  receives   nothing",
            "  reads here x",
            f"  runs       {__name__}:count(x) -> <mean=float32,rows=int32,metrics=dict[str, float]>",
            "  leaves     mean: mean, weighted by rows",
            "  reports    the metrics of count",
        ]
    )


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


def test_an_aggregator_is_named_with_its_gate() -> None:
    @federated_computation(FederatedType((np.float32, [2]), CLIENTS))
    def averaged(x: Any) -> Any:
        return federated_aggregate(x, Mean())

    assert "  leaves     x: Mean(), behind the gate" in str(plan(averaged)).splitlines()


def test_the_hash_is_of_the_text_and_the_same_for_the_same_program() -> None:
    first, second = plan(two_reads()), plan(two_reads())
    assert first.hash == second.hash
    assert len(first.hash) == 64

    @federated_computation
    def overall(x: Clients[float]) -> Server[float]:
        return federated_mean(federated_map(count, x).mean)

    assert plan(overall).hash != first.hash


def test_the_hash_knows_no_memory_addresses() -> None:
    def made() -> Computation:
        local = LocalFunction(
            count, "count", (("x", FederatedType(np.float32, SERVER).member),), plan_result(), about=repr(object())
        )

        @federated_computation
        def overall(x: Clients[float]) -> Any:
            return federated_sum(federated_map(local, x).mean)

        made_: Computation = overall
        return made_

    assert "<object object>" in str(plan(made()))
    assert plan(made()).hash == plan(made()).hash


def plan_result() -> Any:
    from hansa.core.types import to_type

    return to_type(Counted)


def test_client_values_may_not_be_a_result() -> None:
    @federated_computation
    def leak(x: Clients[float]) -> Any:
        return {"sum": federated_sum(x), "raw": federated_map(count, x)}

    with pytest.raises(TraceError, match=r"leak returns client values.*federated_collect"):
        plan(leak)


def test_a_computation_without_clients_has_no_stage() -> None:
    def start(*, ctx: FLContext) -> float:
        return float(ctx.seed)

    @federated_computation
    def first() -> Any:
        from hansa.core.intrinsics import federated_eval

        return federated_eval(start, SERVER)

    assert plan(first).stages == ()
    assert str(plan(first)).endswith("start() -> float32")


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
