"""A site's part in one run: its offer and its tasks, one after the other, each result on disk before it is sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from hansa.core.task import Failure
from hansa.errors import HansaError, IdentityError, InputError, StorageError
from hansa.runtime.client.outbox import Kept, Key
from hansa.runtime.client.site import Site
from hansa.runtime.client.workplace import Item, Refusal, Workplace
from hansa.runtime.protocol.messages import Ack, Assignment, Offer, Progress, Result
from hansa.runtime.store.blob import Blob

SENDS: Final = 3  # of a result whose blob the server says it has not
_LOG: Final = logging.getLogger("hansa.site")


class Part:
    """One run at this site. `serve` is one asyncio task; the other methods are called beside it, in the same loop."""

    def __init__(self, site: Site, run: str) -> None:
        self._site, self.run = site, run
        self._place = Workplace(site, run)
        self._todo: dict[int, Item] = {}  # by seq; an offer is 0
        self._wake = asyncio.Event()
        self._current: tuple[Item, asyncio.Task[None]] | None = None

    def ask(self, item: Item, blobs: Mapping[str, memoryview]) -> None:
        """Take on what the server asks for, with the blobs that came with it; what is asked for again is not done twice."""
        seq = _seq(item)
        if self._current is not None and _same(self._current[0], item):
            return
        self._todo[seq] = item
        self._place.given(item, blobs)
        self._wake.set()

    def cancel(self, seq: int, attempt: int | None) -> None:
        """Drop a task that is not wanted any more, done or not; this attempt at it and earlier ones, if one is named."""
        queued, current = self._todo.get(seq), self._current
        if queued is not None and _up_to(queued, attempt):
            del self._todo[seq]
        if current is not None and seq and _seq(current[0]) == seq and _up_to(current[0], attempt):
            current[1].cancel()

    def busy(self) -> list[Progress]:
        """What is not answered yet: what is being done, and what waits for that."""
        told = [_progress(item, waits="another task of this run") for item in self._todo.values()]
        if self._current is None:
            return told
        place = self._place
        now = _progress(self._current[0], waits=place.waits)
        here = {"bytes": place.moved, "steps": place.live.steps, "fraction": place.live.fraction}
        return [msgspec.structs.replace(now, **here), *told]

    @property
    def patience_s(self) -> float | None:
        """For how long the server waits for progress at what is being done."""
        item = self._current[0] if self._current else None
        return item.progress_s if isinstance(item, Assignment) else None

    async def serve(self) -> None:
        """Do what is asked, until the caller cancels; the worker ends then."""
        telling = asyncio.create_task(self._place.live.serve())
        try:
            await self._send_left()
            while True:
                await self._next()
        finally:
            if self._current is not None:
                self._current[1].cancel()
                await asyncio.wait([self._current[1]])
            telling.cancel()
            await asyncio.wait([telling])
            await self._place.close()

    async def _next(self) -> None:
        """Do the next thing that was asked."""
        while not self._todo:
            self._wake.clear()
            await self._wake.wait()
        seq = min(self._todo)
        item = self._todo.pop(seq)
        doing = asyncio.create_task(self._do(item))
        self._current, self._place.moved = (item, doing), 0
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
        """Say that it failed, if nothing was said yet; what cannot even be said stays for the agent's next start.

        Raises:
            StorageError: nothing can be kept here any more. IdentityError: the server does not let the site in.
        """
        try:
            self._keep(item, failure)
            await self._post(self._site.outbox.get(_key(item)))
        except (IdentityError, StorageError):
            raise
        except HansaError as error:
            _LOG.error("result.kept run=%s seq=%d why=%r", self.run, _seq(item), str(error))

    async def _consider(self, offer: Offer) -> Offer:
        """Answer an offer: yes only when the policy permits it, the walls stand, and the job is loaded."""
        try:
            await self._place.admit(offer)
            await self._place.be_up_for(None)
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
            await self._place.admit(asked)
            await asyncio.to_thread(self._place.tidy, asked)
            await self._place.fetch(asked.body, asked.body_bytes)
            done = await self._place.execute(asked)
            blob, memory = await asyncio.to_thread(self._place.take, done, asked)
        except Refusal as refusal:
            asked = self._newest(asked)
            self._keep(asked, refusal.failure, seconds=time.monotonic() - begun)
            return asked
        asked = self._newest(asked)
        self._keep(asked, blob=blob, memory=memory, seconds=done.seconds)
        return asked

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
            if kept.blob is not None and not self._inside(kept):
                await self._place.send(kept.blob)
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
        post = self._place.post if self._inside(kept) else partial(self._site.connection.post, "/v1/results", kind=Ack)
        ack = await post(result)
        if not kept.sent:
            self._site.outbox.done(kept.key, counted=ack.outcome == "accepted")
        _LOG.info("result.%s run=%s seq=%d bytes=%d", ack.outcome, self.run, kept.key.seq, result.blob_bytes)

    def _inside(self, kept: Kept) -> bool:
        """Whether the result's blob goes with it."""
        return kept.blob is not None and kept.result["blob_bytes"] <= self._site.inside

    def _newest(self, asked: Assignment) -> Assignment:
        """The same task as it was asked last: it is not done again."""
        queued = self._todo.get(asked.seq)
        if not isinstance(queued, Assignment) or queued.attempt <= asked.attempt:
            return asked
        if (queued.body, queued.task, queued.slot) != (asked.body, asked.task, asked.slot):
            return asked
        del self._todo[asked.seq]
        return queued


def _seq(item: Item) -> int:
    return item.seq if isinstance(item, Assignment) else 0


def _up_to(item: Item, attempt: int | None) -> bool:
    return attempt is None or _key(item).attempt <= attempt


def _progress(item: Item, *, waits: str) -> Progress:
    key, what = _key(item), {"task": item.task, "round": item.round} if isinstance(item, Assignment) else {"task": "offer"}
    return msgspec.convert({"run": key.run, "seq": key.seq, "attempt": key.attempt, "waits": waits[:500], **what}, Progress)


def _key(item: Item) -> Key:
    if isinstance(item, Assignment):
        return Key(item.run, item.seq, item.attempt, item.slot)
    return Key(item.run, 0, 1, item.slot)


def _same(one: Item, other: Item) -> bool:
    return _key(one) == _key(other)
