"""Blobs over HTTP: uploads that go on where they stopped, downloads of ranges; each piece is for someone still in the roster."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from hansa.errors import InputError, StorageError
from hansa.runtime.protocol.messages import CHUNK
from hansa.runtime.store.blob import Blobs, MissingBlobError

UPLOAD_LIMIT: Final = 64 << 30  # bytes of one blob: beyond any model of today; the disk's reserve refuses sooner
_RANGE: Final = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


async def received(blobs: Blobs, digest: str, owner: str) -> int:
    """How many bytes of the blob are here."""
    return await asyncio.to_thread(blobs.received, digest, owner=owner)


async def upload(blobs: Blobs, digest: str, owner: str, *, offset: int, size: int, chunk: bytes, limit: int) -> int:
    """How many bytes are here after the chunk; the last one makes the blob whole, durable and verified.

    Raises:
        InputError: over a limit. OffsetError: the chunk does not continue what is here. DigestError: others than the digest says.
    """
    if len(chunk) > CHUNK:
        raise InputError("a chunk is too large", got=f"{len(chunk):,} bytes", expected=f"at most {CHUNK:,}")
    if size > limit:
        raise InputError("the upload is too large", path=digest[:64], got=f"{size:,} bytes", expected=f"at most {limit:,}")

    def add() -> int:
        part = blobs.upload(digest, size, owner=owner)
        if part.offset < size or chunk:
            part.append(offset, chunk)
        if part.offset == size:
            part.finish()
        return part.offset

    return await asyncio.to_thread(add)


def wanted(header: str | None, size: int) -> tuple[int, int]:
    """The bytes [begin, end) that a Range header asks for; all of them without one, or with one of another kind.

    Raises:
        InputError: the range begins behind the end.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None:
        return 0, size
    begin = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    if begin > size or end < begin or (begin == size and size > 0):
        raise InputError("the range is not in the file", got=header, expected=f"0 to {size - 1}")
    return begin, end


async def pieces(path: Path, begin: int, end: int, allowed: Callable[[], None]) -> AsyncIterator[bytes]:
    """The file's bytes [begin, end), piece by piece; `allowed` is asked before each, and raises to cut the transfer."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise MissingBlobError("there is no such blob", path=path.name) from error
    with file:
        file.seek(begin)
        while begin < end:
            allowed()
            piece = await asyncio.to_thread(file.read, min(CHUNK, end - begin))
            if not piece:
                raise StorageError("a file has become shorter", path=path.name)
            begin += len(piece)
            yield piece
