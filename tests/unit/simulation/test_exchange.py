"""Requests to single sites, any number under way, on the virtual clock."""

from __future__ import annotations

import numpy as np
import pytest

import hansa as hs
from hansa.core.protocols import Exchanging
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.errors import ConfigError, RunError
from hansa.simulation.crews import Loop
from hansa.simulation.faults import Faults
from hansa.simulation.federation import SimulatedFederation
from hansa.simulation.sites import Sites


class Counts(hs.Executor):
    """Adds one to what it is sent, remembers how often, and fails on request."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name == "fail":
            raise ValueError("no data here")
        assert fl_ctx.memory is not None
        seen = fl_ctx.memory.get("seen") or {"n": np.array(0)}
        fl_ctx.memory.put("seen", {"n": np.asarray(seen["n"]) + 1})
        return Shareable({"n": np.asarray(shareable.body["n"]) + 1})


def federation(faults: Faults | None = None) -> SimulatedFederation:
    asking = hs.Job("ask", lambda _: None, executor=Counts())
    names = ["a", "b", "c"]
    return SimulatedFederation(names, 0, Loop(Sites(asking, asking.serve(), {}, names, 0)), faults or Faults())


def test_answers_come_in_the_order_of_their_times_and_a_site_does_one_thing_after_the_other() -> None:
    asked = federation(Faults(duration_s=2.0))
    assert isinstance(asked, Exchanging)
    exchange = asked.exchange()
    numbers = [exchange.send(Task("add", Shareable({"n": np.array(10 * slot)})), slot) for slot in (1, 1, 0)]
    assert exchange.next(1.5) is None
    assert exchange.now() == 1.5
    came = [exchange.next() for _ in numbers]
    got = [(each.number, each.reply.site, int(np.asarray(each.reply.shareable.body["n"])), each.at) for each in came if each]
    assert got == [(numbers[0], "b", 11, 2.0), (numbers[2], "a", 1, 2.0), (numbers[1], "b", 11, 4.0)]
    assert asked.memory[1]["seen"]["n"] == 2
    assert asked.traffic == {"bytes_up": 24, "bytes_down": 24}


def test_what_would_not_be_done_to_replies_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"neither spoiled nor kept; at path faults\.bad"):
        federation(Faults(bad=0.5)).exchange()


def test_what_is_dropped_is_not_done_and_what_fails_is_told_as_a_failure() -> None:
    exchange = federation().exchange()
    dropped = exchange.send(Task("add", Shareable({"n": np.array(1)})), 0)
    exchange.send(Task("fail"), 1)
    exchange.drop(dropped)
    failed = exchange.next()
    assert failed is not None
    assert failed.reply.failure is not None
    assert (failed.reply.site, failed.reply.failure.message) == ("b", "ValueError: no data here")
    with pytest.raises(RunError, match="nothing is under way"):
        exchange.next()
    with pytest.raises(ConfigError, match="no such slot"):
        exchange.send(Task("add"), 3)


def test_a_site_that_drops_out_is_told_as_lost_at_the_time_when_its_answer_was_due() -> None:
    exchange = federation(Faults(dropout=1.0)).exchange()
    exchange.send(Task("add", Shareable({"n": np.array(1)})), 2)
    came = exchange.next(until=50.0)
    assert came is not None
    assert came.reply.failure is not None
    assert (came.at, came.reply.failure.code) == (1.0, "lost")
