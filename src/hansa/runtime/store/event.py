"""Event: one committed fact, chained to the one before it in its stream. No database here: a site needs none to check a chain."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from hansa.errors import InputError

GENESIS: Final = "0" * 64  # what the first event of a stream has as `prev`
DATA_LIMIT: Final = 1024 * 1024  # bytes of one event's data: bodies belong into blobs
_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class Entry(NamedTuple):
    """What is to be recorded: a kind (`task.assigned`) and data that JSON can hold."""

    kind: str
    data: Mapping[str, Any]


class Event(msgspec.Struct, frozen=True):
    """A committed entry. `id` orders all events of a store, `seq` those of its stream, from 1 and without a gap.

    at: seconds since the epoch, by the writer's clock. prev, hash: the link before it and its own, SHA-256 in hex.
    """

    id: int
    stream: str
    seq: int
    kind: str
    at: float
    data: dict[str, Any]
    prev: str
    hash: str

    @property
    def head(self) -> Head:
        """The stream's head when this event was its last."""
        return Head(self.stream, self.seq, self.hash)


class Head(msgspec.Struct, frozen=True):
    """The end of a stream: the number and the hash of its last event, which stand for all before."""

    stream: str
    seq: int
    hash: str


Batch: TypeAlias = Mapping[str, Sequence[Entry]]
Committed: TypeAlias = dict[str, list[Event]]


class Commit(NamedTuple):
    """Entries of several streams that stand together or not at all, and the time they carry, in seconds since the epoch."""

    batch: Batch
    at: float


class Events(Protocol):
    """Append-only streams of hash-chained events. One process writes; others may read.

    `after` leaves out what a reader knows: events with a `seq` (in `read`) or an `id` (in `all`) up to it.
    """

    def append(self, stream: str, entries: Sequence[Entry], *, at: float) -> list[Event]: ...
    def commit(self, batch: Batch, *, at: float) -> Committed: ...
    def transact(self, commits: Sequence[Commit]) -> list[Committed]: ...  # all of them in one transaction
    def read(self, stream: str, after: int = 0) -> Iterator[Event]: ...
    def all(self, after: int = 0) -> Iterator[Event]: ...
    def heads(self) -> dict[str, Head]: ...  # by stream
    def close(self) -> None: ...


def canonical(data: Mapping[str, Any]) -> str:
    r"""The one JSON text of the data: ASCII, keys sorted, no spaces; no line end or control character stands in it unescaped.

    >>> canonical({"b": 1, "a": "x\n"})
    '{"a":"x\\n","b":1}'

    Raises:
        InputError: JSON cannot hold it: NaN, an object, two keys of one text.
    """
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        same = isinstance(data, Mapping) and json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"an event's data is not plain JSON: {error}") from error
    if not same:
        raise InputError("an event's data is not plain JSON", expected="an object that names each key once")
    return text


def link(prev: str, *, stream: str, seq: int, kind: str, at: float, text: str) -> str:
    """The hash of an event: SHA-256, in hex, of the link before it and its canonical JSON. `text` is `canonical(data)`."""
    body = f'{prev}{{"at":{at!r},"data":{text},"kind":{_quoted(kind)},"seq":{seq},"stream":{_quoted(stream)}}}'
    return hashlib.sha256(body.encode()).hexdigest()


@lru_cache(maxsize=4_096)  # kinds and streams come again and again
def _quoted(text: str) -> str:
    return json.dumps(text)


class Line(NamedTuple):
    """An entry that was checked and is ready to be written; `text` is its data as canonical JSON."""

    stream: str
    kind: str
    at: float
    text: str


def lines(commit: Commit) -> list[Line]:
    """The commit's entries in order, checked.

    Raises:
        InputError: a stream's or kind's name, a time, or data that cannot be recorded; names the stream.
    """
    return [_line(stream, entry, commit.at) for stream, entries in commit.batch.items() for entry in entries]


def _line(stream: str, entry: Entry, at: float) -> Line:
    kind, data = entry
    if not _STREAM.fullmatch(stream):
        raise InputError("not a stream's name", got=repr(stream)[:200], expected="letters, digits, . _ : / - (at most 128)")
    if not _KIND.fullmatch(kind):
        raise InputError("not an event's kind", path=stream, got=repr(kind)[:100], expected="letters, digits, . _ - (at most 64)")
    if not math.isfinite(at):
        raise InputError("an event's time is a finite number of seconds", path=stream, got=at)
    text = canonical(data)
    if len(text) > DATA_LIMIT:
        raise InputError(
            "an event's data is too large",
            path=f"{stream} {kind}",
            got=f"{len(text):,} bytes",
            expected=f"at most {DATA_LIMIT:,} bytes",
            hint="put it into a blob and record its digest",
        )
    return Line(stream, kind, float(at), text)
