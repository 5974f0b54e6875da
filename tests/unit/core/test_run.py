"""One round over a federation: stages, the gate's expectations, who took part, and later stages."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.aggregation.exact import ExactMean, FixedPoint
from hansa.aggregation.mean import Mean
from hansa.core.computation import federated_computation
from hansa.core.executor import FunctionExecutor
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_map,
    federated_mean,
    federated_secure_modular_sum,
    federated_sum,
)
from hansa.core.protocols import Replies
from hansa.core.round import Policy
from hansa.core.run import Unmet, run
from hansa.core.task import Failure, FLContext, Reply, Shareable, Signal, Task
from hansa.core.trees import Spec, Tree
from hansa.core.types import CLIENTS, Clients, FederatedType, Server
from hansa.errors import QuorumError, SpecError, TraceError, UpdateError


class Step(NamedTuple):
    delta: Tree
    weight: int
    metrics: dict[str, float]


def step_of(model: Tree, x: float) -> Step:
    return Step({"w": np.full(2, x)}, 2, {"loss": x})


@federated_computation
def one_round(model: Server[Tree], x: Clients[float]) -> Server[Tree]:
    step = federated_map(step_of, (federated_broadcast(model), x))
    return federated_aggregate(step.delta, Mean(), weight=step.weight, like=model, weight_cap=5.0)


class Sites:
    """Sites with one number each; those in `drops` never answer. Every task that was asked is written down."""

    seed = 3

    def __init__(self, values: list[float], computation: Any, drops: tuple[int, ...] = ()) -> None:
        self.values, self.drops = values, drops
        self.sites = [f"s{k}" for k in range(len(values))]
        self.executor = FunctionExecutor([computation])
        self.asked: list[tuple[Task, tuple[int, ...], Policy]] = []
        self.dropped: list[int] = []

    def task(self, task: Task, slots: Any, policy: Policy) -> Replies:
        self.asked.append((task, tuple(slots), policy))
        return Answers(self, task, slots)

    def checkpoint(self, round: int, state: Tree, notes: Any) -> None: ...  # noqa: A002
    def restore(self) -> None: ...
    def report(self, record: Any) -> None: ...


class Answers:
    refused: tuple[Reply, ...] = ()

    def __init__(self, sites: Sites, task: Task, slots: Any) -> None:
        gone = [Reply(k, sites.sites[k], Shareable(), Failure("lost", "gone")) for k in slots if k in sites.drops]
        self.sites, self.asked, self.slots, self.lost = sites, task, slots, tuple(gone)

    def drop(self, reply: Reply) -> None:
        self.sites.dropped.append(reply.slot)

    def __iter__(self) -> Any:
        for slot in self.slots:
            if slot not in self.sites.drops:
                ctx = FLContext(site=self.sites.sites[slot], slot=slot, load=lambda _, slot=slot: self.sites.values[slot])  # type: ignore[misc]
                yield Reply(slot, ctx.site, self.sites.executor.execute(self.asked.name, self.asked.shareable, ctx, Signal()))


MODEL: Tree = {"w": np.zeros(2)}


def test_a_round_gives_the_result_and_who_took_part() -> None:
    sites = Sites([1.0, 3.0, 8.0], one_round, drops=(2,))
    done = run(one_round, sites, MODEL, round=4)
    assert np.asarray(done.result["w"]).tolist() == [2.0, 2.0]
    assert done.admitted == (0, 1)
    assert done.metrics == {"s0": {"loss": 1.0}, "s1": {"loss": 3.0}}
    assert [reply.site for reply in done.lost] == ["s2"]


def test_a_task_carries_the_broadcast_the_round_and_what_is_expected_back() -> None:
    sites = Sites([1.0], one_round)
    run(one_round, sites, MODEL, round=4, policy=Policy(quorum=1, deadline_s=9.0))
    ((task, slots, policy),) = sites.asked
    assert (task.name, task.round, slots, policy.deadline_s) == ("step_of", 4, (0,), 9.0)
    assert list(task.shareable.body) == ["model"]
    (expect,) = task.expect
    assert (expect.path, expect.spec, expect.weight, expect.weight_cap) == ("delta", Spec.of(MODEL), "weight", 5.0)


@pytest.mark.parametrize(("values", "rest"), [([2**30] * 3, 2**30 + 1), ([-1, 0, 0], 2**31 - 2)])
def test_a_modular_sum_does_not_wrap_on_the_way(values: list[int], rest: int) -> None:
    @federated_computation(FederatedType({"n": np.int32}, CLIENTS))
    def total(x: Any) -> Any:
        return federated_secure_modular_sum(x, 2**31 - 1)

    held: Any = [{"n": np.int32(value)} for value in values]
    assert run(total, Sites(held, total)).result == {"n": rest} == total(held)


def test_only_the_chosen_slots_are_asked() -> None:
    sites = Sites([1.0, 3.0, 8.0], one_round)
    assert run(one_round, sites, MODEL, slots=[1, 2]).admitted == (1, 2)


def spread(mean: float, x: float) -> float:
    return (x - mean) ** 2


def kept(x: float) -> float:
    return x


@federated_computation
def variance(x: Clients[float]) -> Server[float]:
    mean = federated_mean(federated_map(kept, x))
    return federated_mean(federated_map(spread, (federated_broadcast(mean), x)))


def test_a_later_stage_asks_those_that_the_stage_before_admitted() -> None:
    sites = Sites([1.0, 3.0, 8.0], variance, drops=(2,))
    assert run(variance, sites).result == 1.0
    assert [(task.name, slots) for task, slots, _ in sites.asked] == [("kept", (0, 1, 2)), ("spread", (0, 1))]


def test_the_servers_functions_know_the_population() -> None:
    def share(total: int, *, ctx: FLContext) -> float:
        return total / ctx.population

    def one(x: float) -> int:
        return 1

    @federated_computation
    def part(x: Clients[float]) -> Server[float]:
        return federated_map(share, federated_sum(federated_map(one, x)))

    assert run(part, Sites([1.0, 2.0, 3.0, 4.0], part), slots=[0, 2]).result == 0.5


def test_a_wrong_number_of_server_values_is_refused() -> None:
    with pytest.raises(TraceError, match="takes 1 server values"):
        run(one_round, Sites([1.0], one_round))


def test_what_a_clients_function_raises_passes_through_a_direct_call() -> None:
    def broken(x: float) -> float:
        raise ZeroDivisionError("mine")

    @federated_computation
    def fails(x: Clients[float]) -> Server[float]:
        return federated_sum(federated_map(broken, x))

    with pytest.raises(ZeroDivisionError, match="mine"):
        fails([1.0])


START: Any = np.zeros(2)


def columns(x: float) -> Any:
    return np.ones(int(x))


@federated_computation
def plain_sum(x: Clients[float]) -> Server[Any]:
    return federated_sum(federated_map(columns, x))


@federated_computation
def plain_mean(x: Clients[float]) -> Server[Any]:
    return federated_mean(federated_map(columns, x))


@pytest.mark.parametrize("computation", [plain_sum, plain_mean])
@pytest.mark.parametrize("other", [1.0, 4.0])
def test_a_plain_reduction_refuses_another_shape_and_names_the_site(computation: Any, other: float) -> None:
    # One column would be stretched over three, four would be NumPy's own error.
    with pytest.raises(SpecError, match=r"site 's2'.*path columns; expected float64\[3\]; got float64\[[14]\]"):
        run(computation, Sites([3.0, 3.0, other], computation))


def test_an_accumulate_that_adds_in_place_starts_each_round_from_the_same_zero() -> None:
    def add_in_place(total: Any, x: float) -> Any:
        total += x
        return total

    def same(total: Any) -> Any:
        return total

    @federated_computation
    def total(x: Clients[float]) -> Server[Any]:
        return federated_aggregate(federated_map(kept, x), START, add_in_place, add_in_place, same)

    assert [total([1.0, 1.0]).tolist() for _ in range(2)] == [[2.0, 2.0], [2.0, 2.0]]


@federated_computation
def exact_round(x: Clients[float]) -> Server[Tree]:
    return federated_aggregate(federated_map(step_of, ({}, x)).delta, ExactMean(FixedPoint(bound=4.0, count=10)))


def test_an_update_that_the_aggregator_cannot_add_is_refused_and_named_and_the_others_count() -> None:
    sites = Sites([1.0, 9.0, 3.0], exact_round)
    done = run(exact_round, sites, round=2)
    assert sites.dropped == [1]  # so that the site forgets what it had put into its memory with it
    assert np.asarray(done.result["w"]).tolist() == [2.0, 2.0]
    assert done.admitted == (0, 2)
    assert [(reply.site, reply.failure.code) for reply in done.refused if reply.failure] == [("s1", "update")]


def test_it_ends_the_round_where_the_quorum_needs_that_site() -> None:
    with pytest.raises(UpdateError, match="fixed-point bound; at round 2, site 's1', task 'step_of'"):
        run(exact_round, Sites([1.0, 9.0, 3.0], exact_round), round=2, policy=Policy(quorum=3))
    with pytest.raises(UpdateError):
        exact_round([1.0, 9.0, 3.0])  # a direct call leaves nobody out in silence


def test_too_few_replies_say_who_was_refused() -> None:
    class Abandoned(Answers):
        refused = (Reply(1, "s1", Shareable(), Failure("client", "it raised")),)

        def __iter__(self) -> Any:
            raise QuorumError("the quorum is out of reach", round=4)

    sites = Sites([1.0], one_round)
    sites.task = lambda task, slots, policy: Abandoned(sites, task, slots)  # type: ignore[method-assign]
    with pytest.raises(Unmet, match="out of reach; at round 4") as caught:
        run(one_round, sites, MODEL)
    assert [reply.site for reply in caught.value.refused] == ["s1"]


class Disk(Sites):
    """Sites whose replies are read from a disk, so that all may be kept."""

    def __init__(self, values: list[float], computation: Any) -> None:
        super().__init__(values, computation)
        self.released = 0

    def task(self, task: Task, slots: Any, policy: Policy) -> Replies:
        answers = Answers(self, task, slots)
        answers.release = self.release  # type: ignore[attr-defined]
        return answers

    def release(self) -> None:
        self.released += 1


def test_replies_on_the_disk_are_folded_together_to_the_bits_of_the_running_sum() -> None:
    values = [0.1, 1 / 3, 2e-7, 5e8]
    model = {"w": np.zeros(2)}
    disk = Disk(values, one_round)
    folded = run(one_round, disk, model)
    assert folded.result["w"].tobytes() == run(one_round, Sites(values, one_round), model).result["w"].tobytes()
    assert folded.admitted == (0, 1, 2, 3)
    assert disk.released == 1  # one leaf, which is one span


class Claim(NamedTuple):
    delta: Tree
    weight: float


def claims(model: Tree, x: float) -> Claim:
    return Claim({"w": np.full(2, x * 1e-9)}, 1e308 if x < 0 else x)


@federated_computation
def without_bounds(model: Server[Tree], x: Clients[float]) -> Server[Tree]:
    step = federated_map(claims, (federated_broadcast(model), x))
    return federated_aggregate(step.delta, Mean(), weight=step.weight, like=model)


@pytest.mark.parametrize("kind", [Disk, Sites])
def test_an_update_that_the_aggregator_refuses_leaves_the_result_as_without_that_site(kind: Any) -> None:
    """Two weights of 1e308 add up to infinity: the second one is refused."""
    model = {"w": np.zeros(2)}
    done = run(without_bounds, kind([1.0, -2.0, -3.0, 4.0], without_bounds), model)
    assert ([r.site for r in done.refused], done.admitted) == (["s2"], (0, 1, 3))
    alone = run(without_bounds, kind([1.0, -2.0, 4.0], without_bounds), model)
    assert done.result["w"].tobytes() == alone.result["w"].tobytes()
