"""What a machine has is leased to one run each, in the order in which it was asked for."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest

from hansa.runtime.client.leases import Lease, Leases, beyond
from hansa.runtime.config import Resources
from hansa.runtime.manifest import Manifest

pytestmark = pytest.mark.anyio
ONE = Manifest(reference="job.py:job", job="j", data="rows", plan_hash="")
CORE = sorted(os.sched_getaffinity(0))[0]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def asking(**what: int) -> Manifest:
    return msgspec.structs.replace(ONE, **what)


async def test_a_run_that_finds_nothing_free_waits_until_another_gives_back() -> None:
    leases = Leases(Resources(cores=1), {})
    assert await leases.take("a", ONE) == Lease(cores=(CORE,))
    assert await leases.take("a", ONE) == Lease(cores=(CORE,))  # the same run, asked again after its worker died
    waiting = asyncio.create_task(leases.take("b", ONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    leases.give_back("a")
    assert await waiting == Lease(cores=(CORE,))


async def test_gpus_are_given_by_name_each_to_one_run_and_a_large_request_is_not_passed_over() -> None:
    leases = Leases(Resources(gpus=2), {"CUDA_VISIBLE_DEVICES": "5,7,9"})
    assert (await leases.take("a", asking(gpus=1))).gpus == ("5",)
    both = asyncio.create_task(leases.take("b", asking(gpus=2)))
    await asyncio.sleep(0)
    one = asyncio.create_task(leases.take("c", asking(gpus=1)))
    await asyncio.sleep(0)
    assert not one.done()  # a GPU is free, and promised to the run before
    leases.give_back("a")
    assert (await both).gpus == ("5", "7")
    leases.give_back("b")
    assert (await one).gpus == ("5",)


async def test_who_stops_waiting_is_forgotten() -> None:
    leases = Leases(Resources(memory_mb=100), {})
    assert (await leases.take("a", asking(memory_mb=80))).memory_bytes == 80 << 20
    waiting = asyncio.create_task(leases.take("b", asking(memory_mb=30)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await leases.take("c", asking(memory_mb=20))).memory_bytes == 20 << 20


async def test_who_stops_waiting_in_the_moment_in_which_something_is_given_back_is_passed_over() -> None:
    leases = Leases(Resources(cores=1), {})
    await leases.take("a", ONE)
    waiting = [asyncio.create_task(leases.take(run, ONE)) for run in "bc"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    leases.give_back("a")
    assert await waiting[1] == Lease(cores=(CORE,))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus": 1}, "at most 0 GPUs to a run; this one asks for 1"),
        ({"cores": 3}, "at most 2 cores"),
        ({"memory_mb": 101}, "at most 100 MB of memory"),
        ({"cores": 2, "memory_mb": 100}, ""),
    ],
)
async def test_what_a_site_can_never_give_is_said_at_once(asked: dict[str, int], words: str) -> None:
    why = beyond(Resources(cores=2, memory_mb=100), asking(**asked))
    assert words in why
    assert bool(words) == bool(why)
