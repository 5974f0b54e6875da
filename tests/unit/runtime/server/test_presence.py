"""Sites that fall silent are told of once, and sites that come back are there again."""

from __future__ import annotations

import asyncio
import time

import pytest

from hansa.runtime.server.presence import Presence

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_site_that_leaves_is_away_at_once_and_awaited_for_as_long_as_a_silent_one() -> None:
    gone: list[str] = []
    presence = Presence([], lambda site, _: gone.append(site), lost_after_s=0.2)
    presence.heard("north", "one")
    presence.left("north", "one")
    assert (presence.online("north"), presence.awaited("north")) == (False, True)
    assert not presence.heard("north", "one")  # a poll that it had left behind
    assert not presence.online("north")
    assert presence.heard("north", "two")
    assert presence.online("north")
    presence.left("north", "two")
    stop = asyncio.Event()
    watching = asyncio.create_task(presence.watch(stop))
    async with asyncio.timeout(5):
        while not gone:
            await asyncio.sleep(0)
    assert (gone, presence.awaited("north")) == (["north"], False)
    stop.set()
    await watching


async def test_a_silent_site_is_told_of_once_and_is_back_when_it_is_heard_of() -> None:
    gone: list[str] = []
    told, stop = asyncio.Event(), asyncio.Event()

    def on_gone(site: str, why: str) -> None:
        gone.append(site)
        told.set()

    presence = Presence(["known"], on_gone, lost_after_s=0.05)
    assert presence.online("known")
    assert not presence.online("stranger")
    assert presence.heard("new")
    watching = asyncio.create_task(presence.watch(stop))
    async with asyncio.timeout(5):
        while len(gone) < 2:
            told.clear()
            await told.wait()
    assert sorted(gone) == ["known", "new"]
    assert not presence.online("known")
    assert presence.heard("known")
    assert not presence.heard("known")
    assert presence.online("known")
    stop.set()
    async with asyncio.timeout(5):
        await watching


async def test_the_agent_that_greeted_last_displaces_those_before_and_nobody_who_gives_no_name() -> None:
    presence = Presence([], lambda *_: None)
    assert not presence.displaced("north", "first")  # the server has just started
    presence.greeted("north", "first")
    presence.greeted("south", "other")
    presence.greeted("north", "second")
    assert presence.displaced("north", "first")
    assert not presence.displaced("north", "second")
    assert not presence.displaced("south", "other")
    presence.greeted("north", "")
    assert presence.displaced("north", "first")
    assert not presence.displaced("north", "")


async def test_time_in_which_the_server_itself_stood_still_does_not_count_against_a_site() -> None:
    gone: list[str] = []
    stop = asyncio.Event()
    presence = Presence(["known"], lambda site, _: gone.append(site), lost_after_s=0.9)
    watching = asyncio.create_task(presence.watch(stop))
    await asyncio.sleep(0)  # it has begun to watch
    time.sleep(1.5)  # the whole process is held up, longer than a silence may last
    await asyncio.sleep(0.1)
    assert gone == []
    assert presence.online("known")
    stop.set()
    async with asyncio.timeout(5):
        await watching
