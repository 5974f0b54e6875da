"""Blobs over HTTP: uploads that go on where they stopped, downloads of ranges; each piece is for someone still in the roster.

A thousand sites fetch at once when a round begins, and send when it ends. The more of them, the smaller the pieces that are held of
each: memory stays bounded, and a slow party holds nobody up.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeAlias

from hansa.errors import InputError, StorageError
from hansa.runtime.protocol.messages import CHUNK, INSIDE
from hansa.runtime.store.blob import Blobs, OffsetError

Allowed: TypeAlias = Callable[[], None]

UPLOAD_LIMIT: Final = 64 << 30  # bytes of one blob: beyond any model of today; the disk's reserve refuses sooner
HELD: Final = 32 << 20  # bytes on their way in one direction, from which on pieces are small
PIECE: Final = 16 * 1024  # the smallest one
QUEUED: Final = 8  # pieces of a response that Granian takes ahead of its receiver
_RANGE: Final = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


@dataclass
class Way:
    """What is on its way: bytes of uploads that are in memory, and how many downloads there are."""

    held: int = 0
    downloads: int = 0

    @property
    def incoming(self) -> int:
        """How many bytes to hold of an upload before they are written."""
        return CHUNK if self.held < HELD else 4 * PIECE

    @property
    def outgoing(self) -> int:
        """How many bytes of a download to hand on at once, of which the HTTP server holds a few."""
        return max(PIECE, min(CHUNK, HELD // (QUEUED * max(1, self.downloads))))


@dataclass(frozen=True)
class Part:
    """What a request brings of an upload: of which blob, whose, and where it belongs."""

    digest: str
    owner: str
    offset: int
    size: int  # of the whole blob


async def received(blobs: Blobs, digest: str, owner: str) -> int:
    """How many bytes of the blob are here."""
    return await asyncio.to_thread(blobs.received, digest, owner=owner)


async def upload(blobs: Blobs, asked: Part, content: AsyncIterator[bytes], way: Way, *, limit: int, allowed: Allowed) -> int:
    """How many bytes are here after what is sent; the last one makes the blob whole, durable and verified.

    What has come stays when the rest does not. `allowed` is asked before each block, and raises to cut the transfer.

    Raises:
        InputError: over a limit. OffsetError: it does not continue what is here. DigestError: others than the digest says.
    """
    require_within(asked, limit)
    offset, nothing = asked.offset, True
    async for block in _blocks(content, way):
        allowed()
        offset = await asyncio.to_thread(_add, blobs, asked, offset, block)
        nothing = False
    if nothing:
        offset = await asyncio.to_thread(_add, blobs, asked, offset, b"")
    return offset


def require_within(asked: Part, limit: int) -> None:
    """Return if the whole blob has at most so many bytes.

    Raises:
        InputError: it has more.
    """
    if (size := asked.size) > limit:
        raise InputError("the upload is too large", path=asked.digest[:64], got=f"{size:,} bytes", expected=f"at most {limit:,}")


def _add(blobs: Blobs, asked: Part, offset: int, block: bytes) -> int:
    """Add a block; what is here then. The last one makes the blob whole: a small one takes one visit to the disk's thread."""
    part = blobs.upload(asked.digest, asked.size, owner=asked.owner)
    if offset != part.offset:
        raise OffsetError("the chunk does not continue the upload", path=asked.digest[:64], got=offset, expected=part.offset)
    offset = part.append(offset, block)
    if offset == asked.size:
        part.finish()
    return offset


async def inside(blobs: Blobs, asked: Part, content: AsyncIterator[bytes], way: Way, *, allowed: Allowed) -> None:
    """Take in a blob that comes whole with its message; of what is here from an earlier attempt, nothing is written again.

    Raises:
        DigestError: others than the digest says. OffsetError: less came than was said.
    """
    here = blobs.received(asked.digest, owner=asked.owner)
    rest = Part(asked.digest, asked.owner, here, asked.size)
    if await upload(blobs, rest, _behind(content, here), way, limit=INSIDE, allowed=allowed) != asked.size:
        raise OffsetError("the blob did not come whole with its message", path=asked.digest[:64], expected=asked.size)


async def _behind(content: AsyncIterator[bytes], skip: int) -> AsyncIterator[bytes]:
    """The bytes behind the first `skip`."""
    async for piece in content:
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))


async def _blocks(content: AsyncIterator[bytes], way: Way) -> AsyncIterator[bytes]:
    """The bytes in blocks that are worth a thread."""
    held, size = list[bytes](), 0
    try:
        async for piece in content:
            held.append(piece)
            size += len(piece)
            way.held += len(piece)
            if size >= way.incoming:
                yield b"".join(held)
                way.held -= size
                held, size = [], 0
        if size:
            yield b"".join(held)
    finally:
        way.held -= size


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


async def pieces(opened: Callable[[], BinaryIO], begin: int, end: int, way: Way, allowed: Allowed) -> AsyncIterator[bytes]:
    """The file's bytes [begin, end), piece by piece; `allowed` is asked before each, and raises to cut the transfer."""
    file = opened()
    way.downloads += 1
    try:
        with file:
            while begin < end:
                allowed()
                size = min(way.outgoing, end - begin)
                piece = _cached(file.fileno(), begin, size) or await asyncio.to_thread(os.pread, file.fileno(), size, begin)
                if not piece:
                    raise StorageError("a file has become shorter")
                begin += len(piece)
                yield piece
    finally:
        way.downloads -= 1


def _cached(handle: int, offset: int, size: int) -> bytes:
    """Bytes of the file that are in memory already; nothing if the disk would have to be waited for, or cannot say."""
    buffer = bytearray(size)
    try:
        return bytes(memoryview(buffer)[: os.preadv(handle, [buffer], offset, os.RWF_NOWAIT)])
    except OSError:
        return b""
