"""Group commit: what the tasks of an event loop commit at about the same time shares one fsync."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from hansa.errors import StorageError
from hansa.runtime.store.event import Batch, Commit, Committed, Events, lines


class GroupCommit:
    """Commits for many tasks of one loop. While one transaction is on its way to the disk, the next ones gather.

    Use it as an async context: on leaving, what is under way is finished and its thread joined.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._waiting: list[tuple[Commit, asyncio.Future[Committed]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._closed = False

    async def __aenter__(self) -> GroupCommit:
        """Itself."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Finish what is under way."""
        self._closed = True
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self._thread.shutdown()

    async def commit(self, batch: Batch, *, at: float) -> Committed:
        """Add entries to several streams, all or none; returns when they are durable.

        A task that is cancelled while it waits does not take its commit back.

        Raises:
            InputError: an entry cannot be recorded. StorageError: the disk is full, or the group was closed. Nothing was added.
        """
        wanted = Commit(batch, at)
        lines(wanted)  # what cannot be recorded must not take the others of its transaction along
        if self._closed:
            raise StorageError("the event store is being closed")
        done: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        """Write until nothing waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                found = await loop.run_in_executor(self._thread, self._events.transact, [wanted for wanted, _ in group])
            except StorageError as error:
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), committed in zip(group, found, strict=True):
                if not done.done():
                    done.set_result(committed)
        self._writer = None
