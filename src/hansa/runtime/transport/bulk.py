"""Bytes by the megabyte over HTTPS: blocking, for a thread of its own, and without a copy that can be spared.

Messages go through httpx. For bodies it is too dear: it takes every TLS record of 16 KB through four layers of Python.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import httpx

from hansa.files import storage_error
from hansa.runtime.protocol.messages import OWN
from hansa.runtime.transport.faults import refusal
from hansa.runtime.transport.way import way

BLOCK: Final = 1 << 20  # bytes handed on at a time
_ANSWER: Final = 64 * 1024  # bytes of a refusal that are read
_KEPT: Final = 4  # idle connections

Take = Callable[[memoryview], None]


class Answer(NamedTuple):
    """What came: the header Hansa-Message, and the body."""

    own: str | None
    content: memoryview


class Line:
    """One connection, in the hands of one thread. `cut` may come from another: what is under way then ends with an OSError."""

    def __init__(self, url: str, context: ssl.SSLContext, proxy: httpx.Proxy | None, *, connect_s: float, quiet_s: float) -> None:
        self._open = self._gone = False
        self._quiet_s, self._proxied = quiet_s, proxy is not None
        self._http = way(url, context, proxy, timeout_s=connect_s)

    def get(self, path: str, headers: Mapping[str, str], take: Take) -> None:
        """Give `take` the answer's bytes, block by block; the memory is used again.

        Raises:
            HansaError: the server's refusal. OSError, HTTPException: the way is gone.
        """
        self._connect()
        self._http.request("GET", path, headers=dict(headers))
        answer = self._answered()
        buffer = memoryview(bytearray(min(BLOCK, max(1, answer.length or BLOCK))))
        while (size := answer.readinto(buffer)) > 0:
            take(buffer[:size])
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)

    def ask(self, method: str, path: str, headers: Mapping[str, str], content: bytes, *, limit: int, quiet_s: float) -> Answer:
        """The answer to a request, of at most `limit` bytes; `quiet_s` is for how long it may be held.

        Raises:
            HansaError: the server's refusal. OSError, HTTPException: the way is gone, or the answer is longer.
        """
        self._connect(quiet_s)
        try:
            self._http.request(method, path, content or None, dict(headers))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError) as error:
            self._told_why(error)
        answer = self._answered()
        if answer.length is not None and answer.length > limit:
            raise http.client.HTTPException(f"an answer of {answer.length} bytes, where at most {limit} are expected")
        taken = memoryview(bytearray(limit + 1 if answer.length is None else answer.length))  # a proxy may send it in chunks
        done = 0
        while done < len(taken) and (size := answer.readinto(taken[done:])) > 0:
            done += size
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        if done > limit:
            raise http.client.HTTPException(f"an answer of more than {limit} bytes, the most that is expected")
        answer.read()  # its end, so that the connection serves again
        return Answer(answer.headers.get(OWN), taken[:done])

    def put(
        self, path: str, headers: Mapping[str, str], handle: int, begin: int, end: int, *, moved: Callable[[int], None]
    ) -> None:
        """Send the file's bytes [begin, end).

        Raises:
            HansaError: the server's refusal, or the file cannot be read. OSError, HTTPException: the way is gone.
        """
        self._connect()
        self._http.putrequest("PUT", path, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(end - begin)}.items():
            self._http.putheader(name, value)
        try:
            self._http.endheaders()
            for block in _blocks(handle, begin, end, path):
                self._http.send(block)
                moved(block.nbytes)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError) as error:
            self._told_why(error)
        self._answered().read()

    def cut(self) -> None:
        """End what is under way."""
        self._gone = True
        if (connected := self._http.sock) is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    @property
    def alive(self) -> bool:
        """Whether an idle connection is still open: one at which there is something to read has been closed."""
        connected = self._http.sock
        if connected is None:
            return False
        told = select.poll()  # select knows no descriptor beyond 1,023
        told.register(connected, select.POLLIN)
        return not told.poll(0)

    def _connect(self, quiet_s: float | None = None) -> None:
        if not self._open:
            try:
                self._http.connect()
            except OSError as error:
                if self._proxied and "Tunnel connection failed" in str(error):
                    raise httpx.ProxyError(str(error)) from error
                raise
            self._open = True
        self._http.sock.settimeout(quiet_s or self._quiet_s)
        if self._gone:
            raise ConnectionAbortedError("the transfer was given up")

    def _answered(self) -> http.client.HTTPResponse:
        answer = self._http.getresponse()
        if answer.status >= 300:
            raise refusal(httpx.Response(answer.status, content=answer.read(_ANSWER), headers=answer.getheaders()))
        return answer

    def _told_why(self, error: OSError) -> None:
        """Raise what the server had said before it closed, if it can still be read; else the error."""
        try:
            self._answered()
        except (OSError, http.client.HTTPException):
            raise error from None
        raise error


class Lines:
    """The idle connections to one server, from any thread."""

    def __init__(self, make: Callable[[], Line]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[Line] = []

    def take(self) -> Line:
        """A connection: one that has served before, if there is one that is still open."""
        while True:
            with self._lock:
                if not self._idle:
                    return self._make()
                line = self._idle.pop()
            if line.alive:
                return line
            line.close()

    def give(self, line: Line) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(line)
                return
        line.close()

    def close(self) -> None:
        """Close those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()


def _blocks(handle: int, begin: int, end: int, path: str) -> Iterator[memoryview]:
    """The file's bytes, in memory that is used again."""
    buffer = memoryview(bytearray(min(BLOCK, end - begin)))
    while begin < end:
        try:
            size = os.preadv(handle, [buffer[: end - begin]], begin)
        except OSError as error:
            raise storage_error(error, path) from error
        if size == 0:
            raise storage_error(OSError("the file has become shorter"), path)
        yield buffer[:size]
        begin += size
