"""Workers and the channel to them."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import job, raising, sites
from threadpoolctl import threadpool_info

import hansa as hs
from hansa.core import trees
from hansa.core.job import Job
from hansa.core.round import Policy
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.data.federated import from_arrays
from hansa.errors import ConfigError, RunError
from hansa.references import load_reference
from hansa.simulation.engine import simulate
from hansa.simulation.pool import Pool, _recv, _send  # the channel is worth tests of its own
from hansa.simulation.sites import Call, Sites
from hansa.testing import fakes


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


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize(("how", "code"), [("kill", -9), ("exit", 3)])
def test_a_worker_that_dies_fails_its_call_alone_and_another_takes_its_place(how: str, code: int, start: Any) -> None:
    def die(slot: int) -> None:
        if slot in (2, 7):
            os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else os._exit(3)

    def ask(federation: Any) -> tuple[list[int], list[tuple[str, str, str]]]:
        admitted: list[int] = []
        for _ in range(2):
            replies = federation.task(Task("pid"), range(8), Policy())
            admitted += [reply.slot for reply in replies]
        return admitted, [(each.site, each.failure.code, each.failure.message) for each in replies.refused]

    admitted, refused = simulate(hs.Job("dies", ask, executor=Pid(die)), sites(*range(8)), workers=2, start=start).value
    assert admitted == [0, 1, 3, 4, 5, 6] * 2
    assert [(site, kind) for site, kind, _ in refused] == [("c", "worker_died"), ("h", "worker_died")]
    assert f"exit code {code}" in refused[0][2]


def test_a_site_whose_worker_died_may_be_asked_again() -> None:
    flag = mmap.mmap(-1, 1)  # shared with the workers

    def die_once(slot: int) -> None:
        if slot == 1 and flag[0] == 0:
            flag[0] = 1
            os._exit(3)

    def ask(federation: Any) -> list[int]:
        return [reply.slot for reply in federation.task(Task("pid"), range(4), Policy(attempts=2))]

    assert simulate(hs.Job("dies", ask, executor=Pid(die_once)), sites(0, 1, 2, 3), workers=2).value == [0, 1, 2, 3]
    flag.close()


def test_workers_that_keep_dying_end_the_run_with_the_last_site_named() -> None:
    def ask(federation: Any) -> None:
        list(federation.task(Task("pid"), range(8), Policy()))

    dies = hs.Job("dies", ask, executor=Pid(lambda _: os._exit(3)))
    with pytest.raises(RunError, match=r"worker processes keep dying \(exit code 3\); at site '.', task 'pid'"):
        simulate(dies, sites(*range(8)), workers=2)


def test_a_worker_that_died_at_rest_is_nobodys_failure() -> None:
    pool = Pool(sites_of(Pid()), 2)
    pool.begin(Task("first"), [Call(0, 1), Call(1, 1)], {})
    pids = {int(np.asarray(pool.answer(Call(slot, 1)).reply.body["pid"])) for slot in range(2)}
    for worker in pool._workers:
        worker.process.kill()
        worker.ended(within_s=5)
    pool.begin(Task("second"), [Call(slot, 1) for slot in range(4)], {})
    answers = [pool.answer(Call(slot, 1)) for slot in range(4)]
    pool.close()
    assert [answer.failure for answer in answers] == [None] * 4
    assert not pids & {int(np.asarray(answer.reply.body["pid"])) for answer in answers}


def test_workers_of_a_run_that_is_not_deterministic_share_the_cores() -> None:
    class Threads(hs.Executor):
        def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
            return Shareable({"n": np.array([each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"])})

    def ask(federation: Any) -> list[int]:
        return [int(n) for reply in federation.task(Task("ask"), [0], Policy()) for n in np.ravel(reply.shareable.body["n"])]

    asking = hs.Job("threads", ask, executor=Threads())
    cores = os.cpu_count() or 1
    for options, expected in (({}, 1), ({"deterministic": False}, cores), ({"deterministic": False, "workers": 2}, cores // 2)):
        threads = simulate(asking, sites(0), **{"engine": "pool", **options}).value  # type: ignore[arg-type]  # fields of Settings
        assert set(threads) <= {max(1, expected)}


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


def test_fresh_workers_get_what_a_job_file_defines(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import hansa as hs\n"
        "from hansa.adapters.numpy import softmax\n"
        "from hansa.learning import fedavg\n"
        "class Own:\n"
        "    def __call__(self, shareable, ctx): return shareable\n"
        "    def __repr__(self): return 'Own()'\n"
        "job = hs.Job('own', fedavg(softmax(classes=2, features=4), rounds=1), data='d', filters=[Own()])\n"
    )
    own = load_reference("own.py:job", base=tmp_path)
    assert isinstance(own, Job)
    sites = from_arrays({name: (r.x, r.y) for name in "ab" for r in [fakes.rows(20)]})
    record = simulate(own, sites, seed=0, engine="pool", workers=2, start="spawn").metrics[-1]
    assert record["refused"] == []
    assert set(record["sites"]) == {"a", "b"}
