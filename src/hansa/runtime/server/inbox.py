"""The inbox: every change is committed, then takes effect, then is answered. A repeat gets the same answer and changes nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from hansa.errors import InputError
from hansa.runtime.jobs import link
from hansa.runtime.jobs.link import Came
from hansa.runtime.protocol.messages import HOLD_S, Ack, Assignment, Ended, NotCounted, Offer, Result, Work
from hansa.runtime.server.bells import Bells
from hansa.runtime.server.known import Item, Run, Step, stream_of
from hansa.runtime.server.state import Book
from hansa.runtime.store.blob import Blobs
from hansa.runtime.store.event import Entry, Event
from hansa.runtime.store.group import GroupCommit

TEXT_LIMIT: Final = 4_000  # characters of a message or a path that a site sends
TRACE_LIMIT: Final = 16_000
RECORD_LIMIT: Final = 512 * 1024  # bytes of a round's record in an event; the run folder has all of it
WORK_LIMIT: Final = 100  # items of one answer to a poll

ARRANGE: Final = "arrange"  # the bell of the scheduler
_TO_ARRANGE: Final = frozenset(
    (
        *("run.submitted", "run.offered", "run.started", "run.resumed", "run.ended"),
        *("site.accepted", "site.refused", "site.hello", "site.enabled"),
    )
)

_OF_NOTE: Final = frozenset(  # what an operator acts on, or asks about
    (
        *("run.submitted", "run.started", "run.crashed", "run.paused", "run.resumed", "run.ended", "run.deleted", "task.lost"),
        *("site.accepted", "site.refused", "site.enrolled", "site.disabled", "site.enabled", "policy.taken", "policy.refused"),
    )
)
_LOG: Final = logging.getLogger("hansa.server")

Participates = Callable[[Run, str], Entry | None]  # None: ask the site; else what stands in for its answer


class Clock:
    """Seconds since 1970 that never go back while the server runs, whatever is done to the machine's clock."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        """The time."""
        return self._ahead + time.monotonic()


class Inbox:
    """Commits and their effects. `absent` says what stands in for a site that is not asked (None: it is asked).

    on_came: is called with each answer of a site, in the order of the commits, when it took effect.
    """

    def __init__(self, book: Book, group: GroupCommit, blobs: Blobs, clock: Clock) -> None:
        self.book, self.blobs, self.clock = book, blobs, clock
        self.bells = Bells()
        self.closing = False
        self.on_came: Callable[[str, Came], None] = lambda *_: None
        self._group = group
        self._tasks: set[asyncio.Task[list[Event]]] = set()
        self._answering: dict[tuple[str, int, int], asyncio.Future[list[Event]]] = {}

    def begin(self, batch: Mapping[str, Sequence[Entry]]) -> asyncio.Future[list[Event]]:
        """Commit, then take the effects, in the order of these calls, whether or not somebody awaits the events."""
        task = asyncio.create_task(self._commit(batch))
        self._tasks.add(task)
        task.add_done_callback(self._committed)
        return task

    def _committed(self, task: asyncio.Task[list[Event]]) -> None:
        """A commit has ended. One that failed is told of, also where nobody waits for it."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("event.not_committed why=%r", str(error))

    async def commit(self, batch: Mapping[str, Sequence[Entry]]) -> list[Event]:
        """Commit, then take the effects; returns when both are done. A caller that is cancelled does not take its commit back.

        Raises:
            StorageError: nothing was committed.
        """
        return await asyncio.shield(self.begin(batch))

    async def _commit(self, batch: Mapping[str, Sequence[Entry]]) -> list[Event]:
        committed = await self._group.commit(batch, at=self.clock.now())
        events = sorted((event for added in committed.values() for event in added), key=lambda event: event.id)
        told: set[str] = set()
        for event in events:
            told |= self.book.apply(event)
            if event.kind in _OF_NOTE:
                _LOG.info("event.committed kind=%s stream=%s seq=%d what=%s", event.kind, event.stream, event.seq, _facts(event))
            self._pass_on(event)
        self.bells.ring(*(f"site/{name}" for name in told), *committed)
        if any(event.kind in _TO_ARRANGE for event in events):
            self.bells.ring(ARRANGE)
        return events

    def _pass_on(self, event: Event) -> None:
        """Tell the run's process what came."""
        if event.kind in ("result", "task.lost"):
            name = event.stream.removeprefix("run/")
            run = self.book.runs.get(name)
            step = run.steps.get(event.data["seq"]) if run is not None else None
            came = step.came[-1] if step is not None and step.came else None
            what = (event.data["slot"], event.data["attempt"], event.kind == "task.lost")
            if came is not None and (came.slot, came.attempt, came.lost) == what:
                self.on_came(name, came)

    async def poll(self, site: str, after: int, hold_s: float, allowed: Callable[[], Awaitable[None]]) -> Work:
        """What is new for a site since event `after`: at once, or when there is something, or nothing after `hold_s`.

        What lies behind `after` and is only said once is forgotten. `allowed` is asked whenever the poll wakes: it raises when the
        site may not be served any more.
        """
        own, deadline = self.book.site(site), time.monotonic() + min(hold_s, HOLD_S)
        if after > self.book.last:  # a site that remembers more than we do: its agent compares the epochs
            after = 0
        for number in [number for number, item in own.items.items() if number <= after and _said_once(item)]:
            del own.items[number]
        while True:
            await allowed()
            fresh = [(number, own.items[number]) for number in sorted(own.items) if number > after][:WORK_LIMIT]
            if fresh:
                return _work(fresh)
            if self.closing or not await self.bells.wait(f"site/{site}", deadline - time.monotonic()):
                return Work(after=after)

    async def answer(self, site: str, result: Result) -> Ack:
        """What becomes of a site's result, committed.

        Raises:
            InputError: its blob is not here. StorageError: it cannot be committed; the site sends it again.
        """
        key = (result.run, result.seq, result.slot)
        while (under_way := self._answering.get(key)) is not None:
            await asyncio.wait([under_way])
        verdict = judge(self.book, site, result)
        if isinstance(verdict, Ack):
            return verdict
        if result.blob is not None and self.blobs.size(result.blob) != result.blob_bytes:
            hint = "upload it before the result"
            raise InputError(
                "the result's blob is not here", path=result.blob[:64], expected=f"{result.blob_bytes} bytes", hint=hint
            )
        await asyncio.shield(self._answer(key, verdict))
        return Ack(outcome="accepted")

    async def open(self, run: Run, asked: link.Open, absent: Participates) -> link.Step:
        """Open a run's next step, or say what is known of it if it was open before.

        Raises:
            InputError: the run ended meanwhile.
        """
        step = run.steps.get(asked.seq)
        if step is None:
            opened = Entry("task.opened", msgspec.to_builtins(asked))
            instead = [entry for slot in asked.slots if (entry := _instead(run, asked.seq, slot, 1, absent)) is not None]
            await self.commit({stream_of(run.id): [opened, *instead]})
            if (step := run.steps.get(asked.seq)) is None:
                raise InputError("the run has ended", run=run.id)
        differs = None
        if not step.same((asked.task, asked.round, asked.body, tuple(asked.slots))):
            differs = f"task {step.task!r} of round {step.round}, body {step.body[:12]}"
        return link.Step(
            seq=step.seq,
            opened_at=step.opened_at,
            now=self.clock.now(),
            last=max(run.steps),
            differs=differs,
            closed=step.closed,
            came=step.came,
        )

    async def again(self, run: Run, asked: link.Assign, absent: Participates) -> None:
        """Ask sites once more, each attempt once."""
        step = run.steps[asked.seq]
        fresh = [(slot, attempt) for slot, attempt in asked.again if attempt > step.asked[slot].attempt]
        entries = [Entry("task.assigned", {"seq": asked.seq, "slot": slot, "attempt": attempt}) for slot, attempt in fresh]
        instead = [entry for slot, n in fresh if (entry := _instead(run, asked.seq, slot, n, absent)) is not None]
        if entries:
            await self.commit({stream_of(run.id): [*entries, *instead]})

    def lose(self, site: str, why: str) -> None:
        """Give up what the site was asked; what is being given up, or answered, is not given up again."""
        for run in self.book.runs.values():
            slot = run.slot_of(site)
            if slot is None or run.over:
                continue
            for step in run.steps.values():
                asked = step.asked.get(slot)
                key = (run.id, step.seq, slot)
                if asked is not None and asked.state == "out" and key not in self._answering:
                    self._answer(key, _lost(step, slot, asked.attempt, why))

    def give_up(self, name: str, site: str, seq: int, why: str) -> None:
        """Give up what a site that is there was asked in one step."""
        run = self.book.runs[name]
        slot, step = run.slot_of(site), run.steps.get(seq)
        asked = step.asked.get(slot) if step is not None and slot is not None else None
        if step is not None and asked is not None and asked.state == "out" and (name, seq, asked.slot) not in self._answering:
            lost = _lost(step, asked.slot, asked.attempt, why)
            self._answer((name, seq, asked.slot), Entry(lost.kind, {**lost.data, "site": site, "stalled": True}))

    def _answer(self, key: tuple[str, int, int], entry: Entry) -> asyncio.Future[list[Event]]:
        """Put on record what came of what a site was asked: one thing at a time."""
        self._answering[key] = committing = self.begin({stream_of(key[0]): [entry]})
        committing.add_done_callback(lambda _: self._answering.pop(key, None))
        return committing

    def hang_up(self) -> None:
        """Answer all that is held: the server stops."""
        self.closing = True
        self.bells.ring_all()

    async def close(self) -> None:
        """Wait for what is being committed."""
        if self._tasks:
            await asyncio.wait(self._tasks)


def judge(book: Book, site: str, result: Result) -> Ack | Entry:
    """What becomes of a result: an answer that changes nothing, or the entry to commit, which is then `accepted`. Pure.

    accepted: counted, or a repeat of what was. duplicate: something else was counted. stale: the site was asked again since.
    late: it was given up, or the step has ended. ended: the run has. foreign: it was never asked.
    """
    run = book.run(result.run)
    if run is None or run.slot_of(site) != result.slot:
        return Ack(outcome="foreign")
    if run.over:
        return Ack(outcome="ended")
    if result.seq == 0:
        return _offer_answered(run, site, result)
    step = run.steps.get(result.seq)
    if step is None:
        known = run.newest.get(result.slot) == (result.seq, result.attempt, result.blob)  # its acknowledgement was lost
        return Ack(outcome="accepted" if known else "late" if 0 < result.seq <= run.floor else "foreign")
    asked = step.asked.get(result.slot)
    if asked is None or result.attempt > asked.attempt or result.attempt < 1:
        return Ack(outcome="foreign")
    if result.attempt < asked.attempt:
        return Ack(outcome="stale")
    if asked.state == "answered":
        return Ack(outcome="accepted" if asked.blob == result.blob else "duplicate")
    if asked.state != "out":
        return Ack(outcome="late")
    return Entry("result", _data(site, result))


def _offer_answered(run: Run, site: str, result: Result) -> Ack | Entry:
    message = result.message or result.code or ""
    if not run.offered:
        return Ack(outcome="foreign")
    if site in run.answers:
        return Ack(outcome="accepted" if bool(run.answers[site]) == (result.code is not None) else "duplicate")
    if result.code is None:
        return Entry("site.accepted", {"site": site, "slot": result.slot})
    data = {"site": site, "slot": result.slot, "code": result.code[:64], "message": message[:TEXT_LIMIT]}
    return Entry("site.refused", data)


def _data(site: str, result: Result) -> dict[str, object]:
    data: dict[str, object] = {
        "seq": result.seq,
        "slot": result.slot,
        "attempt": result.attempt,
        "site": site,
        "seconds": result.seconds,
    }
    if result.code is None and result.blob is not None:
        return data | {"blob": result.blob, "blob_bytes": result.blob_bytes}
    failure = {"code": (result.code or "empty")[:64], "message": result.message[:TEXT_LIMIT] or "the site sent nothing"}
    if result.path:
        failure["path"] = result.path[:TEXT_LIMIT]
    return data | failure | ({"trace": result.trace[-TRACE_LIMIT:]} if result.trace else {})


def _instead(run: Run, seq: int, slot: int, attempt: int, absent: Participates) -> Entry | None:
    """What stands in for the answer of a site that is not asked; None if it is."""
    site = run.what.sites[slot]
    entry = absent(run, site)
    if entry is None:
        return None
    return Entry(entry.kind, {"seq": seq, "slot": slot, "attempt": attempt, "site": site, **entry.data})


def _lost(step: Step, slot: int, attempt: int, why: str) -> Entry:
    return Entry("task.lost", {"seq": step.seq, "slot": slot, "attempt": attempt, "reason": why})


def _facts(event: Event) -> str:
    """What an event says, short: plain values alone."""
    return ",".join(f"{name}:{value}"[:200] for name, value in event.data.items() if isinstance(value, str | int | float))[:1_000]


def _said_once(item: Item) -> bool:
    return isinstance(item, Ended | NotCounted)


def _work(fresh: Sequence[tuple[int, Item]]) -> Work:
    items = [item for _, item in fresh]
    return Work(
        after=fresh[-1][0],
        offers=[item for item in items if isinstance(item, Offer)],
        assignments=[item for item in items if isinstance(item, Assignment)],
        ended=[item for item in items if isinstance(item, Ended)],
        not_counted=[item for item in items if isinstance(item, NotCounted)],
    )
