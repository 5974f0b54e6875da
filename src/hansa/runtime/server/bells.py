"""Bells: waiting for something to happen, without looking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Collection


class Bells:
    """Named bells of one event loop. Whoever waits when one rings goes on; nobody else hears of it."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def ring(self, *names: str) -> None:
        """Wake all who wait for one of these."""
        for name in names:
            for waiting in self._waiting.pop(name, ()):
                if not waiting.done():
                    waiting.set_result(None)

    def ring_all(self) -> None:
        """Wake everybody."""
        self.ring(*list(self._waiting))

    def listen(self, name: str) -> asyncio.Future[None]:
        """Done when the bell next rings: from this call on, not from when it is awaited. Cancel it when it is of no use."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(waiting)
        waiting.add_done_callback(lambda done: self._forget(name, done))
        return waiting

    async def wait(self, name: str, timeout_s: float) -> bool:
        """Whether the bell rang before the time was over."""
        if timeout_s <= 0:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                await self.listen(name)
        except TimeoutError:
            return False
        return True

    def _forget(self, name: str, done: asyncio.Future[None]) -> None:
        if (others := self._waiting.get(name)) is not None:
            others.discard(done)
            if not others:
                del self._waiting[name]


async def rung(heard: Collection[asyncio.Future[None]], timeout_s: float, *, gather_s: float) -> bool:
    """Whether one of them rang before the time was over; `gather_s` later, since what happens next often follows at once."""
    done, _ = await asyncio.wait(heard, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    if done:
        await asyncio.sleep(gather_s)  # a time, not a state: something has happened, and what comes now is told with it
    return bool(done)
