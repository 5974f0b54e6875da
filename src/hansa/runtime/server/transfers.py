"""Blobs over HTTP: uploads that go on where they stopped, downloads of ranges; each piece is for someone still in the roster."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, TypeAlias

from hansa.errors import InputError, StorageError
from hansa.runtime.protocol.messages import CHUNK
from hansa.runtime.store.blob import Blobs, MissingBlobError, OffsetError

Allowed: TypeAlias = Callable[[], None]

UPLOAD_LIMIT: Final = 64 << 30  # bytes of one blob: beyond any model of today; the disk's reserve refuses sooner
_RANGE: Final = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


async def received(blobs: Blobs, digest: str, owner: str) -> int:
    """How many bytes of the blob are here."""
    return await asyncio.to_thread(blobs.received, digest, owner=owner)


async def upload(
    blobs: Blobs, digest: str, owner: str, *, offset: int, size: int, content: AsyncIterator[bytes], limit: int, allowed: Allowed
) -> int:
    """How many bytes are here after what is sent; the last one makes the blob whole, durable and verified.

    What has come stays when the rest does not. `allowed` is asked before each block, and raises to cut the transfer.

    Raises:
        InputError: over a limit. OffsetError: it does not continue what is here. DigestError: others than the digest says.
    """
    if size > limit:
        raise InputError("the upload is too large", path=digest[:64], got=f"{size:,} bytes", expected=f"at most {limit:,}")
    part = await asyncio.to_thread(blobs.upload, digest, size, owner=owner)
    if offset != part.offset:
        raise OffsetError("the chunk does not continue the upload", path=digest[:64], got=offset, expected=part.offset)
    async for block in _blocks(content):
        allowed()
        offset = await asyncio.to_thread(part.append, offset, block)
    if offset == size:
        await asyncio.to_thread(part.finish)
    return offset


async def _blocks(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes in blocks that are worth a thread."""
    held, size = list[bytes](), 0
    async for piece in content:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


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


async def pieces(path: Path, begin: int, end: int, allowed: Allowed) -> AsyncIterator[bytes]:
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
