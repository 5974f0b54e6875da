"""A site's agent: asks the server for work, passes it on to its part in each run, and says every 10 s that it is there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from hansa.errors import HansaError, IdentityError, InputError, StorageError
from hansa.files import storage_error, write_atomic
from hansa.runtime.authz.policy import read_policy
from hansa.runtime.client.leases import Leases
from hansa.runtime.client.outbox import Key, Outbox
from hansa.runtime.client.part import Part
from hansa.runtime.client.places import Places, Seen
from hansa.runtime.client.publishing import IDLE_S, LOOK_AGAIN_S, types_of
from hansa.runtime.client.renewing import credentials_of, keep_renewed
from hansa.runtime.client.site import Site
from hansa.runtime.client.workplace import Item
from hansa.runtime.config import POLICY_FILE, Kit, load_kit, load_site
from hansa.runtime.protocol.messages import (
    BEAT_S,
    CARRIES,
    HOLD_S,
    INSIDE,
    LOST_AFTER_S,
    VERSIONS,
    Beat,
    Ended,
    Hello,
    Welcome,
    Work,
)
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.transport.blobs import download, size_of
from hansa.runtime.transport.http import Connection
from hansa.runtime.transport.way import proxy_for

_LOG: Final = logging.getLogger("hansa.site")
LEAVE_S: Final = 2.0  # for the last heartbeat of an agent that stops
_MENDED: Final = frozenset(
    {"refused", "quota"}
)  # the project does not work with the site at present, or has no room: that may change


def serve(
    kit_folder: str | Path,
    *,
    stop: threading.Event | None = None,
    environment: Mapping[str, str],
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a site until `stop` is set; without one, until SIGTERM or SIGINT. `ready` is called when the server has let it in.

    `environment` is the process's own: of it come the proxy (HTTPS_PROXY, NO_PROXY), and a part for the workers.

    Raises:
        InputError: not a site's kit, or not enrolled. ConfigError: site.toml is missing or wrong: closed. IdentityError: the server
            does not let the site in, or is not the project's. StorageError: another agent works here; or the server was restored.
    """
    asyncio.run(_until(load_kit(kit_folder), stop, environment, ready))


async def _until(kit: Kit, stop: threading.Event | None, environment: Mapping[str, str], ready: Callable[[str], None]) -> None:
    """Serve until the stop; what ends the agent before is raised."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[Any] | None = None
    if stop is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
    else:
        waiting = asyncio.ensure_future(asyncio.to_thread(stop.wait))
        waiting.add_done_callback(lambda _: stopped.set())
    serving = asyncio.create_task(attend(kit, environment=environment, ready=ready))
    stopping = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, stopping):
            task.cancel()
        await asyncio.wait([serving, stopping])
        if stop is not None and waiting is not None:
            stop.set()
            await waiting


async def attend(kit: Kit, *, environment: Mapping[str, str], ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve a site until the caller cancels. Raises as `serve` does."""
    if kit.kind != "site":
        raise InputError("not a site's kit", path=str(kit.folder), got=kit.kind, hint="start it with the kit of a site")
    if not kit.enrolled:
        raise InputError("the kit is not enrolled yet", path=str(kit.folder), hint=f"hansa site enroll {kit.folder}")
    config = load_site(kit)
    places = Places(kit)
    places.make()
    credentials = credentials_of(kit)
    proxy = proxy_for(kit.url, environment, own=config.proxy, login=kit.proxy_login())
    with contextlib.closing(Outbox(places.outbox)) as outbox:
        async with Connection(credentials, proxy=proxy, passing=_MENDED, agent=secrets.token_hex(8)) as connection:
            roster = read_policy(kit.policy, kit.project_key)
            leases = Leases(config.resources, environment)
            site = Site(kit, kit.ca_certificate(), roster, places, outbox, connection, environment, leases)
            _LOG.info("site.starts site=%s server=%s sandbox=%s", kit.name, kit.url, config.sandbox)
            await Agent(site, ready).serve()


class Agent:
    """Owns the parts in all runs, the poll and the heartbeat."""

    def __init__(self, site: Site, ready: Callable[[str], None]) -> None:
        self._site, self._ready = site, ready
        self._group = asyncio.TaskGroup()
        self._parts: dict[str, tuple[Part, asyncio.Task[None]]] = {}
        self._ending: set[str] = set()
        self._pulse = asyncio.Event()  # set: a heartbeat is due
        self._types: dict[str, str] = {}
        self._greet = asyncio.Event()  # set: the server may be another than we knew
        site.connection.on_back = self._greet.set

    async def serve(self) -> None:
        """Work until the caller cancels, or the server does not let the site in any more."""
        try:
            async with self._group:
                await self._hello()
                self._ready(self._site.kit.url)
                for ended in self._site.places.ended():
                    self._finish(ended)
                for kept in self._site.outbox.pending():
                    self._part(kept.key.run)
                self._group.create_task(self._poll())
                self._group.create_task(self._beat())
                self._group.create_task(self._publish())
                self._group.create_task(keep_renewed(self._site.kit, self._site.connection))
        except BaseExceptionGroup as group:
            raise _first(group) from None
        except asyncio.CancelledError:  # told to stop: the server need not find out by our silence
            with contextlib.suppress(HansaError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._site.connection.tell("/v1/beats", Beat(leaving=True))
            raise

    async def _hello(self) -> None:
        """Greet the server, and look whether it is the one that we knew."""
        self._greet.clear()
        site, config = self._site, load_site(self._site.kit)
        hello = Hello(
            versions=list(VERSIONS),
            software=f"hansa {version('hansa')}",
            data={label: self._types.get(label, "") for label in config.data},
            environments=sorted(config.environments),
            cores=config.resources.cores or os.cpu_count() or 1,
            gpus=config.resources.gpus,
            memory_bytes=config.resources.memory_mb << 20,
            demands=config.policy.demands,
        )
        welcome = await site.connection.post("/v1/hello", hello, Welcome)
        site.inside = INSIDE if welcome.version >= CARRIES else 0
        seen = site.places.seen
        if welcome.epoch < seen.epoch:
            raise _restored(seen.epoch, welcome.epoch)
        if welcome.policy:
            document = welcome.policy.encode()
            site.roster = read_policy(document, site.kit.project_key, newer_than=site.roster)
            write_atomic(site.kit.folder / POLICY_FILE, [document])
        if seen.after:
            await self._take(*await self._ask(seen.after, hold_s=0.0))
        site.places.see(Seen(epoch=welcome.epoch, after=seen.after))
        _LOG.info("site.ready site=%s project=%s epoch=%d", site.name, welcome.project, welcome.epoch)

    async def _publish(self) -> None:
        """Say of what types the site's data are: when there is nothing else to do, and anew when its settings change."""
        while True:
            await asyncio.sleep(IDLE_S)  # a time, not a state: what comes first is done first
            while working := [serving for _, serving in self._parts.values()]:
                await asyncio.wait(working)
            types = await types_of(self._site)
            if types != self._types:
                self._types = types
                self._greet.set()
            await self._site.until_changed(LOOK_AGAIN_S)

    async def _poll(self) -> None:
        """Take on what is new, as soon as it is. After a silence all is listed again: nothing is done twice."""
        after = 0
        while True:
            if self._greet.is_set():
                await self._hello()
                after = 0
            heard = await self._heard(after)
            if heard is None:
                continue
            work, blobs = heard
            await self._take(work, blobs)
            if work.after > after:
                after = work.after
                seen = self._site.places.seen
                self._site.places.see(Seen(epoch=seen.epoch, after=max(after, seen.after)))

    async def _heard(self, after: int) -> tuple[Work, Mapping[str, memoryview]] | None:
        """What is new; None if the server should be greeted first, for which a held poll is given up."""
        asking = asyncio.create_task(self._ask(after, hold_s=HOLD_S))
        greeting = asyncio.create_task(self._greet.wait())
        try:
            await asyncio.wait([asking, greeting], return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            asking.cancel()
            greeting.cancel()
            await asyncio.wait([asking, greeting])

    async def _ask(self, after: int, *, hold_s: float) -> tuple[Work, Mapping[str, memoryview]]:
        """What is new, and the blobs that came with it."""
        site = self._site
        params = {"after": str(after), "hold_s": f"{hold_s:g}", "inside": str(site.inside)}
        work, content = await site.connection.carry("GET", "/v1/work", Work, params=params, hold_s=hold_s)
        if work.after < after:
            raise _restored(after, work.after)
        return work, _apart(work, content)

    async def _take(self, work: Work, blobs: Mapping[str, memoryview]) -> None:
        for each in work.not_counted:  # before the tasks that would read what these have left
            _LOG.warning("result.not_counted run=%s seq=%d why=%r", each.run, each.seq, each.reason)
            self._site.outbox.done(Key(each.run, each.seq, each.attempt, each.slot), counted=False)
        for asked in work.assignments:
            for attempt in range(1, asked.attempt):  # asked again: earlier answers did not count
                self._site.outbox.done(Key(asked.run, asked.seq, attempt, asked.slot), counted=False)
        for ended in work.ended:
            if ended.seq is None:
                await asyncio.to_thread(self._site.places.remember_end, ended)  # it is said once
                self._finish(ended)
            elif ended.run in self._parts:
                self._parts[ended.run][0].cancel(ended.seq, ended.attempt)
        items: list[Item] = [*work.offers, *work.assignments]
        for item in items:
            try:
                part = self._part(item.run)
            except InputError as error:
                _LOG.error("work.refused run=%r why=%r", item.run[:200], str(error))
                continue
            part.ask(item, blobs)
        if any(asked.progress_s is not None and asked.progress_s < LOST_AFTER_S for asked in work.assignments):
            self._pulse.set()

    def _part(self, run: str) -> Part:
        """Our part in a run."""
        if run not in self._parts:
            part = Part(self._site, run)
            self._parts[run] = (part, self._group.create_task(part.serve()))
        return self._parts[run][0]

    def _finish(self, ended: Ended) -> None:
        """End our part in a run, once: what was kept of its end and what the server says again may come together."""
        if ended.run not in self._ending:
            self._ending.add(ended.run)
            ending = self._group.create_task(self._end(ended))
            ending.add_done_callback(lambda _: self._ending.discard(ended.run))

    async def _end(self, ended: Ended) -> None:
        """End our part in a run: its worker first, then the models if the site wants them, then its files."""
        places = self._site.places
        if (own := self._parts.pop(ended.run, None)) is not None:
            own[1].cancel()
            await asyncio.wait([own[1]])
        _LOG.info("run.ended run=%s why=%r", ended.run, ended.reason)
        config = self._site.config()
        if config is not None and config.policy.models:
            try:
                await self._fetch_models(ended, config.policy.models)
            except IdentityError:
                raise
            except HansaError as error:
                _LOG.error("models.missing run=%s why=%r", ended.run, str(error))
        self._site.outbox.forget_run(ended.run)
        await asyncio.to_thread(places.leave, ended.run)

    async def _fetch_models(self, ended: Ended, folder: bool | str) -> None:
        for name, digest in ended.models.items():
            target = self._site.places.model(ended.run, name, folder if isinstance(folder, str) else "state/models")
            if target.exists():
                continue
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            size = await size_of(self._site.connection, digest)
            with contextlib.closing(FileBlobs(self._site.places.room(ended.run).blobs)) as blobs:
                await download(self._site.connection, digest, size, partial(blobs.upload, digest, size))
                await asyncio.to_thread(_move, blobs.path(digest), target)
            _LOG.info("model.kept run=%s model=%s path=%s", ended.run, name, target)

    async def _beat(self) -> None:
        """Say that we are there, and what we work on."""
        while True:
            self._pulse.clear()
            parts = [part for part, _ in self._parts.values()]
            await self._site.connection.tell("/v1/beats", Beat(busy=[progress for part in parts for progress in part.busy()]))
            impatient = [part.patience_s for part in parts if part.patience_s is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(BEAT_S, min(impatient, default=LOST_AFTER_S) / 3)):
                    await self._pulse.wait()


def _apart(work: Work, content: memoryview) -> dict[str, memoryview]:
    """The blobs by their digests, as they follow the message; whether they are what they should be is seen when they are stored."""
    sizes = {each.body: each.body_bytes for each in work.assignments} | {each.bundle: each.bundle_bytes for each in work.offers}
    found, begin = {}, 0
    for digest in work.inside:
        end = begin + sizes.get(digest, 0)
        found[digest], begin = content[begin:end], end
    return found


def _move(blob: Path, target: Path) -> None:
    """Put a file where it belongs, whole, on another disk too."""
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.move(blob, part)
        part.replace(target)
    except OSError as error:
        raise storage_error(error, target) from error


def _restored(ours: int, theirs: int) -> StorageError:
    """The server has forgotten what it had acknowledged: to go on could count a result twice, or lose one."""
    hint = (
        "its data were restored from an older copy. Ask its administrator: bring the newest copy back; or, if what came after is "
        "to be given up, abort the runs that were alive and remove the folder `state` of this kit"
    )
    return StorageError("the server knows less than it did", got=f"up to {theirs}", expected=f"at least {ours}", hint=hint)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the agent: of several, one that says why."""
    errors = list(_flat(group))
    return next((error for error in errors if isinstance(error, HansaError)), errors[0])


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flat(each)
    else:
        yield error
