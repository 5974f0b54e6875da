"""The SQLite file: append-only, one writer, refused when it is newer, foreign or damaged."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hansa.core.rng import generator
from hansa.errors import StorageError, VersionError
from hansa.runtime.store.events import Entry, Event, SqliteEvents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with ten events."""
    file = tmp_path / "events.sqlite"
    with contextlib.closing(SqliteEvents(file)) as events:
        events.append("run-1", [Entry("n", {"number": number, "text": "x" * 600}) for number in range(10)], at=1.0)
    return file


@contextlib.contextmanager
def behind(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, opened past the store."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        yield database


@contextlib.contextmanager
def pages_at_most(events: SqliteEvents, pages: int) -> Iterator[None]:
    """Within the block the file cannot grow: SQLite's own full disk."""
    assert events._connection is not None
    for limit in (pages, 2**30):
        events._connection.exec_driver_sql(f"PRAGMA max_page_count = {limit}")
        events._connection.rollback()
        if limit == pages:
            yield


def read(path: Path) -> list[Event]:
    with contextlib.closing(SqliteEvents(path)) as events:
        return list(events.all())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = '{}' WHERE seq = 3",
        "DELETE FROM events WHERE seq = 10",
        "REPLACE INTO events SELECT id, stream, seq, 'other', at, data, prev, hash FROM events WHERE seq = 3",
    ],
)
def test_events_cannot_be_changed_or_removed(path: Path, statement: str) -> None:
    before = read(path)
    with behind(path) as database:
        database.execute("PRAGMA recursive_triggers = ON")
        with pytest.raises(sqlite3.IntegrityError, match="never changed"):
            database.execute(statement)
    assert read(path) == before


def test_an_event_that_was_changed_all_the_same_is_named_when_it_is_read(path: Path) -> None:
    with behind(path) as database:
        database.execute("DROP TRIGGER events_no_UPDATE")
        database.execute("UPDATE events SET data = replace(data, '3', '4') WHERE seq = 4")
    with pytest.raises(StorageError, match="event 4 of run-1 does not have its hash"):
        read(path)


def test_every_commit_is_synced_and_logged_ahead(path: Path) -> None:
    with contextlib.closing(SqliteEvents(path)) as events:
        assert events._connection is not None
        values = {name: events._connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("synchronous", "journal_mode")}
        assert values == {"synchronous": 2, "journal_mode": "wal"}


def test_a_second_writer_is_refused_until_the_first_has_closed(path: Path) -> None:
    with contextlib.closing(SqliteEvents(path)) as events:
        with pytest.raises(StorageError, match="another process uses this store"):
            SqliteEvents(path)
        events.append("run-1", [Entry("a", {})], at=0.0)
    assert len(read(path)) == 11


def test_a_reader_reads_beside_the_writer_and_cannot_write(path: Path) -> None:
    with contextlib.closing(SqliteEvents(path)) as events, contextlib.closing(SqliteEvents(path, read_only=True)) as reader:
        (event,) = events.append("run-1", [Entry("a", {})], at=0.0)
        assert list(reader.read("run-1", after=10)) == [event]
        with pytest.raises(StorageError, match="reading only"):
            reader.append("run-1", [Entry("b", {})], at=0.0)


def test_a_full_disk_takes_nothing_half_and_the_chain_goes_on_when_there_is_room(path: Path) -> None:
    with contextlib.closing(SqliteEvents(path)) as events:
        before = list(events.all())
        with pages_at_most(events, 6), pytest.raises(StorageError, match="the disk is full"):
            events.append("run-1", [Entry("a", {}), Entry("b", {"text": "x" * 100_000})], at=0.0)
        assert list(events.all()) == before
        (after,) = events.append("run-1", [Entry("a", {})], at=0.0)
        assert (after.seq, after.prev) == (11, before[-1].hash)


def test_a_closed_store_says_so(path: Path) -> None:
    events = SqliteEvents(path)
    events.close()
    events.close()
    with pytest.raises(StorageError, match="closed"):
        events.append("run-1", [Entry("b", {})], at=0.0)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    with behind(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE patients (name TEXT)")
    with pytest.raises(StorageError, match="not an event store"):
        SqliteEvents(tmp_path / "other.sqlite")
    with behind(tmp_path / "other.sqlite") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("patients",)]


def test_a_file_that_is_no_database_is_called_corrupt_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite").write_bytes(b"not a database at all" * 500)
    with pytest.raises(StorageError, match="backup"):
        SqliteEvents(tmp_path / "events.sqlite")


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        SqliteEvents(tmp_path / "nowhere" / "events.sqlite")
    with pytest.raises(StorageError, match=r"events\.sqlite"):
        SqliteEvents(tmp_path / "events.sqlite", read_only=True)


def test_whatever_byte_is_flipped_no_other_events_are_read(path: Path) -> None:
    before, whole, places = read(path), path.read_bytes(), generator(5)
    noticed = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[int(places.integers(len(whole)))] ^= 1 << int(places.integers(8))
        path.write_bytes(damaged)
        for beside in ("-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        try:
            found = read(path)
        except (StorageError, VersionError):
            noticed += 1
        else:
            assert found == before
    assert noticed > 30  # the rest fell on pages that hold nothing


def test_a_large_store_opens_and_commits_quickly(tmp_path: Path) -> None:
    with contextlib.closing(SqliteEvents(tmp_path / "events.sqlite")) as events:
        for _ in range(10):
            events.append("run-1", [Entry("n", {"number": number, "site": "north"}) for number in range(2_000)], at=0.0)
    started = time.perf_counter()
    with contextlib.closing(SqliteEvents(tmp_path / "events.sqlite")) as events:
        assert events.heads()["run-1"].seq == 20_000
        assert sum(1 for _ in events.all()) == 20_000
    assert time.perf_counter() - started < 5.0
