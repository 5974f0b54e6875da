"""Vectorised clients, when one of them is at fault."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import Means, job, raising, sites

import hansa as hs
from hansa.adapters.numpy import softmax
from hansa.aggregation.accumulate import Accumulator
from hansa.aggregation.mean import Mean
from hansa.core import trees
from hansa.core.protocols import Update
from hansa.core.task import FLContext, Shareable
from hansa.core.trees import Tree
from hansa.core.workflow import Workflow
from hansa.data.federated import FederatedRows, population
from hansa.errors import ConfigError
from hansa.learning.fedavg import fedavg
from hansa.learning.scaffold import scaffold
from hansa.simulation import crews
from hansa.simulation.engine import simulate
from hansa.simulation.vectorised import execute_many
from hansa.testing.fakes import rows


class Picky:
    """A filter that refuses what one site sends."""

    def __init__(self, site: str, error: Exception) -> None:
        self.site, self.error = site, error

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:
        if ctx.site == self.site:
            raise self.error
        return shareable


@pytest.mark.parametrize(
    "workflow",
    [
        scaffold(softmax(classes=2, features=4), rounds=1, metrics=[]),
        fedavg(softmax(classes=2, features=4), rounds=1, metrics=[], personal=["bias"]),
    ],
    ids=["scaffold", "personal layers"],
)
def test_a_neighbour_that_fails_leaves_what_the_others_keep_as_in_the_loop(workflow: Workflow) -> None:
    data = population(4, lambda slot: rows(12, seed=slot))
    picky = hs.Job("picky", workflow, filters=[Picky("site-001", ValueError("no"))])
    loop, together = (simulate(picky, data, seed=1, engine=engine) for engine in ("loop", "vectorised"))
    assert sorted(loop.memory) == sorted(together.memory) == [0, 2, 3]
    for slot, kept in loop.memory.items():
        here, there = trees.flatten(kept), trees.flatten(together.memory[slot])
        for path, leaf in here.items():
            np.testing.assert_allclose(there[path], leaf, rtol=1e-5, atol=1e-6)


def test_a_sites_own_config_error_is_its_own_as_in_the_loop() -> None:
    for changes, filters in (({}, [Picky("b", ConfigError("mine"))]), ({1: raising(ConfigError("mine"))}, [])):
        one = hs.Job("own", job(changes).workflow, filters=filters)
        for engine in ("loop", "vectorised"):
            [refused] = simulate(one, sites(0, 1, 2), engine=engine).metrics[0]["refused"]
            assert (refused["site"], refused["code"], refused["message"]) == ("b", "config", "mine")


@pytest.mark.parametrize("alone", [True, False], ids=["even of one client", "of several"])
def test_a_batched_form_that_refuses_what_a_client_can_do_alone_ends_the_run(alone: bool) -> None:
    class Unlike(Means):
        def fit_many(self, models: Sequence[Any], datasets: Sequence[Any], configs: Any, *, rngs: Any) -> list[Update]:
            if alone or len(models) > 1:
                raise ConfigError("these cannot be batched", hint="use the loop")
            return super().fit_many(models, datasets, configs, rngs=rngs)

    with pytest.raises(ConfigError, match="these cannot be batched"):
        simulate(hs.Job("unlike", fedavg(Unlike(), rounds=1)), sites(0, 1, 2), engine="vectorised")


def untouched(shareable: Shareable, ctx: FLContext) -> Shareable:
    return shareable


class Counting:
    """The weighted mean; notes how many updates it is given at a time."""

    def __init__(self) -> None:
        self.mean, self.given = Mean(), list[int]()
        self.zero, self.merge, self.finish = self.mean.zero, self.mean.merge, self.mean.finish

    def add(self, acc: Accumulator, update: Tree, weight: float) -> Accumulator:
        self.given.append(1)
        return self.mean.add(acc, update, weight)

    def add_many(self, acc: Accumulator, updates: Tree, weights: Sequence[float]) -> Accumulator:
        self.given.append(len(weights))
        return self.mean.add_many(acc, updates, weights)

    def __repr__(self) -> str:
        return "Counting()"


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "_AHEAD_S", 60.0)  # or a slow machine would stack fewer replies


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("engine", "weighting"), [("vectorised", "examples"), ("vectorised", "uniform"), ("loop", "examples")])
def test_replies_that_go_through_gate_and_fold_as_one_give_the_bits_of_one_by_one(engine: Any, weighting: Any) -> None:
    data, mean = population(5, lambda slot: rows(7 + slot, seed=slot)), Counting()
    workflow = fedavg(softmax(classes=2, features=4), rounds=2, weighting=weighting, aggregator=mean, metrics=[])
    together, by_itself = (
        simulate(hs.Job("same", workflow, filters=filters), data, seed=1, engine=engine) for filters in ([], [untouched])
    )
    assert mean.given == [5, 5, *[1] * 10]
    assert trees.equal(together.model, by_itself.model)
    for one, other in zip(together.metrics, by_itself.metrics, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert sorted(together.metrics[0]["sites"]) == [f"site-{k:03d}" for k in range(5)]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("engine", ["loop", "vectorised"])
def test_of_replies_computed_together_a_bad_one_is_named_and_leaves_no_trace(engine: Any) -> None:
    def data(*slots: int) -> FederatedRows:
        plain = [rows(8, seed=slot) for slot in slots]
        made = [replace(each, x=each.x * np.float32(1e20)) if slot == 2 else each for slot, each in zip(slots, plain, strict=True)]
        return FederatedRows([f"s{slot}" for slot in slots], made.__getitem__)

    job = hs.Job("bad", fedavg(softmax(classes=2, features=4, lr=1e30, batch=0), rounds=1, metrics=[]))
    all_of_them, without = (simulate(job, data(*slots), engine=engine) for slots in ((0, 1, 2, 3), (0, 1, 3)))
    [refused] = all_of_them.metrics[0]["refused"]
    assert (refused["site"], refused["code"], refused["path"]) == ("s2", "not_finite", "delta/weight")
    assert trees.equal(all_of_them.model, without.model)


@pytest.mark.usefixtures("unhurried")
def test_a_site_whose_reply_is_refused_with_its_neighbours_has_worked_once() -> None:
    worked: list[int] = []

    def poisoned(update: Update) -> Update:
        worked.append(update.examples)
        return update._replace(delta={"w": np.full(2, np.nan, np.float32)})

    done = simulate(job({1: poisoned}), sites(0, 1, 2))
    assert worked == [2]
    assert [each["site"] for each in done.metrics[0]["refused"]] == ["b"]
    assert np.asarray(done.model["w"]).tolist() == [2.5, 2.5]  # (1 * 1 + 3 * 3) / 4


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("engine", ["loop", "vectorised"])
def test_where_the_lot_decides_who_fills_a_cohort_the_replies_come_as_one_by_one(engine: Any) -> None:
    workflow = fedavg(softmax(classes=2, features=4), rounds=2, cohort=4, over_select=0.5, metrics=["loss"])
    data = population(9, lambda slot: rows(8, seed=slot, valid=2))
    together, by_itself = (
        simulate(hs.Job("lots", workflow, filters=filters), data, engine=engine) for filters in ([], [untouched])
    )
    assert trees.equal(together.model, by_itself.model)
    assert [{**each, "seconds": 0} for each in together.metrics] == [{**each, "seconds": 0} for each in by_itself.metrics]


def test_the_memory_of_one_chunk_is_given_back_before_the_next_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def watched(*args: Any) -> Any:
        alive.append(sum(each() is not None for each in made))
        replies: Any = execute_many(*args)
        made.append(weakref.ref(replies.body["delta"]["weight"]))
        return replies

    monkeypatch.setattr(crews, "CHUNK", 4)
    monkeypatch.setattr(crews, "execute_many", watched)
    workflow = fedavg(softmax(classes=2, features=4), rounds=2, evaluate_sites="none")
    simulate(hs.Job("chunks", workflow), population(12, lambda slot: rows(8, seed=slot)), engine="vectorised")
    assert alive == [0] * 6
