"""Who is there: sites by when they were last heard of, and by what they say they are working on. Nothing of it is committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from hansa.runtime.protocol.messages import BEAT_S, LOST_AFTER_S, Beat

IDLE_AFTER_S: Final = 300.0  # a site that is there, and does not say that it works on a task, has lost it


@dataclass
class _Heard:
    """A site's last sign of life, and for each task it named (run, seq) when it last did. Times are monotonic."""

    at: float
    named: dict[tuple[str, int], float] = field(default_factory=dict)


class Presence:
    """When each site was last heard of. `on_gone` is told when one has been silent for too long.

    Sites that the server knows of count as there when it starts: they have 30 s to show up.
    """

    def __init__(self, known: Iterable[str], on_gone: Callable[[str, str], None], *, lost_after_s: float = LOST_AFTER_S) -> None:
        self._lost_after_s, self._on_gone = lost_after_s, on_gone
        start = time.monotonic()
        self._heard = {name: _Heard(start) for name in known}
        self._gone: set[str] = set()
        self._changed = asyncio.Event()

    def heard(self, site: str) -> bool:
        """A site has asked for something; whether it had been away."""
        entry = self._heard.get(site)
        if entry is None:
            entry = self._heard[site] = _Heard(0.0)
            self._changed.set()
        entry.at = time.monotonic()
        back = site in self._gone
        self._gone.discard(site)
        return back

    def beat(self, site: str, beat: Beat) -> None:
        """A site has said what it works on."""
        self.heard(site)
        now = time.monotonic()
        self._heard[site].named = {(each.run, each.seq): now for each in beat.busy}

    def online(self, site: str) -> bool:
        """Whether the site was heard of within three heartbeats."""
        entry = self._heard.get(site)
        return entry is not None and time.monotonic() - entry.at < self._lost_after_s

    def seen_s_ago(self, site: str) -> float | None:
        """Seconds since the site was heard of; None if it never was."""
        entry = self._heard.get(site)
        return None if entry is None else time.monotonic() - entry.at

    def idle(self, site: str, run: str, seq: int, since: float) -> bool:
        """Whether a site that is there has said nothing of a task that it was given at `since` (monotonic) for too long."""
        entry = self._heard.get(site)
        named = 0.0 if entry is None else entry.named.get((run, seq), 0.0)
        return time.monotonic() - max(named, since) > IDLE_AFTER_S

    async def watch(self, stop: asyncio.Event) -> None:
        """Tell of sites that have gone, until the server stops. Wakes when the next one could be gone, not more often."""
        while not stop.is_set():
            now = time.monotonic()
            for site, entry in self._heard.items():
                if site not in self._gone and now - entry.at >= self._lost_after_s:
                    self._gone.add(site)
                    self._on_gone(site, f"not heard of for {self._lost_after_s:.0f} s")
            there = [entry.at for site, entry in self._heard.items() if site not in self._gone]
            until = min(there, default=now + BEAT_S) + self._lost_after_s - now
            try:
                async with asyncio.timeout(max(0.05, until)):
                    await stop.wait()
            except TimeoutError:
                continue
