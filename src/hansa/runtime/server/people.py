"""The people's REST API: what is asked, whether it may be, and what is done about it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec
from cryptography import x509

from hansa.errors import InputError, RefusedError, StorageError
from hansa.runtime.authz.author import check_author
from hansa.runtime.authz.policy import Member, Policy
from hansa.runtime.authz.rights import permits
from hansa.runtime.jobs.bundle import Bundle, open_bundle
from hansa.runtime.server.bells import rung
from hansa.runtime.server.door import Asker, Door
from hansa.runtime.server.inbox import Inbox
from hansa.runtime.server.known import PROJECT, Run, Submitted, stream_of
from hansa.runtime.server.live import Live
from hansa.runtime.server.places import Places
from hansa.runtime.server.presence import Presence
from hansa.runtime.server.progress import Progresses
from hansa.runtime.server.quotas import Quotas
from hansa.runtime.server.scheduler import Scheduler
from hansa.runtime.server.transfers import Way
from hansa.runtime.server.views import (
    Audit,
    EventList,
    FileList,
    FileView,
    PlanView,
    RunView,
    SiteView,
    Submission,
    event_view,
    run_view,
    site_view,
)
from hansa.runtime.store.event import Entry, Event, Events
from hansa.runtime.store.untrusted import open_below

PAGE: Final = 1_000  # events of one answer
GATHER_S: Final = 0.1  # from the first that a held answer waited for to the answer: a second's hundred events are ten answers


class NotThereError(InputError):
    """There is no such run, site or file: or none that the asker may know of."""

    code = "not_found"


@dataclass(frozen=True)
class People:
    """What people can do."""

    door: Door
    inbox: Inbox
    events: Events
    scheduler: Scheduler
    presence: Presence
    places: Places
    live: Live
    progresses: Progresses
    ca: x509.Certificate
    way: Way = field(default_factory=Way)
    quotas: Quotas = field(default_factory=Quotas)
    submitting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def submit(self, asker: Asker, asked: Submission) -> RunView:
        """The run that was made of a bundle. One is looked at at a time: a request that is sent again meanwhile finds the run of
        the first, and no more than one bundle is unpacked in memory.

        Raises:
            RefusedError: the right is missing, or the project's rules say no. IdentityError: the bundle is not signed by the asker.
            InputError: no such bundle or site.
        """
        await self.door.require(asker, "run.submit", asked.bundle, own=True)
        async with self.submitting:
            return await self._submit(asker, asked)

    async def _submit(self, asker: Asker, asked: Submission) -> RunView:
        for run in self.inbox.book.runs.values():
            if asked.request and (run.what.author, run.what.request) == (asker.name, asked.request):
                return self.shown(run)
        if self.inbox.blobs.free_bytes == 0:
            hint = "its administrator has to free some space; runs that are under way go on then, and nothing is lost"
            raise StorageError("the server's disk is nearly full: it takes no new work", hint=hint)
        policy = self.door.policy
        bundle, size = await asyncio.to_thread(self._bundle, asked.bundle, policy)
        manifest = bundle.manifest
        author = check_author(manifest, ca=self.ca, policy=policy, now=datetime.now(UTC).timestamp())
        if author.name != asker.name:
            raise RefusedError("the bundle is another author's", got=author.name, expected=asker.name, hint="submit your own job")
        if bundle.plan.secure:  # never plain in silence
            hint = "it is exact in simulation; without a secure protocol use the intrinsic without `secure`, if the sites agree"
            raise RefusedError(
                f"this federation has no secure protocol for {', '.join(bundle.plan.secure)}", path="plan", hint=hint
            )
        sites = _sites(policy, asked.sites)
        least = len(sites) if asked.min_sites is None else asked.min_sites
        if not policy.rules.min_cohort <= least <= len(sites):
            expected = f"{policy.rules.min_cohort} (the project's minimum) to {len(sites)}"
            raise RefusedError("not with so few or so many sites", path="min_sites", got=least, expected=expected)
        what = Submitted(
            run=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{manifest.job}-{secrets.token_hex(2)}",
            job=manifest.job,
            author=asker.name,
            org=asker.member.org,
            bundle=asked.bundle,
            bundle_bytes=size,
            data=manifest.data,
            job_hash=manifest.plan_hash,
            reference=manifest.reference,
            seed=manifest.seed if asked.seed is None else asked.seed,
            sites=sites,
            min_sites=least,
            priority=asked.priority,
            progress_s=manifest.progress_s,
            cores=manifest.cores,
            gpus=manifest.gpus,
            memory_mb=manifest.memory_mb,
            request=asked.request,
            label=asked.label,
        )
        audit = self.door.permitted(asker, "run.submit", what.run)
        await self.inbox.commit({stream_of(what.run): [Entry("run.submitted", msgspec.to_builtins(what))], PROJECT: [audit]})
        self.quotas.named(asker.name, what.bundle)
        return self.shown(self.inbox.book.runs[what.run])

    def shown(self, run: Run) -> RunView:
        """The run as people see it, with what its sites are at and what it waits for."""
        return run_view(run, self.progresses.at(run.id) if not run.over else {}, self.scheduler.waits(run))

    async def run(self, asker: Asker, name: str, command: str = "run.show") -> Run:
        """The run of that name, if the asker may do this to it.

        Raises:
            NotThereError: there is none. RefusedError: they may not.
        """
        run = self.inbox.book.run(name)
        if run is None:
            await self.door.require(asker, "run.list", name)
            raise NotThereError("no such run", run=name[:200], hint="see `hansa job list`")
        own, same = run.what.author == asker.name, run.what.org == asker.member.org
        await self.door.require(asker, command, run.id, own=own, same_org=same)
        return run

    async def steer(self, asker: Asker, name: str, verb: Literal["abort", "pause", "resume"], reason: str) -> RunView:
        """The run after it was aborted, paused or resumed; asked again, nothing changes.

        Raises:
            InputError: it has ended, or was not paused.
        """
        run = await self.run(asker, name, f"run.{verb}")
        goal = {"abort": "aborted", "pause": "paused", "resume": "running"}[verb]
        if run.state == goal:
            return self.shown(run)
        allowed = {"abort": ("pending", "running", "paused"), "pause": ("running",), "resume": ("paused",)}[verb]
        if run.state not in allowed:
            raise InputError(f"a run that is {run.state} cannot be {goal}", run=run.id, expected=" or ".join(allowed))
        why = f"{verb} by {asker.name}" + (f": {reason}" if reason else "")
        audit = self.door.permitted(asker, f"run.{verb}", run.id)
        if verb == "abort":
            await self.scheduler.end(run, "run.ended", {"state": "aborted", "reason": why, "code": "aborted"}, audit)
        else:
            await self.scheduler.end(run, "run.paused" if verb == "pause" else "run.resumed", {"reason": why}, audit)
        return self.shown(run)

    async def delete(self, asker: Asker, name: str) -> None:
        """Remove a run that has ended, with its folder; what happened stays on record.

        Raises:
            InputError: it has not ended.
        """
        run = await self.run(asker, name, "run.delete")
        if not run.over:
            raise InputError("the run has not ended", run=run.id, got=run.state, hint="abort it first")
        await self.scheduler.settled(run.id)
        audit = self.door.permitted(asker, "run.delete", run.id)
        await self.inbox.commit({stream_of(run.id): [Entry("run.deleted", {"by": asker.name})], PROJECT: [audit]})
        await asyncio.to_thread(self.places.remove, run.id)

    async def happened(self, asker: Asker, name: str, after: int, live_after: int | None, hold_s: float) -> EventList:
        """What has happened in a run since event `after`, and its live lines from `live_after` on, unless that is None.

        Waits for something for at most `hold_s`. Log lines are for those who may have the results.
        """
        run = await self.run(asker, name)
        own, same = run.what.author == asker.name, run.what.org == asker.member.org
        logs = permits(asker.member.role, "run.download", own=own, same_org=same)

        async def look() -> EventList:
            found = await asyncio.to_thread(self._read, stream_of(run.id), after)
            lines, ends = ([], None) if live_after is None else await asyncio.to_thread(self.live.page, run.id, live_after)
            shown = [line for line in lines if logs or line["kind"] != "log"]
            return EventList([event_view(event) for event in found], found[-1].seq if found else after, shown, ends)

        heard = [self.inbox.bells.listen(stream_of(run.id))]
        heard += [] if live_after is None else [self.inbox.bells.listen(f"live/{run.id}")]
        told = await look()
        if not (told.events or told.live) and hold_s > 0 and not self.inbox.closing:
            await rung(heard, hold_s, gather_s=GATHER_S)
            self.door.still(asker)
            told = await look()
        for each in heard:
            each.cancel()
        return told

    async def files(self, asker: Asker, name: str) -> FileList:
        """The files of a run folder."""
        run = await self.run(asker, name, "run.download")
        return FileList(await asyncio.to_thread(_listed, self.places.folder(run.id)))

    async def file(self, asker: Asker, name: str, path: str) -> tuple[Callable[[], BinaryIO], int]:
        """What opens a file of a run folder, and how many bytes it has.

        Raises:
            NotThereError: the folder has no such file.
        """
        run = await self.run(asker, name, "run.download")
        folder = self.places.folder(run.id)
        sizes = {each.path: each.bytes for each in await asyncio.to_thread(_listed, folder)}
        if path not in sizes:
            raise NotThereError("the run folder has no such file", run=run.id, path=path[:200])
        return partial(open_below, folder, path), sizes[path]  # the job's code may put something else there meanwhile

    async def plan(self, asker: Asker, name: str) -> PlanView:
        """What runs and what leaves, as the run's bundle says."""
        run = await self.run(asker, name)
        bundle, _ = await asyncio.to_thread(self._bundle, run.what.bundle, self.door.policy)
        return PlanView(str(bundle.plan), bundle.plan, bundle.manifest.plan_hash, bundle.manifest.reference, bundle.manifest.files)

    async def sites(self, asker: Asker) -> list[SiteView]:
        """The sites of the roster."""
        await self.door.require(asker, "site.list", "sites")
        now = self.inbox.clock.now()
        members = [member for member in self.door.policy.members if member.kind == "site"]
        return [self._site_view(member, now) for member in members]

    def first_end(self) -> float:
        """When the first certificate of a site ends that is in the roster, in seconds since 1970; 0 if none is known."""
        gone = {entry.name for entry in self.door.policy.revoked}
        sites = [each.name for each in self.door.policy.members if each.kind == "site" and each.name not in gone]
        return min((end for name in sites if (end := self._certified(name)) is not None), default=0.0)

    def _certified(self, site: str) -> float | None:
        """Until when the site's certificate is good, as far as is known: as it last showed it, or got it from here."""
        return self.door.certified.get(site) or self.inbox.book.site(site).certified

    def _site_view(self, member: Member, now: float) -> SiteView:
        revoked = self.door.policy.revocation(member.name)
        key = self.door.keys.get(member.name, "")
        return site_view(member, self.inbox.book, self.presence, revoked, now, self._certified(member.name), key)

    async def switch(self, asker: Asker, name: str, *, on: bool, reason: str) -> SiteView:
        """Work with a site, or do not: what it was asked is then given up."""
        command = "site.enable" if on else "site.disable"
        member = self.door.policy.member(name)
        await self.door.require(asker, command, name, same_org=member is not None and member.org == asker.member.org)
        if member is None or member.kind != "site":
            raise NotThereError("no such site", site=name[:200], hint="see `hansa site list`")
        kind = "site.enabled" if on else "site.disabled"
        data = {"site": name} if on else {"site": name, "reason": f"by {asker.name}" + (f": {reason}" if reason else "")}
        await self.inbox.commit({PROJECT: [self.door.permitted(asker, command, name), Entry(kind, data)]})
        if not on:
            self.inbox.lose(name, "disabled")
        return self._site_view(member, self.inbox.clock.now())

    async def audit(self, asker: Asker, stream: str, after: int) -> Audit:
        """A stream of the record, as it is chained."""
        await self.door.require(asker, "audit.read", stream)
        heads = await asyncio.to_thread(self.events.heads)
        found = await asyncio.to_thread(self._read, stream, after)
        return Audit(sorted(heads), list(found), found[-1].seq if found else after)

    def _read(self, stream: str, after: int) -> list[Event]:
        return list(itertools.islice(self.events.read(stream, after), PAGE))

    def _bundle(self, digest: str, policy: Policy) -> tuple[Bundle, int]:
        size, most = self.inbox.blobs.size(digest), policy.rules.max_job_mb << 20
        if size is None:
            raise NotThereError("the bundle is not here", path=digest, hint="upload it first: PUT /v1/blobs/{digest}")
        if size > most:
            raise RefusedError("the bundle is too large for this project", got=f"{size:,} bytes", expected=f"at most {most:,}")
        with self.inbox.blobs.open(digest) as file:
            return open_bundle(file.read()), size


def _sites(policy: Policy, wanted: Sequence[str] | None) -> list[str]:
    revoked = {entry.name for entry in policy.revoked}
    known = [member.name for member in policy.members if member.kind == "site" and member.name not in revoked]
    names = known if wanted is None else list(wanted)
    if len(set(names)) != len(names):
        raise InputError("a site is named twice", path="sites", got=", ".join(names)[:200])
    if unknown := [name for name in names if name not in known]:
        raise InputError("no such site", path="sites", got=", ".join(unknown)[:200], expected=", ".join(known)[:500])
    return names


def _listed(folder: Path) -> list[FileView]:
    """The folder's files: regular ones that are not hidden."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()}
    shown = {name: path for name, path in found.items() if not any(part.startswith(".") for part in name.parts)}
    return [FileView(name.as_posix(), path.stat().st_size) for name, path in shown.items()]
