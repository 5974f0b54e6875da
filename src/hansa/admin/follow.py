"""A run as it is watched: progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hansa.admin.answers import RunEvent, Status
from hansa.admin.client import Run
from hansa.errors import UnreachableError
from hansa.record.progress import Mode, Progress
from hansa.runtime.audit.chain import inert

SETTLE_S = 2.0  # for which something must have kept a run from starting before it is told
PAUSE_S = 2.0  # between two lines of one site's numbers
_TOLD = {"site.refused", "task.lost", "run.paused", "run.resumed", "run.crashed", "run.ended"}


def follow(run: Run, *, mode: Mode = "auto", hold_s: float = 25.0, each: Callable[[], list[str]] = list) -> Status:
    """Show a run on stderr until it has ended; how it ended. `each` is called between events; what it gives is shown as lines."""
    status = run.status()
    waiting = _Waiting(run)
    with Progress(
        status.rounds, sites=len(status.sites), title=status.job, mode="silent" if mode == "silent" else "plain"
    ) as plain:
        events = _events(run, plain, lambda: waiting.hold_s(hold_s), lambda: [*each(), *waiting.news()])
        ready = _before_rounds(events, plain)
    waiting.over = True
    if ready is None:
        return run.status()
    with Progress(ready, sites=len(status.sites), title=status.job, mode=mode) as shown:
        asked = answered = 0
        lately: dict[str, float] = {}
        for event in events:
            match event.kind:
                case "round":
                    shown.round_done(event.record)
                case "task.opened":
                    asked, answered = len(event.data.get("slots", [])), 0
                case "result":
                    answered += 1
                    shown.sites_done(answered, asked)
                case "metric" | "log" if _worth(event, lately):
                    shown.note(str(event))
                case kind if kind in _TOLD - {"run.ended"}:
                    shown.note(str(event))
    return run.status()


@dataclass
class _Waiting:
    """What a run that has not begun waits for. A thing is told once, when it has held for a while: sites may be just starting."""

    run: Run
    over: bool = False
    since: dict[str, float] = field(default_factory=dict)  # on the monotonic clock; what was told is not in it
    told: set[str] = field(default_factory=set)

    def hold_s(self, most: float) -> float:
        """How long to wait for events before the next look."""
        return min(most, SETTLE_S) if self.since and not self.over else most

    def news(self) -> list[str]:
        """The lines that are to be told now."""
        if self.over:
            return []
        try:
            status = self.run.status()
        except UnreachableError:  # who asks for events says so, and waits for the server
            return []
        sites = [f"{site}: {working.waits}" for site, working in sorted(status.working.items()) if working.waits]
        lines = [inert(f"waits for {line}") for line in (*status.waits, *sites)] if status.state == "pending" else []
        now = time.monotonic()
        self.since = {line: self.since.get(line, now) for line in lines if line not in self.told}
        fresh = [line for line, at in self.since.items() if now - at >= SETTLE_S]
        self.told = {line for line in lines if line in self.told or line in fresh}
        self.since = {line: at for line, at in self.since.items() if line not in self.told}
        return fresh


def _before_rounds(events: Iterator[RunEvent], shown: Progress) -> int | None:
    """How many rounds the run has, once it says so; None if it ended before."""
    for event in events:
        if event.kind == "run.ready":
            return int(event.data.get("rounds", 0))
        if event.kind in _TOLD | {"run.submitted", "site.accepted", "run.started"}:
            shown.note(_line(event))
    return None


def _line(event: RunEvent) -> str:
    match event.kind:
        case "run.submitted":
            return f"submitted {event.data.get('run', '')} to {', '.join(event.data.get('sites', []))}"
        case "run.started":
            return f"started with {', '.join(event.data.get('sites', []))}"
        case _:
            return str(event)


def _worth(event: RunEvent, lately: dict[str, float]) -> bool:
    """Whether a live line is worth a line here: every record of a log, and the numbers of a site every few seconds."""
    if event.kind == "log":
        return True
    site = str(event.data.get("site"))
    worth = event.at - lately.get(site, -PAUSE_S) >= PAUSE_S
    if worth:
        lately[site] = event.at
    return worth


def _events(run: Run, shown: Progress, hold_s: Callable[[], float], each: Callable[[], list[str]]) -> Iterator[RunEvent]:
    after, lines = 0, 0
    while True:
        page = run.happened(after, lines, hold_s=hold_s(), note=shown.note)
        told = page.told(after)
        yield from told
        if any(event.kind in ("run.ended", "run.deleted") for event in told):
            return
        after, lines = page.after, page.live_after or 0
        for line in each():
            shown.note(line)
