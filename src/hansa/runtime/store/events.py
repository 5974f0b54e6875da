"""Events in one SQLite file: WAL, synchronous=FULL, one writer. The protocol is in `event`.

A file of an earlier schema is brought to this one when it is opened for writing, in one transaction; what stands in it is never
changed. `meta` has a row for each schema that it had, with the Hansa that wrote it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import quote

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from hansa.errors import StorageError, VersionError
from hansa.files import storage_error, sync_folder
from hansa.runtime.store.disk import Claim, lock_of
from hansa.runtime.store.event import GENESIS, Batch, Commit, Committed, Entry, Event, Events, Head, Line, lines, link

__all__ = ["Batch", "Commit", "Committed", "Entry", "Event", "Events", "Head", "SqliteEvents"]

SCHEMA_VERSION: Final = 2
_STEPS: Final = {1: "ALTER TABLE meta ADD COLUMN software TEXT NOT NULL DEFAULT ''"}  # from each schema to the next
_PAGE_BYTES: Final = 4_096
_ROWS: Final = 1_000  # rows read at once: a slow reader holds no transaction that would keep the log from being folded in
_TABLES = MetaData()
_META = Table("meta", _TABLES, Column("schema_version", Integer, nullable=False), Column("software", Text, nullable=False))
_EVENTS = Table(
    "events",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("data", Text, nullable=False),
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("stream", "seq"),
)
_LAST, _INSERT = select(func.max(_EVENTS.c.id)), insert(_EVENTS)
_APPEND_ONLY = "CREATE TRIGGER events_no_{0} BEFORE {0} ON events BEGIN SELECT RAISE(ABORT, 'events are never changed'); END"
_RESTORE = "keep a copy of the folder and restore it from the last backup; sites send again what was not acknowledged"


class SqliteEvents:
    """The events in the file `path`, which is made if there is none. `read_only` reads beside the process that writes.

    Raises:
        StorageError: the file is corrupt, or no event store; another process writes to it; it cannot be read or written.
        VersionError: a newer Hansa wrote it.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._reader, self._writer = _engine(self.path, "ro"), None if read_only else _engine(self.path, "rwc")
        self._connection: Connection | None = None
        self._heads: dict[str, Head] = {}  # nobody else writes
        self._claim = None if read_only else Claim(lock_of(self.path))
        try:
            with self._translated():
                if self._writer is not None:
                    self._connection = self._writer.connect()
                    self._make(self._connection)
                self._check()
                if self._connection is not None:
                    self._bring_up(self._connection)
        except BaseException:
            self.close()
            raise

    def append(self, stream: str, entries: Sequence[Entry], *, at: float) -> list[Event]:
        """Add entries to one stream; returns when they are durable. Raises as `transact`."""
        return self.commit({stream: entries}, at=at).get(stream, [])

    def commit(self, batch: Batch, *, at: float) -> Committed:
        """Add entries to several streams at once: all or none. Raises as `transact`."""
        return self.transact([Commit(batch, at)])[0]

    def transact(self, commits: Sequence[Commit]) -> list[Committed]:
        """Make several commits in one transaction, with one fsync; what each added, by stream.

        Raises:
            InputError: an entry cannot be recorded; nothing was added. StorageError: the disk is full, or fails: likewise.
        """
        prepared = [lines(commit) for commit in commits]
        with self._lock, self._translated():
            if self._connection is None:
                raise StorageError("the events are open for reading only, or closed", path=str(self.path))
            try:
                with self._connection.begin():
                    added = _chained(self._connection, [line for each in prepared for line in each], self._heads)
            except BaseException:
                self._heads = {}  # those of a commit that failed are no heads
                raise
        return [_by_stream(added, len(each)) for each in prepared]

    def read(self, stream: str, after: int = 0) -> Iterator[Event]:
        """The events of a stream in order. Each is checked against its hash.

        Raises:
            StorageError: an event is not what was written; names it.
        """
        query = select(_EVENTS).where(_EVENTS.c.stream == stream).order_by(_EVENTS.c.seq).limit(_ROWS)
        while rows := self._rows(query.where(_EVENTS.c.seq > after)):
            yield from map(self._event, rows)
            after = rows[-1].seq

    def all(self, after: int = 0) -> Iterator[Event]:
        """The events of all streams in the order in which they were committed. Raises as `read`."""
        query = select(_EVENTS).order_by(_EVENTS.c.id).limit(_ROWS)
        while rows := self._rows(query.where(_EVENTS.c.id > after)):
            yield from map(self._event, rows)
            after = rows[-1].id

    def heads(self) -> dict[str, Head]:
        """The last event's number and hash for each stream."""
        last = select(_EVENTS.c.stream, func.max(_EVENTS.c.seq).label("seq")).group_by(_EVENTS.c.stream).subquery()
        both = (_EVENTS.c.stream == last.c.stream) & (_EVENTS.c.seq == last.c.seq)
        rows = self._rows(select(_EVENTS.c.stream, _EVENTS.c.seq, _EVENTS.c.hash).join(last, both))
        return {row.stream: Head(row.stream, row.seq, row.hash) for row in rows}

    def close(self) -> None:
        """Close the file and let another process write; a second time does nothing."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            for engine in (self._reader, self._writer):  # the last to close folds the log into the file: it must be able to write
                if engine is not None:
                    engine.dispose()
            if self._claim is not None:
                self._claim.close()

    def _make(self, connection: Connection) -> None:
        """Make the tables in a file that is new, or of which a crash left no more than the first page."""
        with connection.begin():
            # a file without tables that is longer has lost them: it is damaged, and `_check` will say so
            if inspect(connection).get_table_names() or self.path.stat().st_size > _PAGE_BYTES:
                return
        mode = connection.connection.dbapi_connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]  # type: ignore[union-attr]
        if mode != "wal":
            hint = "put it on a local disk: a network's file system cannot hold a database"
            raise StorageError("the file system cannot hold the event store", path=str(self.path), got=mode, hint=hint)
        with connection.begin():
            _TABLES.create_all(connection)
            connection.execute(insert(_META).values(schema_version=SCHEMA_VERSION, software=version("hansa")))
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(_APPEND_ONLY.format(verb))
        sync_folder(self.path.parent)

    def _check(self) -> None:
        with self._reader.connect() as connection:
            faults = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(3)")]
            if faults != ["ok"]:
                raise self._corrupt("; ".join(faults))
            if not {"meta", "events"} <= set(inspect(connection).get_table_names()):
                raise StorageError("not an event store", path=str(self.path))
            schema = _schema(connection)
            if schema is None or schema < 1:
                raise StorageError("not an event store", path=str(self.path), got=f"schema {schema}")
            if schema > SCHEMA_VERSION:
                wrote = connection.execute(select(_META.c.software).where(_META.c.schema_version == schema)).scalar()
                hint, got = f"it was written by Hansa {wrote}; start that one", f"schema {schema}"
                raise VersionError(
                    "a newer event store", path=str(self.path), got=got, expected=f"up to {SCHEMA_VERSION}", hint=hint
                )

    def _bring_up(self, connection: Connection) -> None:
        """Bring a file of an earlier schema to this one: all steps or none."""
        with connection.begin():
            for schema in range(_schema(connection) or SCHEMA_VERSION, SCHEMA_VERSION):
                connection.exec_driver_sql(_STEPS[schema])
                connection.execute(insert(_META).values(schema_version=schema + 1, software=version("hansa")))

    def _rows(self, query: Any) -> Sequence[Row[Any]]:  # the columns are the query's own
        with self._translated(), self._reader.connect() as connection:
            return connection.execute(query).all()

    def _event(self, row: Row[Any]) -> Event:
        number, stream, seq, kind, at, text, prev, stored = cast(tuple[Any, ...], row)
        try:
            if link(prev, stream=stream, seq=seq, kind=kind, at=at, text=text) == stored:
                return Event(number, stream, seq, kind, at, json.loads(text), prev, stored)
        except (TypeError, ValueError) as error:  # a column of another type, or text that is no JSON: not what was written
            raise self._corrupt(f"event {seq} of {stream}: {error}") from error
        raise self._corrupt(f"event {seq} of {stream} does not have its hash")

    def _corrupt(self, why: str) -> StorageError:
        return StorageError("the event store is corrupt", path=str(self.path), got=why, hint=_RESTORE)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the database's errors into ours."""
        try:
            yield
        except OSError as error:
            raise storage_error(error, self.path) from error
        except UnicodeDecodeError as error:  # SQLite's own message quotes what it cannot read
            raise self._corrupt("a name in it is not text") from error
        except DBAPIError as error:
            text = str(error.orig)
            if any(word in text for word in ("malformed", "not a database", "corrupt", "decode")):
                raise self._corrupt(text) from error
            full = "full" in text
            hint = "free some space and start again; nothing that stood was changed" if full else None
            what = "the disk is full" if full else f"the event store cannot be used: {text}"
            raise StorageError(what, path=str(self.path), hint=hint) from error


def _engine(path: Path, mode: Literal["ro", "rwc"]) -> Engine:
    """Connections to the file: one that writes, or a few that read."""

    def connect() -> sqlite3.Connection:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600)) if mode == "rwc" else None
        uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=30.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # of a new file
            for pragma in (
                "synchronous=FULL",
                "foreign_keys=ON",
                "recursive_triggers=ON",
                "trusted_schema=OFF",
                "cell_size_check=ON",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    if mode == "ro":
        return create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=2)
    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    # sqlite3 itself would begin a transaction late, after reading; the lock is to be taken first
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _chained(connection: Connection, wanted: Sequence[Line], heads: dict[str, Head]) -> Iterator[Event]:
    """Insert the lines, each linked to the one before it in its stream, and give them as events; `heads` goes on with them."""
    number = connection.execute(_LAST).scalar() or 0
    events: list[Event] = []
    rows: list[dict[str, Any]] = []
    for line in wanted:
        before = heads.get(line.stream) or _head(connection, line.stream)
        number, seq = number + 1, before.seq + 1
        hashed = link(before.hash, stream=line.stream, seq=seq, kind=line.kind, at=line.at, text=line.text)
        heads[line.stream] = Head(line.stream, seq, hashed)
        added = Event(number, line.stream, seq, line.kind, line.at, json.loads(line.text), before.hash, hashed)
        rows.append({**msgspec.structs.asdict(added), "data": line.text})
        events.append(added)
    if rows:
        connection.execute(_INSERT, rows)
    return iter(events)


def _schema(connection: Connection) -> int | None:
    return connection.execute(select(func.max(_META.c.schema_version))).scalar()


def _head(connection: Connection, stream: str) -> Head:
    query = select(_EVENTS.c.seq, _EVENTS.c.hash).where(_EVENTS.c.stream == stream).order_by(_EVENTS.c.seq.desc()).limit(1)
    row = connection.execute(query).first()
    return Head(stream, row.seq, row.hash) if row else Head(stream, 0, GENESIS)


def _by_stream(events: Iterator[Event], count: int) -> Committed:
    found: Committed = {}
    for _ in range(count):
        each = next(events)
        found.setdefault(each.stream, []).append(each)
    return found
