"""A store of the schema one back, written by the code of that time: it opens, and the run in it goes on.

tests/golden/events-1.sqlite was made at commit 5ed4f08 of this repository: a server's start, two sites, a run whose first round has
the result of the first site and waits for the second one.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

import pytest

from hansa.errors import StorageError, VersionError
from hansa.runtime.audit.chain import Verified, verify
from hansa.runtime.protocol.messages import Result
from hansa.runtime.server.inbox import Clock, Inbox
from hansa.runtime.server.state import Book
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.event import Entry
from hansa.runtime.store.events import SCHEMA_VERSION, SqliteEvents
from hansa.runtime.store.group import GroupCommit

pytestmark = pytest.mark.anyio
OLD = Path(__file__).parents[3] / "golden" / "events-1.sqlite"
RUN = "20260101T000000Z-old-0001"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(OLD, tmp_path / "events.sqlite"))


def meta(path: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM meta ORDER BY schema_version").fetchall()


async def test_a_store_of_the_schema_one_back_opens_and_its_run_goes_on(path: Path, tmp_path: Path) -> None:
    assert meta(path) == [(SCHEMA_VERSION - 1,)]
    with contextlib.closing(SqliteEvents(path, read_only=True)) as events:
        before = list(events.all())  # a look at it changes nothing
    assert (len(before), meta(path)) == (10, [(SCHEMA_VERSION - 1,)])
    with contextlib.closing(SqliteEvents(path)) as events:
        book, blobs = Book(), FileBlobs(tmp_path / "blobs", reserve_bytes=0)
        for event in events.all():
            book.apply(event)
        assert (book.epoch, book.runs[RUN].state, book.runs[RUN].accepted) == (1, "running", ["north", "south"])
        assert [(slot, asked.state) for slot, asked in book.runs[RUN].steps[1].asked.items()] == [(0, "answered"), (1, "out")]
        async with GroupCommit(events) as group:
            inbox = Inbox(book, group, blobs, Clock())
            reply = blobs.put([b"reply of south"])
            result = Result(run=RUN, seq=1, attempt=1, slot=1, blob=reply.digest, blob_bytes=reply.size)
            assert (await inbox.answer("south", result)).outcome == "accepted"
            await inbox.close()
    assert meta(path) == [(SCHEMA_VERSION - 1, ""), (SCHEMA_VERSION, version("hansa"))]
    with contextlib.closing(SqliteEvents(path)) as events:
        after = list(events.all())
        assert after[:10] == before
        assert (after[10].kind, after[10].data["site"]) == ("result", "south")
        whole = verify(events.all(), events.heads().values())
        assert isinstance(whole, Verified)
        assert whole.events == 11
    assert len(meta(path)) == 2  # once


def test_an_upgrade_that_is_cut_off_leaves_the_store_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hansa.runtime.store.events._STEPS", {1: "ALTER TABLE meta ADD COLUMN software TEXT NOT NULL"}
    )  # SQLite: no
    with pytest.raises(StorageError, match="cannot be used"):
        SqliteEvents(path)
    assert meta(path) == [(1,)]
    monkeypatch.undo()
    with contextlib.closing(SqliteEvents(path)) as events:
        assert len(events.append("project", [Entry("note", {})], at=1.0)) == 1


def test_a_store_of_a_newer_schema_names_the_hansa_that_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    SqliteEvents(path).close()
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO meta VALUES (?, ?)", (SCHEMA_VERSION + 1, "9.9"))
    with pytest.raises(VersionError, match=r"up to 2; got schema 3 .*written by Hansa 9\.9; start that one"):
        SqliteEvents(path)
