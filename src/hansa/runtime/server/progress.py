"""What sites are at, as their heartbeats say, and which tasks make no progress. Nothing of it is committed but what is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hansa.runtime.protocol.messages import Progress
from hansa.runtime.server.bells import Bells
from hansa.runtime.server.inbox import ARRANGE
from hansa.runtime.server.state import Book

IDLE_S: Final = 30.0  # between two looks while no run goes on


class Task(NamedTuple):
    """One attempt of one site at one step of a run."""

    run: str
    site: str
    seq: int
    attempt: int


@dataclass(slots=True)
class Seen:
    """What was last said of a task, and since when that is so, on the monotonic clock."""

    said: Progress | None
    since: float


class Progresses:
    """What sites are at. `give_up(run, site, seq, why)` is called for each task without progress for its run's `progress_s`.

    Bytes, steps, and waiting for something at the site are progress; so is a task that was not spoken of before.
    """

    def __init__(
        self,
        book: Book,
        bells: Bells,
        give_up: Callable[[str, str, int, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book, self._bells, self._give_up, self._clock = book, bells, give_up, clock
        self._seen: dict[Task, Seen] = {}
        self._at: dict[str, list[Progress]] = {}

    def heard(self, site: str, busy: Sequence[Progress]) -> None:
        """A site's heartbeat."""
        self._at[site] = list(busy)
        now = self._clock()
        for said in busy:
            task = Task(said.run, site, said.seq, said.attempt)
            before = self._seen.get(task)
            if before is not None and (said.waits or before.said is None or _moved(before.said, said)):
                self._seen[task] = Seen(said, now)

    def at(self, run: str) -> dict[str, Progress]:
        """What each site is at in a run, by its name: one thing each."""
        return {site: said for site, busy in self._at.items() for said in reversed(busy) if said.run == run}

    async def watch(self, stop: asyncio.Event) -> None:
        """Give up what stands still, until the server stops. Wakes when the next task could be too late, not more often."""
        while not stop.is_set():
            wait_s = self.look()
            changed, stopping = self._bells.listen(ARRANGE), asyncio.ensure_future(stop.wait())
            either: list[asyncio.Future[Any]] = [changed, stopping]
            await asyncio.wait(either, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            stopping.cancel()

    def look(self) -> float:
        """Give up what stands still; the seconds after which something else could."""
        now = self._clock()
        out = dict(self._out())
        self._seen = {task: self._seen.get(task) or Seen(None, now) for task in out}
        patience = [run.what.progress_s for run in self._book.runs.values() if run.state == "running"]
        wait_s = min([IDLE_S, *(each for each in patience if each is not None)])
        for task, most_s in out.items():
            left_s = self._seen[task].since + most_s - now
            if left_s <= 0:
                self._give_up(task.run, task.site, task.seq, f"no progress for {most_s:g} s")
            else:
                wait_s = min(wait_s, left_s)
        return wait_s

    def _out(self) -> Iterator[tuple[Task, float]]:
        """The tasks that are out, and how long they may stand still."""
        for run in self._book.runs.values():
            if run.state == "running" and run.what.progress_s is not None:
                for step in run.steps.values():
                    if step.closed is None:
                        for asked in step.asked.values():
                            if asked.state == "out":
                                yield Task(run.id, run.what.sites[asked.slot], step.seq, asked.attempt), run.what.progress_s


def _moved(before: Progress, said: Progress) -> bool:
    return (before.bytes, before.steps, before.fraction) != (said.bytes, said.steps, said.fraction)
