"""Laws of the simulation, for any faults and policies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.simulation.means import job, raising, sites

import hansa as hs
from hansa import codec
from hansa.core import trees
from hansa.core.round import Policy
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.errors import QuorumError
from hansa.simulation.engine import Result, simulate
from hansa.simulation.faults import Faults

SITES = 7
chances = st.sampled_from([0.0, 0.2, 0.6])
faults = st.builds(Faults, dropout=chances, straggle=chances, spread=st.sampled_from([0.0, 0.5]), bad=chances)
options = st.fixed_dictionaries(
    {
        "rounds": st.integers(1, 2),
        "cohort": st.integers(2, SITES),
        "over_select": st.sampled_from([0.0, 0.4]),
        "attempts": st.integers(1, 2),
        "deadline_s": st.sampled_from([None, 1.2, 5.0]),
    }
)


def outcome(befalls: Faults, chosen: dict[str, Any], seed: int, **engine: Any) -> tuple[str, list[Any]]:
    """The model's digest and the metrics without the wall clock; or how the run ended."""
    try:
        result: Result = simulate(job(**chosen), sites(*range(SITES)), seed=seed, faults=befalls, **engine)
    except QuorumError as error:
        return error.message, []
    return codec.digest(result.model), [{k: v for k, v in record.items() if k != "seconds"} for record in result.metrics]


@settings(max_examples=12, deadline=None)
@given(faults, options, st.integers(0, 99))
def test_every_engine_gives_the_same_run_whatever_befalls_it(befalls: Faults, chosen: dict[str, Any], seed: int) -> None:
    loop = outcome(befalls, chosen, seed)
    assert outcome(befalls, chosen, seed) == loop
    assert outcome(befalls, chosen, seed, workers=2) == loop
    assert outcome(befalls, chosen, seed, engine="vectorised") == loop  # the hand-made learner has nothing to round


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, SITES - 1), max_size=SITES - 1), faults)
def test_sites_that_fail_leave_the_model_that_the_others_make(broken: set[int], befalls: Faults) -> None:
    calm = Faults(spread=befalls.spread, straggle=befalls.straggle)  # any order of arrival
    result = simulate(job({key: raising(ValueError("x")) for key in broken}), sites(*range(SITES)), faults=calm)
    others = [key for key in range(SITES) if key not in broken]
    assert trees.equal(result.model, simulate(job(), sites(*others)).model)
    assert [each["site"] for each in result.metrics[0]["refused"]] == [chr(ord("a") + key) for key in sorted(broken)]


@settings(max_examples=30, deadline=None)
@given(faults, options, st.integers(0, 99))
def test_every_invited_site_is_accounted_for_once(befalls: Faults, chosen: dict[str, Any], seed: int) -> None:
    try:
        result = simulate(job(**chosen), sites(*range(SITES)), seed=seed, faults=befalls)
    except QuorumError:
        return
    for record in result.metrics:
        named = [*record["sites"], *(each["site"] for each in record["refused"]), *record["lost"]]
        assert len(named) == len(set(named))
        assert min(chosen["cohort"], SITES) <= len(named) <= SITES
        assert len(record["sites"]) <= chosen["cohort"]


class Echo(hs.Executor):
    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        return shareable


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=3), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 20_000)
)
def test_what_is_sent_to_a_worker_comes_back_bit_by_bit(leaves: list[list[float]], count: int, extra: int) -> None:
    body = {f"leaf {i}": np.array(leaf) for i, leaf in enumerate(leaves)} | {"large": np.arange(extra, dtype=np.int16)}

    def ask(federation: Any) -> list[Any]:
        return [reply.shareable.body for reply in federation.task(Task("echo", Shareable(body)), range(count), Policy())]

    answers = simulate(hs.Job("echo", ask, executor=Echo()), sites(*range(count)), workers=2).value
    assert len(answers) == count
    assert all(trees.equal(answer, body) for answer in answers)


def test_a_quorum_that_cannot_be_met_is_told_alike_by_every_engine() -> None:
    broken = {key: raising(ValueError("x")) for key in range(SITES)}
    told = set()
    for engine in ({}, {"workers": 2}, {"engine": "vectorised"}):
        with pytest.raises(QuorumError) as caught:
            simulate(job(broken), sites(*range(SITES)), **engine)
        told.add(caught.value.message)
    assert len(told) == 1
