"""Bells: who waits is woken, and hears together what happens together."""

from __future__ import annotations

import asyncio
import time

from hansa.runtime.server.bells import Bells, rung


def test_who_waits_for_one_of_several_is_told_of_what_follows_at_once_too() -> None:
    async def heard() -> tuple[bool, list[str], float]:
        bells, happened = Bells(), list[str]()
        waiting = asyncio.create_task(rung([bells.listen("run/a"), bells.listen("live/a")], 60.0, gather_s=0.05))
        begun = time.monotonic()
        for what in ("result", "closed", "round"):
            await asyncio.sleep(0.001)
            happened.append(what)
            bells.ring("run/a")
        return await waiting, happened, time.monotonic() - begun

    rang, happened, seconds = asyncio.run(heard())
    assert rang
    assert happened == ["result", "closed", "round"]
    assert 0.05 <= seconds < 60.0


def test_a_bell_that_does_not_ring_is_waited_for_no_longer_than_asked() -> None:
    async def silent() -> bool:
        return await rung([Bells().listen("run/a")], 0.01, gather_s=60.0)

    assert not asyncio.run(silent())
