"""Laws of the workflows beside the synchronous round, over random sites."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.learning.linear import Linear, Loss, flat

from hansa.core.job import Job
from hansa.core.protocols import FitConfig
from hansa.core.rng import generator
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.learning import cross_site, cyclic, statistics
from hansa.learning.statistics import Tallied
from hansa.simulation.engine import simulate

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**31)


def sites(sizes: list[int], seed: int, *, holes: float = 0.0) -> list[Rows]:
    rng = generator(seed, purpose="sites")
    found = []
    for size in sizes:
        x = rng.standard_normal((size, 2))
        x[rng.random(x.shape) < holes] = np.nan
        found.append(Rows(x, rng.standard_normal(size)))
    return found


def federated(data: list[Rows]) -> FederatedRows:
    return FederatedRows([f"s{slot}" for slot in range(len(data))], lambda slot: data[slot])


@settings(max_examples=30, deadline=None)
@given(SIZES, SEEDS, st.sampled_from(["fixed", "random"]))
def test_cyclic_transfer_is_one_training_that_goes_over_the_sites_in_the_order_of_the_record(
    sizes: list[int], seed: int, order: Any
) -> None:
    data, learner = sites(sizes, seed), Linear(lr=0.01)
    result = simulate(Job("c", cyclic(learner, rounds=2, order=order, metrics=[Loss()])), federated(data), seed=seed)
    model = learner.init(generator(seed))
    for record in result.metrics:
        visited = [int(site[1:]) for site in record["sites"]]
        assert sorted(visited) == list(range(len(data)))
        for slot in visited:
            model = _after(learner, model, data[slot])
    assert flat(result.model) == flat(model)


def _after(learner: Linear, model: Tree, rows: Rows) -> Tree:
    delta = learner.fit(model, rows, FitConfig(), rng=generator(0), abort=Signal()).delta
    return {name: np.asarray(model[name]) + np.asarray(delta[name]) for name in model}


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS)
def test_statistics_are_those_of_all_rows_however_they_are_dealt_to_sites(sizes: list[int], seed: int) -> None:
    data = sites(sizes, seed, holes=0.3)
    columns = simulate(Job("s", statistics(min_rows=1)), federated(data), seed=seed).value["columns"]
    x = np.concatenate([each.x for each in data])
    for k in range(2):
        known = x[~np.isnan(x[:, k]), k]
        found = columns[f"x[{k}]"]
        assert found["count"] == len(known)
        if len(known):
            np.testing.assert_allclose([found["mean"], found["std"]], [known.mean(), known.std()], rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS)
def test_tallies_merge_as_they_add(sizes: list[int], seed: int) -> None:
    rng, tally = generator(seed, purpose="tallies"), Tallied()
    updates = [_tally(rng.standard_normal((size, 2))) for size in [*sizes, 3]]
    added = tally.zero(updates[0])
    for update in updates:
        added = tally.add(added, update, 1.0)
    left, right = tally.zero(updates[0]), tally.zero(updates[0])
    for place, update in enumerate(updates):
        left, right = (tally.add(left, update, 1.0), right) if place % 2 else (left, tally.add(right, update, 1.0))
    one, two = tally.finish(added), tally.finish(tally.merge(left, right))
    for name in one:
        np.testing.assert_allclose(np.asarray(one[name]), np.asarray(two[name]), rtol=1e-9, atol=1e-12)


def _tally(x: Array) -> Tree:
    mean = x.mean(axis=0)
    count = np.full(2, float(len(x)))
    return {"rows": np.float64(len(x)), "count": count, "mean": mean, "squares": ((x - mean) ** 2).sum(axis=0)}


@settings(max_examples=25, deadline=None)
@given(SIZES, SEEDS)
def test_a_models_pooled_metric_is_the_mean_of_its_row_weighted_by_rows(sizes: list[int], seed: int) -> None:
    data = sites(sizes, seed)
    model = {"w": generator(seed, purpose="w").standard_normal(2), "b": np.zeros(())}
    found = simulate(Job("m", cross_site(Linear(), models={"m": model}, part="train", metrics=[Loss()])), federated(data)).value
    losses = [found.cells["m"][site]["loss"] for site in found.sites]
    np.testing.assert_allclose(found.pooled["m"]["loss"], np.average(losses, weights=sizes), rtol=1e-12)
    assert found.missing == []
