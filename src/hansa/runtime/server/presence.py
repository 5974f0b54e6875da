"""Who is there: when each site was last heard of, and which agent is at work for it. Nothing of it is committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from hansa.runtime.protocol.messages import LOST_AFTER_S

BEATS: Final = 3  # heartbeats that a site misses before it is taken for lost


class Presence:
    """When each site was last heard of. `on_gone` is told when one has been silent for too long.

    Sites that the server knows of count as there when it starts: they have 30 s to show up.
    """

    def __init__(self, known: Iterable[str], on_gone: Callable[[str, str], None], *, lost_after_s: float = LOST_AFTER_S) -> None:
        self._lost_after_s, self._on_gone = lost_after_s, on_gone
        self._heard = dict.fromkeys(known, time.monotonic())
        self._gone: set[str] = set()
        self._agents: dict[str, str] = {}
        self._left: dict[str, str] = {}  # sites whose agents have said that they stop

    def greeted(self, site: str, agent: str) -> None:
        """The agent, by a name that it made at its start, is at work for the site: instead of any that was before."""
        if agent:
            self._agents[site] = agent

    def displaced(self, site: str, agent: str) -> bool:
        """Whether another agent has greeted since this one did."""
        return bool(agent) and self._agents.get(site, agent) != agent

    def heard(self, site: str, agent: str = "") -> bool:
        """A site has asked for something; whether it had been away, or is new. A poll that outlives its agent says nothing."""
        if agent and self._left.get(site) == agent:
            return False
        back = site in self._gone or site not in self._heard or self._left.pop(site, None) is not None
        self._heard[site] = time.monotonic()
        self._gone.discard(site)
        return back

    def left(self, site: str, agent: str) -> None:
        """The site's agent was told to stop: it is not there from now on, and awaited for as long as a silent one."""
        self._left[site] = agent

    def online(self, site: str) -> bool:
        """Whether the site was heard of within three heartbeats, and has not said that it leaves."""
        return site not in self._left and self.awaited(site)

    def awaited(self, site: str) -> bool:
        """Whether the site was heard of within three heartbeats: it may come back to what it was asked."""
        ago = self.seen_s_ago(site)
        return ago is not None and ago < self._lost_after_s

    def seen_s_ago(self, site: str) -> float | None:
        """Seconds since the site was heard of; None if it never was."""
        at = self._heard.get(site)
        return None if at is None else time.monotonic() - at

    async def watch(self, stop: asyncio.Event) -> None:
        """Tell of sites that have gone, until the server stops. Wakes when the next one could be gone, or after a heartbeat."""
        while not stop.is_set():
            now = time.monotonic()
            for site in [site for site, at in self._heard.items() if site not in self._gone and now - at >= self._lost_after_s]:
                self._gone.add(site)
                self._on_gone(site, f"not heard of for {self._lost_after_s:.0f} s")
            next_gone = min((at for site, at in self._heard.items() if site not in self._gone), default=now) + self._lost_after_s
            wakes = min(next_gone, now + self._lost_after_s / BEATS)
            try:
                async with asyncio.timeout(wakes - now):
                    await stop.wait()
            except TimeoutError:
                self._forgive(time.monotonic() - wakes)

    def _forgive(self, late_s: float) -> None:
        """While this process itself stood still, nobody could be heard: that time does not count against the sites."""
        if late_s > self._lost_after_s / (10 * BEATS):
            now = time.monotonic()
            self._heard = {site: min(now, at + late_s) for site, at in self._heard.items()}
