"""Workers and the channel to them."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import job, raising, sites

import hansa as hs
from hansa.core import trees
from hansa.core.round import Policy
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.errors import ConfigError, RunError
from hansa.simulation.engine import simulate
from hansa.simulation.pool import Pool, _recv, _send  # the channel is worth tests of its own
from hansa.simulation.sites import Call, Sites


class Pid(hs.Executor):
    """Answers which process serves, and does what `act` does."""

    def __init__(self, act: Any = None) -> None:
        self.act = act

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if self.act is not None:
            self.act(fl_ctx.slot)
        return Shareable({"pid": np.array(os.getpid()), "slot": np.array(fl_ctx.slot)})


def sites_of(executor: hs.Executor, count: int = 6) -> Sites:
    asking = hs.Job("pids", lambda federation: None, executor=executor)
    return Sites(asking, asking.serve(), {}, [f"s{slot}" for slot in range(count)], 0)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("entries", [0, 3, 1000, 100_000])
def test_a_message_arrives_with_its_bits_and_keeps_what_cannot_be_written_to(entries: int) -> None:
    sealed = np.arange(entries, dtype=np.float32)
    sealed.flags.writeable = False
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _send(ours, {"open": np.arange(entries), "sealed": sealed, "empty": np.zeros((0, 3)), "name": "x"})
        got = _recv(theirs)
    assert got["name"] == "x"
    assert (got["empty"].shape, got["open"].tolist(), got["sealed"].tolist()) == (
        (0, 3),
        list(range(entries)),
        list(range(entries)),
    )
    assert got["open"].flags.writeable
    assert not got["sealed"].flags.writeable
    got["open"][:] = 0  # its own memory


def test_large_messages_both_ways_at_once_do_not_block_each_other() -> None:
    many = {f"leaf {i}": np.zeros(1) for i in range(20_000)}  # a pickle of megabytes, whose arrays are small
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def end() -> None:
            _send(theirs, many)
            _recv(theirs)

        other = threading.Thread(target=end)
        other.start()
        _send(ours, many)
        assert len(_recv(ours)) == 20_000
        other.join(timeout=10)
        assert not other.is_alive()


def test_the_end_of_the_channel_is_the_end_of_messages() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(EOFError):
            _recv(theirs)


def test_all_workers_work_and_answers_come_as_they_are_asked_for() -> None:
    pool = Pool(sites_of(Pid(lambda _: time.sleep(0.01))), 3)
    calls = [Call(slot, 1) for slot in range(6)]
    pool.begin(Task("pid"), calls, {})
    replies = [pool.answer(call).reply.body for call in reversed(calls)]
    pool.close()
    assert [int(np.asarray(body["slot"])) for body in replies] == [5, 4, 3, 2, 1, 0]
    pids = {int(np.asarray(body["pid"])) for body in replies}
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)


def test_calls_that_nobody_asked_for_are_not_taken_for_those_of_the_next_task() -> None:
    pool = Pool(sites_of(Pid()), 2)
    pool.begin(Task("first"), [Call(slot, 1) for slot in range(6)], {})
    pool.answer(Call(0, 1))
    pool.begin(Task("second"), [Call(3, 1)], {})
    answer = pool.answer(Call(3, 1))
    pool.close()
    assert int(np.asarray(answer.reply.body["slot"])) == 3


def test_a_pool_that_is_closed_in_the_middle_of_a_call_leaves_no_process() -> None:
    pool = Pool(sites_of(Pid(lambda slot: time.sleep(60 if slot else 0))), 2)
    pool.begin(Task("pid"), [Call(slot, 1) for slot in range(3)], {})
    first = int(np.asarray(pool.answer(Call(0, 1)).reply.body["pid"]))
    before = time.monotonic()
    pool.close()
    assert time.monotonic() - before < 5
    assert not alive(first)


def test_a_worker_that_dies_is_an_error_that_names_the_site() -> None:
    def die(slot: int) -> None:
        if slot == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def ask(federation: Any) -> None:
        list(federation.task(Task("pid"), range(4), Policy()))

    with pytest.raises(RunError, match=r"a worker process died \(exit code -9\); at site 'c', task 'pid'.*fewer workers"):
        simulate(hs.Job("dies", ask, executor=Pid(die)), sites(0, 1, 2, 3), workers=2)


def test_a_job_that_cannot_be_sent_to_a_new_process_is_refused_with_the_way_out() -> None:
    lock = threading.Lock()
    held = hs.Job("held", lambda federation: None, executor=Pid(lambda _: lock.acquire()))
    with pytest.raises(ConfigError, match=r'cannot be sent to a new process.*use start="fork"'):
        simulate(held, sites(0), engine="pool", start="spawn")


def test_more_workers_than_sites_give_the_same_model() -> None:
    assert trees.equal(simulate(job(rounds=2), sites(0, 1), workers=3).model, simulate(job(rounds=2), sites(0, 1)).model)


def test_an_error_whose_text_cannot_be_made_is_still_the_sites_own() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    result = simulate(job({1: raising(Unprintable())}), sites(0, 1), workers=2)
    [refused] = result.metrics[0]["refused"]
    assert "Unprintable" in refused["message"]
