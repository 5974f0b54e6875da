"""Blob: bytes named by their content. What stands under a digest is whole, was hashed once as it came, and is on the disk.

A blob is written beside its place, fsynced and renamed, so that `kill -9` at any moment leaves it whole or not there. Put it before
the event that names it; `sweep` removes what no event names any more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from hansa.errors import InputError, StorageError
from hansa.files import Buffer

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blob(NamedTuple):
    """What a blob is called, its BLAKE3 in hex, and how many bytes it has."""

    digest: str
    size: int


class OffsetError(InputError):
    """A chunk does not continue the upload; `expected` is the offset from which to go on."""

    code = "offset"


class DigestError(InputError):
    """The bytes that came are not those of the digest: what had come is thrown away, send it again from the start."""

    code = "digest"


class MissingBlobError(StorageError):
    """There is no whole blob of this digest."""

    code = "missing_blob"


class Upload(Protocol):
    """A blob that comes in pieces. What has come outlives the process; a second `upload` of it goes on where it stopped."""

    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def offset(self) -> int: ...  # bytes that have come
    def append(self, offset: int, chunk: Buffer) -> int: ...  # the new offset
    def finish(self) -> None: ...  # returns when the whole blob is durable; again does nothing
    def discard(self) -> None: ...  # forget what has come


class Blobs(Protocol):
    """Bytes by their digest. Anything that takes a digest refuses what is not one with an InputError.

    One process uploads; any process may put and read. `owner` keeps apart what several senders send under one digest, so that
    none of them can spoil another's.
    """

    def size(self, digest: str) -> int | None: ...  # bytes; None if there is no such blob
    def path(self, digest: str) -> Path: ...  # where the blob stands, or would
    def open(self, digest: str) -> BinaryIO: ...
    def read(self, digest: str, offset: int, length: int) -> bytes: ...  # fewer bytes only at the end
    def put(self, parts: Iterable[Buffer]) -> Blob: ...  # returns when the blob is durable
    def adopt(self, handle: int, path: Path, size: int) -> Blob | None: ...  # without a copy; None if that cannot be
    def upload(self, digest: str, size: int, *, owner: str = "") -> Upload: ...
    def received(self, digest: str, *, owner: str = "") -> int: ...  # bytes that need not be sent again
    def remove(self, digest: str) -> bool: ...  # whether there was one
    def drop(self, digests: Iterable[str]) -> None: ...  # those that are there
    def sweep(self, keep: Collection[str], older_than_s: float, now: float) -> list[str]: ...  # the digests removed
    @property
    def free_bytes(self) -> int: ...  # room for more
    def close(self) -> None: ...


def require_digest(digest: str) -> str:
    """The digest, if it is one: 64 digits of lower-case hex. Nothing else ever becomes part of a path.

    Raises:
        InputError: it is not.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InputError("not a digest", got=repr(digest)[:80], expected="64 digits of lower-case hex")
    return digest


def is_digest(text: str) -> bool:
    """Whether the text can be a digest."""
    return _DIGEST.fullmatch(text) is not None
