"""A full disk, while the server looks after its runs: it is told, it is that run's, and all goes on when there is room again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hansa.errors import StorageError
from hansa.runtime.authz.policy import Member, Policy
from hansa.runtime.server.inbox import Clock, Inbox
from hansa.runtime.server.known import Submitted, stream_of
from hansa.runtime.server.main import watched
from hansa.runtime.server.places import Places
from hansa.runtime.server.presence import Presence
from hansa.runtime.server.runner import Enclosing
from hansa.runtime.server.scheduler import Scheduler
from hansa.runtime.server.state import Book
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.event import Entry
from hansa.runtime.store.events import SqliteEvents
from hansa.runtime.store.group import GroupCommit

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.contextmanager
def full(events: SqliteEvents) -> Iterator[None]:
    """Within the block the file cannot grow: SQLite's own full disk."""
    assert events._connection is not None
    for limit in (1, 2**30):
        events._connection.exec_driver_sql(f"PRAGMA max_page_count = {limit}")
        events._connection.rollback()
        if limit == 1:
            yield


async def test_a_watch_that_cannot_put_on_record_what_it_saw_looks_again_and_ends_with_the_stop() -> None:
    stop, looked = asyncio.Event(), asyncio.Event()
    looks = list[int]()

    async def watch(stop: asyncio.Event) -> None:
        looks.append(len(looks))
        if len(looks) < 3:
            raise StorageError("the disk is full")
        looked.set()
        await stop.wait()

    task = asyncio.create_task(watched(watch, stop, again_s=0.0))
    async with asyncio.timeout(5):
        await looked.wait()
        stop.set()
        await task
    assert looks == [0, 1, 2]


async def test_a_run_that_cannot_be_put_on_record_waits_and_says_why_and_the_server_goes_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.closing(SqliteEvents(tmp_path / "data" / "events.sqlite")) as events:
        async with GroupCommit(events) as group:
            inbox = Inbox(Book(), group, FileBlobs(tmp_path / "data" / "blobs"), Clock())
            member = Member(name="north", kind="site", org="Uni")
            policy = Policy(project="hearts", version=1, issued=0.0, members=(member,))
            presence = Presence([], inbox.lose)
            walls = Enclosing("off", tmp_path, [])
            scheduler = Scheduler(inbox, presence, Places(tmp_path / "data"), policy, {}, walls, most=1)
            what = Submitted(
                run="r", job="j", author="lea", org="o", bundle="0" * 64, bundle_bytes=0, data="d", job_hash="", reference="",
                seed=0, sites=["north"], min_sites=1, priority=0,
            )  # fmt: skip
            await inbox.commit({stream_of("r"): [Entry("run.submitted", msgspec.to_builtins(what))]})
            with full(events):
                for size in (20_000, 200, 0):  # the pages that are there have room for some
                    with contextlib.suppress(StorageError):
                        while True:
                            await inbox.commit({"project": [Entry("note", {"text": "x" * size})]})
                await scheduler._arrange()
                assert "cannot put run.offered on record: the disk is full" in scheduler.waits(inbox.book.runs["r"])[0]
            await scheduler._arrange()
            assert inbox.book.runs["r"].offered
            assert scheduler.waits(inbox.book.runs["r"]) == ["north: it is not there"]
            await inbox.close()
