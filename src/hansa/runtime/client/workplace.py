"""Where a site does one run: the job's files, the blobs, and the worker, which is enclosed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from hansa.core.task import Failure, FLContext
from hansa.document import Document
from hansa.errors import HansaError, InputError
from hansa.files import storage_error, write_atomic
from hansa.runtime.client import leaving
from hansa.runtime.client.channel import Begin, Do, Done
from hansa.runtime.client.child import Worker, WorkerBroken, WorkerDied
from hansa.runtime.client.environments import interpreter
from hansa.runtime.client.leases import Lease
from hansa.runtime.client.live import Live
from hansa.runtime.client.policy import Decision
from hansa.runtime.client.site import Site
from hansa.runtime.config import SiteConfig, is_place
from hansa.runtime.jobs.bundle import LIMITS, extract, open_bundle
from hansa.runtime.manifest import Manifest
from hansa.runtime.protocol.messages import INSIDE, Ack, Assignment, Offer, Result, encode
from hansa.runtime.store.blob import Blob
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.untrusted import take_file
from hansa.runtime.transport.blobs import download, size_of, upload

LIVES: Final = 3  # of a worker, in which one task must be done
HELD: Final = 4  # small blobs that came with messages and wait for their tasks
_LOG: Final = logging.getLogger("hansa.site")

Item: TypeAlias = Offer | Assignment


class Refusal(Exception):
    """The site does not do what it was asked; `failure` says why, to the author."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Workplace:
    """The work of one run, one thing at a time. `moved` counts the bytes of the present task that went either way.

    `live` is what the worker tells meanwhile; `waits` says what the present thing waits for, if it does.
    """

    def __init__(self, site: Site, run: str) -> None:
        self._site, self._run = site, run
        self._room = site.places.enter(run)
        self._blobs = FileBlobs(self._room.blobs)
        self._passing = FileBlobs(self._room.blobs, durable=False)
        self._given: dict[str, memoryview] = {}
        self._sound: set[str] = set()  # small blobs that this agent has put here
        self._worker: Worker | None = None
        self._lease: Lease | None = None
        self._manifest: Manifest | None = None
        self._plan: Document | None = None
        self.live = Live(site.connection, run, site.places.log(run))
        self.moved = 0
        self.waits = ""

    async def close(self) -> None:
        """End the worker, with all that it has started."""
        self._blobs.close()
        try:
            if self._worker is not None:
                await self._worker.close()
        finally:
            self._site.leases.give_back(self._run)

    async def send(self, digest: str) -> None:
        """Give the server a blob; on return it has it."""
        await upload(self._site.connection, digest, self._blobs.path(digest), moved=self._count)

    async def post(self, result: Result) -> Ack:
        """Give the server a result together with its blob; what it makes of it."""
        own = encode(result)

        def content() -> bytes:
            blob = self._blobs.path(str(result.blob))
            try:
                return own + blob.read_bytes()
            except OSError as error:
                raise storage_error(error, blob) from error

        ack, _ = await self._site.connection.carry("POST", "/v1/results", Ack, content=content, own=len(own))
        self._count(result.blob_bytes)
        return ack

    def given(self, item: Item, blobs: Mapping[str, memoryview]) -> None:
        """Take what came with an offer or a task: it need not be fetched. The newest few are held: a task may never be begun."""
        digest = item.body if isinstance(item, Assignment) else item.bundle
        if digest in blobs:
            self._given[digest] = blobs[digest]
        while len(self._given) > HELD:
            del self._given[next(iter(self._given))]

    async def admit(self, item: Item) -> None:
        """Return if the site's policy permits it now.

        Raises:
            Refusal: it does not.
        """
        asked: dict[str, Any] = {"population": item.population, "task": item.task} if isinstance(item, Assignment) else {}
        manifest, plan = await self._bundle(item)
        while True:
            decision: Decision = await asyncio.to_thread(partial(self._site.decide, manifest, plan, **asked))
            self.waits = decision.reason if decision.verdict == "wait" else ""
            if decision.verdict == "accept":
                return
            if decision.verdict == "refuse":
                raise Refusal(Failure("refused", f"{decision.reason} [{decision.code}]"))
            _LOG.info("run.waits run=%s seconds=%.0f why=%r", self._run, decision.wait_s, decision.reason)
            await self._site.until_changed(decision.wait_s)

    async def _bundle(self, item: Item) -> tuple[Manifest, Document]:
        """The manifest and the plan of the run's job, which is fetched and unpacked at the first time."""
        if self._manifest is None or self._plan is None:
            if not self._room.bundle.exists():
                size = item.bundle_bytes if isinstance(item, Offer) else await size_of(self._site.connection, item.bundle)
                if size > LIMITS.packed:
                    raise Refusal(Failure("refused", f"the bundle is too large: {size:,} bytes"))
                await self.fetch(item.bundle, size)
                content = await asyncio.to_thread(self._blobs.path(item.bundle).read_bytes)
                await asyncio.to_thread(write_atomic, self._room.bundle, [content])
            manifest, plan = await asyncio.to_thread(self._unpacked)
            self._manifest, self._plan = manifest, plan
            return manifest, plan
        return self._manifest, self._plan

    def _unpacked(self) -> tuple[Manifest, Document]:
        try:
            bundle = open_bundle(self._room.bundle.read_bytes())
        except InputError as error:
            raise Refusal(Failure("bundle", str(error))) from error
        except OSError as error:
            raise storage_error(error, self._room.bundle) from error
        extract(bundle, self._room.source)
        return bundle.manifest, bundle.plan

    async def fetch(self, digest: str, size: int) -> None:
        """The blob, whole and verified."""
        content = self._given.pop(digest, None)
        if size <= INSIDE and digest not in self._sound:
            await asyncio.to_thread(self._put, digest, content)
        if self._blobs.size(digest) is None:
            await download(self._site.connection, digest, size, lambda: self._blobs.upload(digest, size), moved=self._count)
        elif content is not None:
            self._count(size)
        self._sound.add(digest)

    def _put(self, digest: str, content: memoryview | None) -> None:
        """Keep what came with a message, if it is what it should be. It is not made durable: it can be fetched again.

        So one that an earlier life of this agent has left is looked at before it is used: a power cut may have spoilt it.
        """
        if content is None and self._blobs.size(digest) is not None:
            content = memoryview(self._blobs.path(digest).read_bytes())
        if content is not None and self._passing.put([content]).digest != digest:
            self._blobs.drop([digest])  # what was put instead is swept

    async def execute(self, asked: Assignment) -> Done:
        """What the worker makes of a task."""
        memory = self._site.outbox.memory(self._run, asked.slot, before=asked.seq)
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
        await self._move_in()
        self.live.begin(asked.task, asked.round)
        done = await self.be_up_for(do)
        await self.live.flush()
        return done

    async def _move_in(self) -> None:
        """Have what the run asks of the machine, for as long as it goes on. The worker that has loaded the job is bound to it."""
        if self._lease is not None or self._manifest is None:
            return
        self.waits = "what it asks of this machine is in use by other runs"
        try:
            lease = await self._site.leases.take(self._run, self._manifest)
        finally:
            self.waits = ""
        self._lease = lease
        if self._worker is not None and lease != Lease():
            await self._worker.close()  # cores, GPUs and memory are a process's from its start

    async def be_up_for(self, do: Do | None) -> Done:
        """What a worker that is up makes of the task (None: being up). One that dies is started again, and the task done anew."""
        lives = LIVES
        while True:
            try:
                worker = await self._ready()
                return await worker.do(do) if do is not None else Done(seq=0, attempt=0)
            except WorkerDied as error:
                _LOG.warning("worker.died run=%s seq=%d why=%r", self._run, do.seq if do else 0, error.message)
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
        self.live.kinds = config.policy.kinds
        begin, label = self._begin(config, self._manifest), self._manifest.environment
        python = interpreter(config.environments, label, self._site.kit.folder)
        worker = Worker(begin, self.live, self._site.environment, python)
        self._worker = worker
        try:
            await worker.start()
        except WorkerBroken as error:
            failure = leaving.told(Done(seq=0, attempt=0, code=error.code, message=error.message, trace=error.trace), config.policy)
            raise Refusal(failure) from error
        return worker

    def _begin(self, config: SiteConfig, manifest: Manifest) -> Begin:
        lease = self._lease or Lease()
        base = self._site.kit.folder.absolute()
        models = [str(base / config.policy.models)] if isinstance(config.policy.models, str) else []  # of other authors' runs
        return Begin(
            run=self._run,
            site=self._site.name,
            source=str(self._room.source),
            reference=manifest.reference,
            folder=str(self._room.work),
            base=str(base),
            data={label: named for label, named in config.data.items() if not is_place(named)},
            places={label: str(base / named) for label, named in config.data.items() if is_place(named)},
            hidden=[*self._site.places.hidden, *models],
            shown=[str(self._room.folder)],
            sandbox=config.sandbox,
            memory_bytes=lease.memory_bytes or config.resources.memory_mb << 20,
            file_bytes=(config.policy.max_upload_mb << 20) + (1 << 20),
            gpus=list(lease.gpus),
            cores=list(lease.cores),
            threads=manifest.cores,
        )

    def take(self, done: Done, asked: Assignment) -> tuple[Blob, dict[str, str]]:
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
                name: take_file(out.with_name(f"{out.name}.{number}"), self._blobs, limit=limit).digest
                for number, name in enumerate(done.memory)
            }
            return leaving.take(out, self._blobs, config.policy, self._context(asked)), memory
        except HansaError as error:
            raise Refusal(Failure(error.code, error.message, error.path)) from error

    def _context(self, asked: Assignment) -> FLContext:
        """Where and when, for the site's own filters. Their random numbers are nobody else's to know: the seed is not the job's."""
        return FLContext(
            job=asked.job,
            run=self._run,
            site=self._site.name,
            slot=asked.slot,
            round=asked.round,
            seed=secrets.randbits(63),
            population=asked.population,
            data=asked.data,
        )

    def tidy(self, asked: Assignment) -> None:
        """Forget what no task from this one on needs: earlier bodies, sent results, memories that were replaced."""
        if self._blobs.received(asked.body) == 0:  # else it was cut off, and goes on where it stopped
            self._site.outbox.trim(self._run, before=asked.seq)
            self._sound.difference_update(self._blobs.sweep(self._site.outbox.digests(), 0.0, time.time()))

    def _out(self, asked: Assignment) -> Path:
        return self._room.work / f"reply-{asked.seq}-{asked.attempt}"

    def _count(self, size: int) -> None:
        self.moved += size
