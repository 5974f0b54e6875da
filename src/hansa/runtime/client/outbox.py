"""A site's results and memory on disk before anything leaves: what `put` returned from is sent until it is acknowledged."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from hansa.errors import StorageError, VersionError
from hansa.files import storage_error, sync_folder
from hansa.runtime.store.blob import require_digest
from hansa.runtime.store.disk import Claim, lock_of
from hansa.runtime.store.event import canonical

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = (
    """CREATE TABLE results (
        number INTEGER PRIMARY KEY, run TEXT NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL, slot INTEGER NOT NULL,
        result TEXT NOT NULL, blob TEXT, sent INTEGER NOT NULL DEFAULT 0, UNIQUE (run, seq, attempt, slot)) STRICT""",
    """CREATE TABLE memory (
        run TEXT NOT NULL, slot INTEGER NOT NULL, name TEXT NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL,
        digest TEXT NOT NULL, PRIMARY KEY (run, slot, name, seq, attempt)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX waiting ON results (number) WHERE sent = 0",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_INSERT: Final = "INSERT OR IGNORE INTO results (run, seq, attempt, slot, result, blob) VALUES (?, ?, ?, ?, ?, ?)"
_COLUMNS: Final = "run, seq, attempt, slot, result, blob, sent"


class Key(NamedTuple):
    """Which assignment a result answers: the idempotency key. A higher attempt of one (run, seq, slot) supersedes a lower one."""

    run: str
    seq: int
    attempt: int
    slot: int


class Kept(NamedTuple):
    """A result as it was put. `blob` is the digest of its body, `sent` whether the server has acknowledged it."""

    key: Key
    result: dict[str, Any]
    blob: str | None
    sent: bool


class Outbox:
    """The results of one site, in the SQLite file `path`, which is made if there is none. One process at a time.

    Bodies and memories are blobs, put before their digests come here; `digests` is what must not be swept.

    Raises:
        StorageError: the file is corrupt or cannot be used; another agent has it. VersionError: a newer Hansa wrote it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._claim = Claim(lock_of(self.path))
        try:
            with self._translated():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                self._open(self._db)
        except BaseException:
            self.close()
            raise

    def put(self, key: Key, result: Mapping[str, Any], blob: str | None = None, *, memory: Mapping[str, str] | None = None) -> bool:
        """Keep a result, and with it what its task left in the site's memory (name -> digest); durable on return.

        Whether it was kept: a result that stands under the key already stays as it is, and so does its memory. A later attempt
        replaces what an earlier one left in memory; an earlier attempt that comes after a later one leaves nothing.

        Raises:
            InputError: a result that is not plain JSON, or a digest that is none. StorageError: the disk is full; nothing was kept.
        """
        text = canonical(result)
        names = {name: require_digest(digest) for name, digest in (memory or {}).items()}
        row = (*key, text, None if blob is None else require_digest(blob))
        same_task, place = "run = ? AND seq = ? AND slot = ?", (key.run, key.seq, key.slot)
        with self._transaction() as db:
            kept = db.execute(
                "INSERT OR IGNORE INTO results (run, seq, attempt, slot, result, blob) VALUES (?, ?, ?, ?, ?, ?)", row
            )
            if kept.rowcount == 0:
                return False
            newest = db.execute(f"SELECT max(attempt) FROM results WHERE {same_task}", place).fetchone()[0]  # noqa: S608  our own text
            if newest == key.attempt:
                db.execute(f"DELETE FROM memory WHERE {same_task}", place)  # noqa: S608  our own text
                rows = [(key.run, key.slot, name, key.seq, key.attempt, digest) for name, digest in names.items()]
                db.executemany("INSERT INTO memory VALUES (?, ?, ?, ?, ?, ?)", rows)
        return True

    def get(self, key: Key) -> Kept | None:
        """The result under the key, sent or not: an assignment that comes again need not be worked again."""
        found = self._select("WHERE run = ? AND seq = ? AND attempt = ? AND slot = ?", *key)
        return found[0] if found else None

    def pending(self) -> list[Kept]:
        """The results that are not acknowledged, in the order in which they were put."""
        return self._select("WHERE sent = 0 ORDER BY number")

    def done(self, key: Key, *, counted: bool = True) -> None:
        """The server has answered for a result: it is not sent again.

        counted: whether the result was accepted. One that was not leaves nothing in the site's memory.
        """
        with self._transaction() as db:
            db.execute("UPDATE results SET sent = 1, blob = NULL WHERE run = ? AND seq = ? AND attempt = ? AND slot = ?", key)
            if not counted:
                db.execute("DELETE FROM memory WHERE run = ? AND seq = ? AND attempt = ? AND slot = ?", key)

    def memory(self, run: str, slot: int, *, before: int | None = None) -> dict[str, str]:
        """What the site remembers in a run: the newest digest by name.

        before: the `seq` of the task that reads. It gets what earlier tasks left, never what another attempt at itself did.
        """
        limit = 2**62 if before is None else before
        query = "SELECT name, digest FROM memory WHERE run = ? AND slot = ? AND seq < ? ORDER BY seq, attempt"
        with self._lock, self._translated():
            return dict(self._connection().execute(query, (run, slot, limit)).fetchall())  # later rows win

    def trim(self, run: str, *, before: int) -> None:
        """Forget the memories that no task from `before` on can read, since newer ones stand between."""
        newer = "run = m.run AND slot = m.slot AND name = m.name AND seq > m.seq AND seq < ?"
        with self._transaction() as db:
            clause = f"WHERE run = ? AND EXISTS (SELECT 1 FROM memory WHERE {newer})"  # noqa: S608  our own text
            db.execute(f"DELETE FROM memory AS m {clause}", (run, before))  # noqa: S608  our own text

    def forget_run(self, run: str) -> None:
        """Forget a run that is over: its results, sent or not, and its memory."""
        with self._transaction() as db:
            db.execute("DELETE FROM results WHERE run = ?", (run,))
            db.execute("DELETE FROM memory WHERE run = ?", (run,))

    def digests(self) -> set[str]:
        """The blobs that are still needed: bodies to be sent, and memories."""
        query = "SELECT blob FROM results WHERE blob IS NOT NULL UNION SELECT digest FROM memory"
        with self._lock, self._translated():
            return {row[0] for row in self._connection().execute(query)}

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
            self._claim.close()

    def _open(self, db: sqlite3.Connection) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            hint = "it was written by a newer Hansa; start that one"
            raise VersionError("a newer outbox", path=str(self.path), got=version, expected=SCHEMA_VERSION, hint=hint)
        faults = [row[0] for row in db.execute("PRAGMA integrity_check(3)")]
        if faults != ["ok"]:
            raise self._corrupt("; ".join(faults))
        if version == 0:
            with _begun(db):
                for statement in _SCHEMA:
                    db.execute(statement)
            sync_folder(self.path.parent)

    def _select(self, clause: str, *values: object) -> list[Kept]:
        with self._lock, self._translated():
            rows = self._connection().execute(f"SELECT {_COLUMNS} FROM results {clause}", values).fetchall()  # noqa: S608  our own text
        return [Kept(Key(*row[:4]), json.loads(row[4]), row[5], bool(row[6])) for row in rows]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            db = self._connection()
            with _begun(db):
                yield db

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StorageError("the outbox is closed", path=str(self.path))
        return self._db

    def _corrupt(self, why: str) -> StorageError:
        hint = "keep a copy and remove the file: tasks whose results were not acknowledged are worked again"
        return StorageError("the outbox is corrupt", path=str(self.path), got=why, hint=hint)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the database's errors into ours."""
        try:
            yield
        except OSError as error:
            raise storage_error(error, self.path) from error
        except UnicodeDecodeError as error:  # SQLite's own message quotes what it cannot read
            raise self._corrupt("a name in it is not text") from error
        except sqlite3.Error as error:
            text = str(error)
            if any(word in text for word in ("malformed", "not a database", "corrupt", "decode")):
                raise self._corrupt(text) from error
            what = "the disk is full" if "full" in text else f"the outbox cannot be used: {text}"
            raise StorageError(what, path=str(self.path)) from error


@contextlib.contextmanager
def _begun(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction: committed at the end of the block, taken back if it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already
            db.execute("ROLLBACK")
        raise
