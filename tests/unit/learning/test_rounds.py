"""Rounds: checkpoints that go on where they were, the best model, stopping, and metrics of who could evaluate."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.core.computation import federated_computation
from hansa.core.executor import FunctionExecutor
from hansa.core.intrinsics import federated_broadcast, federated_eval, federated_map, federated_mean, federated_sum
from hansa.core.protocols import Replies
from hansa.core.round import Policy
from hansa.core.task import Failure, FLContext, Reply, Shareable, Signal, Task
from hansa.core.trees import Tree
from hansa.core.types import SERVER, Clients, Server
from hansa.core.workflow import Process
from hansa.errors import ConfigError, QuorumError, SpecError
from hansa.learning.rounds import Rounds, Watch
from hansa.tensors import load_tree, save_tree


class State(NamedTuple):
    model: Tree
    round: int


def first() -> State:
    return State({"w": np.zeros(1)}, 0)


def halfway(state: State, mean: float) -> State:
    return State({"w": (np.asarray(state.model["w"]) + mean) / 2}, state.round + 1)


def own(x: float) -> float:
    return x


def error_of(model: Tree, x: float) -> float:
    return abs(float(np.asarray(model["w"])[0]) - 3.0)


@federated_computation
def start() -> Server[State]:
    return federated_eval(first, SERVER)


@federated_computation
def train(state: Server[State], x: Clients[float]) -> Server[State]:
    return federated_map(halfway, (state, federated_mean(federated_map(own, x))))


@federated_computation
def errors(model: Server[Tree], x: Clients[float]) -> Server[Any]:
    return {"error": federated_sum(federated_map(error_of, (federated_broadcast(model), x)))}


@federated_computation
def held_out_errors(model: Server[Tree], x: Clients[float]) -> Server[Any]:
    return {"error": federated_mean(federated_map(error_of, (federated_broadcast(model), x)))}


def workflow(rounds: int = 4, **more: Any) -> Rounds:
    """w goes 0, 4, 6, 7, 7.5 towards 8; the error |w - 3| is best after the first round."""
    process = Process(
        initialize=start,
        next=train,
        evaluate=errors,
        test=held_out_errors,
        model=lambda state: state.model,
        with_model=lambda state, model: state._replace(model=model),
        values=lambda sums: {"error": float(np.asarray(sums["error"]))},
        higher={"error": False},
    )
    return Rounds(process, rounds, **more)


class OneSite:
    """A site with the number 8, and what a run leaves behind. `fails` are the tasks that nobody answers, for the `reasons`."""

    seed = 1
    sites = ("a",)

    def __init__(
        self,
        saved: tuple[int, Tree, Mapping[str, Any]] | None = None,
        fails: tuple[str, ...] = (),
        reasons: tuple[str, ...] = (),
    ) -> None:
        self.saved, self.fails, self.reasons = saved, fails, reasons
        self.asked: list[tuple[str, Policy]] = []
        self.executor = FunctionExecutor([train, errors])
        self.records: list[Mapping[str, Any]] = []
        self.checkpoints: list[tuple[int, Tree, Mapping[str, Any]]] = []

    def task(self, task: Task, slots: Any, policy: Policy) -> Replies:
        self.asked.append((task.name, policy))
        return Answers(self, task)

    def checkpoint(self, round: int, state: Tree, notes: Mapping[str, Any]) -> None:  # noqa: A002
        self.checkpoints.append((round, state, notes))

    def restore(self) -> tuple[int, Tree, Mapping[str, Any]] | None:
        return self.saved

    def report(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)


class Answers:
    lost: tuple[Reply, ...] = ()

    def __init__(self, site: OneSite, task: Task) -> None:
        self.site, self.asked = site, task
        codes = site.reasons if task.name in site.fails else ("not_finite",)
        self.refused = tuple(Reply(7, "b", Shareable(), Failure(code, "an entry is nan", "w")) for code in codes)

    def __iter__(self) -> Iterator[Reply]:
        if self.asked.name in self.site.fails:
            raise QuorumError("nobody answered")
        reply = self.site.executor.execute(self.asked.name, self.asked.shareable, FLContext(load=lambda _: 8.0), Signal())
        yield Reply(0, "a", reply)

    def drop(self, reply: Reply) -> None:
        raise AssertionError("nothing is refused here")


def test_rounds_give_the_final_and_the_best_model() -> None:
    site = OneSite()
    outcome = workflow()(site)
    assert np.asarray(outcome.model["w"]) == [7.5]
    assert np.asarray(outcome.best["w"]) == [4.0]
    assert (outcome.best_round, outcome.rounds) == (1, 4)
    assert [record["global"]["error"] for record in site.records] == [1.0, 3.0, 4.0, 4.5]
    missing = {"site": "b", "code": "not_finite", "path": "w", "message": "an entry is nan"}
    assert site.records[0]["refused"] == [missing, {**missing, "task": "error_of"}]


def test_a_run_goes_on_from_any_checkpoint_to_the_same_end() -> None:
    whole = OneSite()
    expected = workflow()(whole)
    for saved in whole.checkpoints:
        resumed = OneSite(saved)
        outcome = workflow()(resumed)
        assert np.asarray(outcome.model["w"]).tolist() == np.asarray(expected.model["w"]).tolist()
        assert np.asarray(outcome.best["w"]).tolist() == np.asarray(expected.best["w"]).tolist()
        assert (outcome.best_round, outcome.rounds) == (1, 4)
        assert resumed.records == whole.records[saved[0] :]


def test_a_checkpoint_survives_a_file(tmp_path: Any) -> None:
    whole = OneSite()
    expected = workflow()(whole)
    number, tree, notes = whole.checkpoints[1]
    save_tree(tmp_path / "c.safetensors", tree)
    again, _ = load_tree(tmp_path / "c.safetensors")
    outcome = workflow()(OneSite((number, again, notes)))
    assert np.asarray(outcome.model["w"]).tolist() == np.asarray(expected.model["w"]).tolist()
    assert outcome.best_round == 1


def test_patience_counts_evaluations_without_a_better_value() -> None:
    site = OneSite()
    assert workflow(rounds=50, watch=Watch(patience=2))(site).rounds == 3
    resumed = OneSite(site.checkpoints[1])
    assert workflow(rounds=50, watch=Watch(patience=2))(resumed).rounds == 3


def test_nobody_evaluates_when_asked_so_and_the_last_model_is_kept() -> None:
    site = OneSite()
    outcome = workflow(watch=Watch(sites="none"))(site)
    assert [record["global"] for record in site.records] == [{}] * 4
    assert (outcome.best_round, np.asarray(outcome.best["w"]).tolist()) == (4, [7.5])
    assert ["best" in tree for _, tree, _ in site.checkpoints] == [False] * 4
    again = workflow(watch=Watch(sites="none"))(OneSite(site.checkpoints[1]))
    assert (again.best_round, np.asarray(again.best["w"]).tolist()) == (4, [7.5])


@pytest.mark.parametrize("reasons", [(), ("not_finite",), ("lost",)])
def test_a_round_stands_even_if_nobody_could_evaluate_it(reasons: tuple[str, ...]) -> None:
    site = OneSite(fails=("error_of",), reasons=reasons)
    outcome = workflow()(site)
    assert np.asarray(outcome.model["w"]) == [7.5]
    assert [record["round"] for record in site.records] == [1, 2, 3, 4]
    assert site.records[0]["lost"] == ["a"]


def test_a_metric_that_raises_at_the_sites_ends_the_run() -> None:
    with pytest.raises(QuorumError, match="nobody answered"):
        workflow()(OneSite(fails=("error_of",), reasons=("client", "not_finite")))


def test_all_tasks_are_asked_under_the_rounds_policy() -> None:
    @federated_computation
    def ask_first(x: Clients[float]) -> Server[State]:
        return federated_map(begun, federated_mean(federated_map(asked_first, x)))

    policy = Policy(cohort=1, quorum=1.0, deadline_s=9.0, attempts=3)
    plain = workflow(rounds=1, policy=policy)
    site = OneSite()
    site.executor = FunctionExecutor([ask_first, train, errors])
    dataclasses.replace(plain, process=dataclasses.replace(plain.process, initialize=ask_first))(site)
    assert [name for name, _ in site.asked] == ["asked_first", "own", "error_of"]
    assert {(each.deadline_s, each.attempts) for _, each in site.asked} == {(9.0, 3)}
    assert [(each.cohort, each.quorum) for _, each in site.asked] == [(None, 1.0), (1, 1.0), (None, 1)]
    assert [entry.get("task") for entry in site.records[0]["refused"]] == [None, "asked_first", "error_of"]


def asked_first(x: float) -> float:
    return x


def begun(mean: float) -> State:
    return first()


def test_a_round_without_a_quorum_ends_the_run() -> None:
    with pytest.raises(QuorumError):
        workflow()(OneSite(fails=("own",)))


def test_a_score_at_the_server_is_reported_beside_the_sites_metrics() -> None:
    scored = workflow(rounds=1)
    process = dataclasses.replace(scored.process, score=lambda model: {"error": 0.25})
    site = OneSite()
    dataclasses.replace(scored, process=process)(site)
    assert site.records[0]["global"] == {"error": 1.0, "test_error": 0.25}


def test_the_first_model_may_be_given_and_has_to_fit() -> None:
    assert np.asarray(workflow(rounds=1, init={"w": np.array([4.0])})(OneSite()).model["w"]) == [6.0]
    with pytest.raises(SpecError, match="path init/w"):
        workflow(init={"w": np.zeros(2)})(OneSite())


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"every": 0}, "evaluate_every"),
        ({"every": 1.5}, "evaluate_every"),
        ({"sites": "some"}, "evaluate_sites"),
        ({"patience": 0}, "patience"),
        ({"patience": 1.5}, "patience"),
    ],
)
def test_a_watch_out_of_range_is_named(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Watch(**options)
    assert caught.value.path == path


def test_a_monitor_has_to_be_a_metric_of_the_job_and_rounds_at_least_one() -> None:
    with pytest.raises(ConfigError, match=r"path monitor.*\['error'\]; got auc"):
        workflow(watch=Watch(monitor="auc"))
    wrong: list[Any] = [0, "3", 2.5, True]
    for rounds in wrong:
        with pytest.raises(ConfigError, match="path rounds"):
            workflow(rounds=rounds)


def test_numpys_counts_are_taken_as_pythons() -> None:
    three: Any = np.int64(3)
    made = workflow(rounds=three, watch=Watch(every=three, patience=three))
    assert repr((made.rounds, made.watch)) == repr((3, Watch(every=3, patience=3)))


@pytest.mark.parametrize(("asked", "path"), [({"patience": 2}, "patience"), ({"monitor": "error"}, "monitor")])
def test_what_nobody_evaluates_can_neither_stop_nor_choose(asked: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match="nobody evaluates") as caught:
        workflow(watch=Watch(sites="none", **asked))
    assert caught.value.path == path


def test_training_loss_is_pooled_over_the_cohort_by_rows() -> None:
    from hansa.learning.rounds import _pooled

    sites = {"a": {"train_loss": 1.0, "examples": 3.0}, "b": {"train_loss": 5.0, "examples": 1.0}, "c": {"other": 2.0}}
    assert _pooled(sites) == {"train_loss": 2.0}
    assert _pooled({}) == {}
    assert math.isclose(_pooled({"a": {"train_loss": 1.5}})["train_loss"], 1.5)
    both = {"a": {"train_loss": 1.0, "train_accuracy": 0.5, "examples": 3.0}, "b": {"train_accuracy": 0.9, "examples": 1.0}}
    assert _pooled(both) == {"train_loss": 1.0, "train_accuracy": pytest.approx(0.6)}
