"""Blobs over a connection: both ways go on where they stopped, and what comes is verified as it streams."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from hansa.errors import InputError, StorageError
from hansa.files import Buffer, storage_error
from hansa.runtime.protocol.messages import CHUNK
from hansa.runtime.transport.faults import LostError
from hansa.runtime.transport.http import Connection

TRIES: Final = 3  # of a transfer whose bytes arrive changed
_OFFSET, _LENGTH = "Upload-Offset", "Upload-Length"


class Sink(Protocol):
    """Where a blob comes to: bytes are taken in order, and the whole is verified. It outlives the process."""

    @property
    def offset(self) -> int: ...
    def append(self, offset: int, chunk: Buffer) -> int: ...
    def finish(self) -> None: ...  # InputError with code "digest": other bytes came; they are thrown away


def path_of(digest: str) -> str:
    """Where the blob is at the server."""
    return f"/v1/blobs/{digest}"


async def size_of(connection: Connection, digest: str) -> int:
    """How many bytes of the blob the server has from us, or has whole.

    Raises:
        LostError: the answer does not say.
    """
    answer = await connection.request("HEAD", path_of(digest))
    text = answer.headers.get(_OFFSET, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise LostError("malformed", "the server does not say how much it has", path=digest, hint="is a proxy in between?")
    return int(text)


async def download(
    connection: Connection, digest: str, size: int, sink: Callable[[], Sink], *, moved: Callable[[int], None] = lambda _: None
) -> None:
    """Fetch a blob into a sink, durable and verified on return. `sink` is asked again for where to go on.

    moved: is told of the bytes that came.

    Raises:
        StorageError: the bytes arrived changed three times; or the disk is full. InputError: the server has no such blob for us.
    """
    for _ in range(TRIES):
        into = await asyncio.to_thread(sink)

        async def rest(into: Sink = into) -> None:
            begin = into.offset
            if begin >= size:
                return

            def take(block: memoryview) -> None:
                into.append(into.offset, block)
                moved(block.nbytes)

            headers = {"Range": f"bytes={begin}-{size - 1}"}
            await connection.bulk("GET", path_of(digest), lambda line, own: line.get(path_of(digest), {**own, **headers}, take))
            if into.offset < size:
                raise LostError("lost", "the transfer was cut", path=digest)

        await connection.persist(rest, what=f"download {digest[:12]}")
        try:
            return await asyncio.to_thread(into.finish)
        except InputError as error:
            if error.code != "digest":
                raise
            fault = error
    raise StorageError(
        "a blob arrives changed, each time", path=digest, got=fault.got, expected=digest, hint="is a proxy in between?"
    )


async def upload(connection: Connection, digest: str, path: Path, *, moved: Callable[[int], None] = lambda _: None) -> None:
    """Send the file as the blob `digest`; on return the server has it, durable and verified.

    Raises:
        StorageError: the file is not what its digest says, or cannot be read. RefusedError, InputError: the server's refusal.
    """
    for _ in range(TRIES):
        try:
            return await _send(connection, digest, path, moved)
        except InputError as error:
            if error.code not in {"digest", "offset"}:
                raise
            fault = error
    raise StorageError("the server does not get the bytes of this digest", path=str(path), got=fault.message, expected=digest)


async def _send(connection: Connection, digest: str, path: Path, moved: Callable[[int], None]) -> None:
    """Send the file: in one request where TLS ends at the server, else in pieces that pass a proxy's default limit."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        size = os.fstat(handle).st_size
        piece = size if connection.direct else CHUNK
        offset = 0 if size <= CHUNK else await size_of(connection, digest)  # to ask takes as long as to send a small one
        astray, done = 0, False
        while not done:  # the last piece makes the blob whole, even an empty one
            end = min(size, offset + piece)
            try:
                await _send_piece(connection, digest, handle, (offset, end, size), moved)
            except InputError as error:
                astray += 1
                if error.code != "offset" or astray > TRIES:
                    raise
                offset = await size_of(connection, digest)  # a piece had come, and its answer was lost
                continue
            offset, astray, done = end, 0, end == size
    finally:
        os.close(handle)


async def _send_piece(
    connection: Connection, digest: str, handle: int, part: tuple[int, int, int], moved: Callable[[int], None]
) -> None:
    """Send the file's bytes [begin, end) of `size`; after a cut, what the server does not have of them."""
    begin, end, size = part
    lost = False

    async def rest() -> None:
        nonlocal begin, lost
        if lost:
            begin = min(end, await size_of(connection, digest))
        lost = True
        headers = {_OFFSET: str(begin), _LENGTH: str(size), "Content-Type": "application/octet-stream"}
        await connection.bulk(
            "PUT",
            path_of(digest),
            lambda line, own: line.put(path_of(digest), {**own, **headers}, handle, begin, end, moved=moved),
        )

    await connection.persist(rest, what=f"upload {digest[:12]}")
