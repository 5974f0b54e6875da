"""A site's part in one run: its offer and its tasks, one after the other, each result on disk before it is sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from hansa.core.bundle import Manifest
from hansa.core.files import storage_error, write_atomic
from hansa.core.task import Failure
from hansa.errors import HansaError, IdentityError, InputError
from hansa.runtime.client import leaving
from hansa.runtime.client.channel import Begin, Do, Done
from hansa.runtime.client.child import Worker, WorkerBroken, WorkerDied
from hansa.runtime.client.outbox import Kept, Key
from hansa.runtime.client.policy import Decision
from hansa.runtime.client.site import Site
from hansa.runtime.config import SiteConfig
from hansa.runtime.jobs.bundle import LIMITS, extract, open_bundle
from hansa.runtime.protocol.messages import Ack, Assignment, Offer, Progress, Result
from hansa.runtime.store.blob import Blob
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.transport.blobs import download, size_of, upload

LIVES: Final = 3  # of a worker, in which one task must be done
SENDS: Final = 3  # of a result whose blob the server says it has not
_LOG: Final = logging.getLogger("hansa.site")

Item: TypeAlias = Offer | Assignment


class Refusal(Exception):
    """The site does not do what it was asked; `failure` says why, to the author."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Part:
    """One run at this site. `serve` is one asyncio task; the other methods are called beside it, in the same loop."""

    def __init__(self, site: Site, run: str) -> None:
        self._site, self.run = site, run
        self._room = site.places.enter(run)
        self._blobs = FileBlobs(self._room.blobs)
        self._todo: dict[int, Item] = {}  # by seq; an offer is 0
        self._wake = asyncio.Event()
        self._current: tuple[Item, asyncio.Task[None]] | None = None
        self._worker: Worker | None = None
        self._manifest: Manifest | None = None
        self._moved = 0

    def ask(self, item: Item) -> None:
        """Take on what the server asks for; what is asked for again is not done twice."""
        seq = _seq(item)
        if self._current is not None and _same(self._current[0], item):
            return
        self._todo[seq] = item
        self._wake.set()

    def cancel(self, seq: int) -> None:
        """Drop a task that is not wanted any more, done or not."""
        self._todo.pop(seq, None)
        if self._current is not None and seq and _seq(self._current[0]) == seq:
            self._current[1].cancel()

    def busy(self) -> list[Progress]:
        """The tasks that are not answered yet."""
        items = [*self._todo.values(), *([self._current[0]] if self._current else [])]
        return [Progress(run=self.run, seq=item.seq, bytes=self._moved) for item in items if isinstance(item, Assignment)]

    async def serve(self) -> None:
        """Do what is asked, until the caller cancels; the worker ends then."""
        with closing(self._blobs):
            try:
                await self._send_left()
                while True:
                    await self._next()
            finally:
                if self._current is not None:
                    self._current[1].cancel()
                    await asyncio.wait([self._current[1]])
                if self._worker is not None:
                    await self._worker.close()

    async def _next(self) -> None:
        """Do the next thing that was asked."""
        while not self._todo:
            self._wake.clear()
            await self._wake.wait()
        seq = min(self._todo)
        item = self._todo.pop(seq)
        doing = asyncio.create_task(self._do(item))
        self._current, self._moved = (item, doing), 0
        await asyncio.wait([doing])
        self._current = None
        if not doing.cancelled():
            doing.result()
        elif isinstance(item, Assignment):
            _LOG.info("task.dropped run=%s seq=%d", self.run, seq)
            self._site.outbox.done(_key(item), counted=False)

    async def _do(self, item: Item) -> None:
        """Answer an offer or a task. Whatever fails here, the site goes on and says so: the client loop's outermost call."""
        key = _key(item)
        try:
            kept = self._site.outbox.get(key)
            if kept is None:
                answered = await (self._work(item) if isinstance(item, Assignment) else self._consider(item))
                kept = self._site.outbox.get(_key(answered))
            if kept is not None:
                await self._deliver(kept)
        except IdentityError:
            raise
        except HansaError as error:
            _LOG.error("task.failed run=%s seq=%d code=%s why=%r", self.run, key.seq, error.code, str(error))
            await self._give_up(item, Failure(error.code, error.message))
        except Exception:
            _LOG.exception("task.failed run=%s seq=%d", self.run, key.seq)
            await self._give_up(item, Failure("fault", "the site's agent failed; its log says why"))

    async def _give_up(self, item: Item, failure: Failure) -> None:
        """Say that it failed, if nothing was said yet; what cannot even be said stays for the agent's next start."""
        try:
            self._keep(item, failure)
            await self._post(self._site.outbox.get(_key(item)))
        except IdentityError:
            raise
        except HansaError as error:
            _LOG.error("result.kept run=%s seq=%d why=%r", self.run, _seq(item), str(error))

    async def _consider(self, offer: Offer) -> Offer:
        """Answer an offer: yes only when the policy permits it, the walls stand, and the job is loaded."""
        try:
            await self._admit(offer)
            await self._lively(None)
        except Refusal as refusal:
            _LOG.info("run.refused run=%s code=%s why=%r", self.run, refusal.failure.code, refusal.failure.message)
            self._keep(offer, refusal.failure)
            return offer
        _LOG.info("run.accepted run=%s job=%s author=%s", self.run, offer.job, offer.author)
        self._keep(offer)
        return offer

    async def _work(self, asked: Assignment) -> Assignment:
        """Do a task; its result, or why there is none, is in the outbox on return, under the task as it was asked last."""
        begun = time.monotonic()
        try:
            await self._admit(asked)
            await asyncio.to_thread(self._tidy, asked)
            await self._fetch(asked.body, asked.body_bytes)
            done = await self._executed(asked)
            blob, memory = await asyncio.to_thread(self._taken, done, asked)
        except Refusal as refusal:
            asked = self._newest(asked)
            self._keep(asked, refusal.failure, seconds=time.monotonic() - begun)
            return asked
        asked = self._newest(asked)
        self._keep(asked, blob=blob, memory=memory, seconds=done.seconds)
        return asked

    async def _admit(self, item: Item) -> None:
        """Return if the site's policy permits it now.

        Raises:
            Refusal: it does not.
        """
        population = item.population if isinstance(item, Assignment) else None
        manifest = await self._bundle(item)
        while True:
            decision: Decision = await asyncio.to_thread(self._site.decide, manifest, population=population)
            if decision.verdict == "accept":
                return
            if decision.verdict == "refuse":
                raise Refusal(Failure("refused", f"{decision.reason} [{decision.code}]"))
            _LOG.info("run.waits run=%s seconds=%.0f why=%r", self.run, decision.wait_s, decision.reason)
            await asyncio.sleep(decision.wait_s)  # until the hours that the policy names

    async def _bundle(self, item: Item) -> Manifest:
        """The manifest of the run's job, which is fetched and unpacked at the first time."""
        if self._manifest is None:
            if not self._room.bundle.exists():
                size = item.bundle_bytes if isinstance(item, Offer) else await size_of(self._site.connection, item.bundle)
                if size > LIMITS.packed:
                    raise Refusal(Failure("refused", f"the bundle is too large: {size:,} bytes"))
                await self._fetch(item.bundle, size)
                content = await asyncio.to_thread(self._blobs.path(item.bundle).read_bytes)
                await asyncio.to_thread(write_atomic, self._room.bundle, [content])
            self._manifest = await asyncio.to_thread(self._unpacked)
        return self._manifest

    def _unpacked(self) -> Manifest:
        try:
            bundle = open_bundle(self._room.bundle.read_bytes())
        except InputError as error:
            raise Refusal(Failure("bundle", str(error))) from error
        except OSError as error:
            raise storage_error(error, self._room.bundle) from error
        extract(bundle, self._room.source)
        return bundle.manifest

    async def _fetch(self, digest: str, size: int) -> None:
        """The blob, whole and verified."""
        if self._blobs.size(digest) is None:
            await download(self._site.connection, digest, size, lambda: self._blobs.upload(digest, size), moved=self._count)

    async def _executed(self, asked: Assignment) -> Done:
        """What the worker makes of a task."""
        memory = self._site.outbox.memory(self.run, asked.slot, before=asked.seq)
        do = Do(
            seq=asked.seq,
            attempt=asked.attempt,
            slot=asked.slot,
            task=asked.task,
            round=asked.round,
            seed=asked.seed,
            population=asked.population,
            job=asked.job,
            data=asked.data,
            body=str(self._blobs.path(asked.body)),
            out=str(self._out(asked)),
            memory={name: str(self._blobs.path(digest)) for name, digest in memory.items()},
        )
        return await self._lively(do)

    async def _lively(self, do: Do | None) -> Done:
        """What a worker that is up makes of the task (None: being up). One that dies is started again, and the task done anew."""
        lives = LIVES
        while True:
            try:
                worker = await self._ready()
                return await worker.do(do) if do is not None else Done(seq=0, attempt=0)
            except WorkerDied as error:
                _LOG.warning("worker.died run=%s seq=%d why=%r", self.run, do.seq if do else 0, error.message)
                lives -= 1
                if lives == 0:
                    raise Refusal(Failure(error.code, f"{error.message}, {LIVES} times")) from error

    async def _ready(self) -> Worker:
        """The worker, with the job loaded.

        Raises:
            Refusal: it cannot be: why. WorkerDied: it was ended.
        """
        if self._worker is not None and self._worker.up:
            return self._worker
        config = self._site.config()
        if config is None or self._manifest is None:
            raise Refusal(Failure("refused", "this site has no policy, so it runs nothing [closed]"))
        worker = Worker(self._begin(config, self._manifest), self._site.places.log(self.run), self._site.environment)
        self._worker = worker
        try:
            await worker.start()
        except WorkerBroken as error:
            failure = leaving.told(Done(seq=0, attempt=0, code=error.code, message=error.message, trace=error.trace), config.policy)
            raise Refusal(failure) from error
        return worker

    def _begin(self, config: SiteConfig, manifest: Manifest) -> Begin:
        return Begin(
            run=self.run,
            site=self._site.name,
            source=str(self._room.source),
            reference=manifest.reference,
            folder=str(self._room.work),
            base=str(self._site.kit.folder.absolute()),
            data=config.data,
            hidden=self._site.places.hidden,
            shown=[str(self._room.folder)],
            sandbox=config.sandbox,
            memory_bytes=config.resources.memory_mb << 20,
            file_bytes=(config.policy.max_upload_mb << 20) + (1 << 20),
            gpus=config.resources.gpus,
        )

    def _taken(self, done: Done, asked: Assignment) -> tuple[Blob, dict[str, str]]:
        """The reply that may leave, and what the site is to remember.

        Raises:
            Refusal: the job's code raised, or the reply may not leave.
        """
        config = self._site.config()
        if config is None:
            raise Refusal(Failure("refused", "this site has no policy, so nothing leaves it [closed]"))
        if done.code:
            raise Refusal(leaving.told(done, config.policy))
        out, limit = self._out(asked), config.policy.max_upload_mb << 20
        try:
            memory = {
                name: leaving.keep(out.with_name(f"{out.name}.{number}"), self._blobs, limit=limit).digest
                for number, name in enumerate(done.memory)
            }
            return leaving.take(out, self._blobs, config.policy), memory
        except HansaError as error:
            raise Refusal(Failure(error.code, error.message, error.path)) from error

    def _keep(
        self,
        item: Item,
        failure: Failure | None = None,
        *,
        blob: Blob | None = None,
        memory: Mapping[str, str] | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Put a result into the outbox: from here on it is sent until it is acknowledged."""
        key = _key(item)
        result = Result(run=key.run, seq=key.seq, attempt=key.attempt, slot=key.slot, seconds=round(seconds, 6))
        if failure is not None:
            said = {"code": failure.code, "message": failure.message, "path": failure.path, "trace": failure.trace}
            result = msgspec.structs.replace(result, **said)
        elif blob is not None:
            result = msgspec.structs.replace(result, blob=blob.digest, blob_bytes=blob.size)
        self._site.outbox.put(key, msgspec.to_builtins(result), blob and blob.digest, memory=memory)

    async def _send_left(self) -> None:
        """Send what an earlier life of the agent had put into the outbox."""
        for kept in self._site.outbox.pending():
            if kept.key.run == self.run:
                try:
                    await self._deliver(kept)
                except IdentityError:
                    raise
                except HansaError as error:
                    _LOG.error("result.kept run=%s seq=%d why=%r", self.run, kept.key.seq, str(error))

    async def _deliver(self, kept: Kept) -> None:
        """Upload, then say what came of the task, until the server has answered."""
        for _ in range(SENDS):
            if kept.blob is not None:
                await upload(self._site.connection, kept.blob, self._blobs.path(kept.blob), moved=self._count)
            try:
                return await self._post(kept)
            except InputError as error:  # its blob is not there: it was swept, or a server was restored
                if kept.blob is None:
                    raise
                fault = error
        raise fault

    async def _post(self, kept: Kept | None) -> None:
        if kept is None:
            return
        result = msgspec.convert(kept.result, Result)
        ack = await self._site.connection.post("/v1/results", result, Ack)
        if not kept.sent:
            self._site.outbox.done(kept.key, counted=ack.outcome == "accepted")
        _LOG.info("result.%s run=%s seq=%d bytes=%d", ack.outcome, self.run, kept.key.seq, result.blob_bytes)

    def _newest(self, asked: Assignment) -> Assignment:
        """The same task as it was asked last: it is not done again."""
        queued = self._todo.get(asked.seq)
        if not isinstance(queued, Assignment) or queued.attempt <= asked.attempt:
            return asked
        if (queued.body, queued.task, queued.slot) != (asked.body, asked.task, asked.slot):
            return asked
        del self._todo[asked.seq]
        return queued

    def _tidy(self, asked: Assignment) -> None:
        """Forget what no task from this one on needs: earlier bodies, sent results, memories that were replaced."""
        if self._blobs.received(asked.body) == 0:  # else it was cut off, and goes on where it stopped
            self._site.outbox.trim(self.run, before=asked.seq)
            self._blobs.sweep(self._site.outbox.digests(), 0.0, time.time())

    def _out(self, asked: Assignment) -> Path:
        return self._room.work / f"reply-{asked.seq}-{asked.attempt}"

    def _count(self, size: int) -> None:
        self._moved += size


def _seq(item: Item) -> int:
    return item.seq if isinstance(item, Assignment) else 0


def _key(item: Item) -> Key:
    if isinstance(item, Assignment):
        return Key(item.run, item.seq, item.attempt, item.slot)
    return Key(item.run, 0, 1, item.slot)


def _same(one: Item, other: Item) -> bool:
    return _key(one) == _key(other)
