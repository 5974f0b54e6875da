"""The scheduler: which runs are offered, start, wait, and end. It wakes when something has changed, and looks at all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hansa.errors import HansaError, RunError, StorageError
from hansa.runtime.authz.policy import Policy
from hansa.runtime.jobs.link import Came
from hansa.runtime.protocol.messages import Hello
from hansa.runtime.server.inbox import ARRANGE, Inbox
from hansa.runtime.server.known import PROJECT, Run, stream_of
from hansa.runtime.server.places import Places
from hansa.runtime.server.presence import Presence
from hansa.runtime.server.runner import Enclosing, Runner
from hansa.runtime.server.state import Book
from hansa.runtime.store.event import Entry

_LOG: Final = logging.getLogger("hansa.server")
RETRY_S: Final = 30.0  # after which a run that the disk had no room for is tried again
UNUSED_S: Final = 600.0  # age after which a blob that nothing refers to is removed: uploads are referred to sooner


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done: offer these runs, refuse those (with the reason), start these."""

    offer: tuple[str, ...] = ()
    refuse: tuple[tuple[str, str], ...] = ()
    start: tuple[str, ...] = ()


def decide(book: Book, online: frozenset[str], *, most: int) -> Decision:
    """What is to be done now. Higher priorities first, and first come first served among equals. Pure.

    A run starts when enough sites have accepted, nobody who is there still thinks about it, and each has free what it asks for.
    One that is ready but waits for a site keeps that site from those behind it; one that waits for an answer holds nobody up.
    """
    runs = [run for run in book.runs.values() if not run.over and not run.deleted]
    going = [run for run in runs if run.state == "running"]
    load: Counter[tuple[str, str]] = Counter()
    for run in going:
        _load(load, run, run.accepted)
    refuse: list[tuple[str, str]] = []
    start: list[str] = []
    waiting = sorted(
        (run for run in runs if run.state == "pending" and run.offered), key=lambda run: (-run.what.priority, run.created)
    )
    for run in waiting:
        undecided = [site for site in run.what.sites if site not in run.answers]
        if len(run.accepted) + len(undecided) < run.what.min_sites:
            refuse.append((run.id, _why(run)))
            continue
        there = [site for site in run.accepted if site in online and book.site(site).disabled is None]
        if len(there) < run.what.min_sites or any(site in online for site in undecided):
            continue
        _load(load, run, there)
        fits = all(load[site, what] <= has for site in there for what, has in _gives(book, site).items())
        if fits and len(going) + len(start) < most:
            start.append(run.id)
    return Decision(tuple(run.id for run in runs if not run.offered), tuple(refuse), tuple(start))


class Scheduler:
    """Carries the decisions out, and owns the runners. `most`: runs that go on at once."""

    def __init__(
        self,
        inbox: Inbox,
        presence: Presence,
        places: Places,
        policy: Policy,
        environment: Mapping[str, str],
        walls: Enclosing,
        *,
        most: int,
    ) -> None:
        self._inbox, self._presence, self._places, self._policy = inbox, presence, places, policy
        self._environment, self._walls, self._most = environment, walls, most
        self._live: dict[str, tuple[Runner, asyncio.Task[None]]] = {}
        self._unrecorded: dict[str, str] = {}  # runs of which something could not be put on record, and why
        self._closing, self._roomy = False, True
        self.on_end: Callable[[str], None] = lambda _: None  # is told of runs whose process has ended
        inbox.on_came = self._came

    @property
    def live(self) -> int:
        """Runs whose process is up."""
        return len(self._live)

    async def watch(self, stop: asyncio.Event) -> None:
        """Arrange the runs whenever something changes, until the server stops."""
        while not stop.is_set():
            changed = self._inbox.bells.listen(ARRANGE)
            await self._arrange()
            stopping = asyncio.create_task(stop.wait())
            either: list[asyncio.Future[Any]] = [changed, stopping]
            await asyncio.wait(either, timeout=RETRY_S, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            stopping.cancel()

    async def close(self) -> None:
        """End the processes of all runs; they go on when the server is started again."""
        self._closing = True
        for runner, _ in self._live.values():
            runner.stop("the server stops")
        if self._live:
            await asyncio.wait([task for _, task in self._live.values()])

    async def end(self, run: Run, kind: str, data: Mapping[str, Any], audit: Entry) -> None:
        """Abort or pause a run: on record first, then its process ends."""
        await self._inbox.commit({stream_of(run.id): [Entry(kind, data)], PROJECT: [audit]})
        if (live := self._live.get(run.id)) is not None:
            live[0].stop(str(data.get("reason") or kind))

    async def settled(self, run: str) -> None:
        """Return when the run has no process any more."""
        if (live := self._live.get(run)) is not None:
            await asyncio.wait([live[1]])

    def absent(self, run: Run, site: str) -> Entry | None:
        """What stands in for the answer of a site that cannot be asked now; None if it can."""
        answer = run.answers.get(site)
        if answer:
            return Entry("result", {"code": "refused", "message": answer})
        reason = "it has not answered the offer" if answer is None else self._away(site)
        return None if reason is None else Entry("task.lost", {"reason": reason})

    def waits(self, run: Run) -> list[str]:
        """What a run that has not started waits for, a line each; not what sites that are there say of themselves."""
        if not run.over and (why := self._unrecorded.get(run.id)):
            return [why]
        if run.state != "pending" or not run.offered:
            return []
        wanted = [site for site in run.what.sites if not run.answers.get(site)]
        away = {site: why for site in wanted if (why := self._away(site)) is not None}
        there = [site for site in wanted if site not in away]
        if len(there) < run.what.min_sites:
            return [f"{site}: {why}" for site, why in away.items()]
        if (
            any(site not in run.answers for site in there)
            or run.id in decide(self._inbox.book, self._online, most=self._most).start
        ):
            return [] if self._inbox.blobs.free_bytes > 0 else ["the server's disk is nearly full: it begins no new work"]
        return ["other runs are in its place: at the server, or at a site that it needs"]

    @property
    def _online(self) -> frozenset[str]:
        return frozenset(site for site in self._inbox.book.sites if self._presence.online(site))

    def _away(self, site: str) -> str | None:
        """Why a site cannot be asked now; None if it can."""
        known = self._inbox.book.site(site)
        member = self._policy.member(site)
        reasons = {
            f"it is disabled: {known.disabled}": known.disabled is not None,
            "it is not in the roster": member is None or any(entry.name == site for entry in self._policy.revoked),
            "it is not there": not self._presence.awaited(site),  # an agent that is started anew goes on
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def use(self, policy: Policy) -> None:
        """Work with this roster from now on: what a revoked site was asked is given up."""
        self._policy = policy
        for entry in policy.revoked:
            if entry.name:
                self._inbox.lose(entry.name, "revoked")

    def _came(self, run: str, came: Came) -> None:
        if (live := self._live.get(run)) is not None:
            live[0].came(came)

    async def _arrange(self) -> None:
        book, inbox = self._inbox.book, self._inbox
        decision = decide(book, self._online, most=self._most)
        for name in decision.offer:
            await self._enter(name, Entry("run.offered", {"sites": book.runs[name].what.sites}))
        for name, reason in decision.refuse:
            await self._enter(name, Entry("run.ended", {"state": "refused", "reason": reason, "code": "refused"}))
        for name in decision.start if self._room() else ():
            await self._enter(name, Entry("run.started", {"sites": book.runs[name].accepted}))
        for site in [site for site in book.sites if not self._presence.awaited(site)]:
            inbox.lose(site, "it is not there")  # said again where it could not be put on record
        for run in book.runs.values():
            if run.state == "running" and run.id not in self._live and not self._closing:
                self._begin(run)

    async def _enter(self, run: str, entry: Entry) -> None:
        """Put on record what becomes of a run. What cannot be is told of, and waits: the other runs go on."""
        try:
            await self._inbox.commit({stream_of(run): [entry]})
        except HansaError as error:
            self._unrecorded[run] = f"the server cannot put {entry.kind} on record: {error.message}"
            _LOG.error("run.not_recorded run=%s kind=%s why=%r", run, entry.kind, str(error))
        else:
            self._unrecorded.pop(run, None)

    def _room(self) -> bool:
        """Whether there is room for new work; when that changes, the log says so."""
        room = self._inbox.blobs.free_bytes > 0
        if room != self._roomy:
            self._roomy = room
            if room:
                _LOG.info("disk.free path=%s", self._places.root)
            else:
                _LOG.warning("disk.low path=%s hint='no new work begins until some space is free'", self._places.root)
        return room

    def _begin(self, run: Run) -> None:
        runner = Runner(run, self._inbox, self._places, self.absent, self._environment, self._walls)
        task = asyncio.create_task(self._kept(run, runner))
        self._live[run.id] = (runner, task)

    async def _kept(self, run: Run, runner: Runner) -> None:
        """Own a runner until it ends. What goes wrong with one run must not end the server: it is tried again."""
        try:
            await runner.serve()
        except StorageError:  # there is no room for it now: it waits until the runs are looked at again
            del self._live[run.id]
            return
        except HansaError as error:
            await self._failed(run, error)
        except Exception:  # a fault of ours: the run says so, and the others go on
            _LOG.exception("run.fault run=%s", run.id)
            await self._failed(run, RunError("the server failed; its log says why", run=run.id))
        del self._live[run.id]
        self.on_end(run.id)
        self._inbox.bells.ring(ARRANGE)  # it may have been resumed meanwhile, and others may have waited for it
        with contextlib.suppress(StorageError):  # it is swept with the next one
            await self.sweep()

    async def _failed(self, run: Run, error: HansaError) -> None:
        """A run that cannot be started for what it is has failed."""
        await self._enter(run.id, Entry("run.ended", {"state": "failed", "reason": str(error), "code": error.code}))

    async def sweep(self) -> None:
        """Remove blobs that nothing refers to any more."""
        wanted = frozenset(self._inbox.book.wanted_blobs())
        await asyncio.to_thread(self._inbox.blobs.sweep, wanted, UNUSED_S, self._inbox.clock.now())


def _load(load: Counter[tuple[str, str]], run: Run, sites: Sequence[str]) -> None:
    """Add what a run asks of each of its sites."""
    asked = {"cores": run.what.cores, "gpus": run.what.gpus, "memory": run.what.memory_mb << 20}
    for site in sites:
        load.update({(site, what): amount for what, amount in asked.items()})


def _gives(book: Book, site: str) -> dict[str, float]:
    """What a site has for runs."""
    hello = book.site(site).hello or Hello(versions=[], software="")
    return {"cores": max(1, hello.cores), "gpus": hello.gpus, "memory": hello.memory_bytes or math.inf}


def _why(run: Run) -> str:
    said = "; ".join(f"{site}: {reason}" for site, reason in run.answers.items() if reason)
    return f"{run.what.min_sites} sites are needed of {len(run.what.sites)}; refused by {said}"
