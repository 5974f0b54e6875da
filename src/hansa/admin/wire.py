"""HTTPS to a server with one of a kit's certificates: what goes wrong on the way, or is refused, is a typed error."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

import msgspec

from hansa.errors import HansaError, InputError, MissingExtraError, StorageError, UnreachableError

try:
    import httpx

    from hansa.runtime.config import Kit
    from hansa.runtime.protocol.messages import HOLD_S
    from hansa.runtime.transport.faults import explain, probe, refusal
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), extra="site") from error

CONNECT_S: Final = 4.0  # a fault of TLS, identity or name is told within 5 s
ANSWER_LIMIT: Final = 64 << 20  # bytes of one JSON answer
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})

T = TypeVar("T")


class Wire:
    """Requests to the server of a kit, in the thread that makes them. A proxy is used where the environment names one.

    certificate, key: PEM files, shown in the handshake.

    Raises:
        InputError: they cannot be used.
    """

    def __init__(self, kit: Kit, certificate: Path, key: Path) -> None:
        away = urlsplit(kit.url).hostname not in _LOCAL  # a proxy is for what is elsewhere
        self.url = kit.url
        self.proxied = away and "https" in getproxies()
        self._answered = False  # whether this server has ever answered
        try:
            self._context = ssl.create_default_context(cafile=str(kit.ca))
            self._context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            hint = "unpack the kit anew; enrol a site's first"
            raise InputError(f"the kit's certificates cannot be used: {error}", path=str(certificate), hint=hint) from error
        timeout = httpx.Timeout(HOLD_S + 15.0, connect=CONNECT_S)
        self._http = httpx.Client(base_url=kit.url, verify=self._context, timeout=timeout, trust_env=away)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    @contextlib.contextmanager
    def opened(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """The answer to a request, of whatever status, its body not yet read.

        Raises:
            IdentityError, UnreachableError: there is none; says why.
        """
        request = self._http.build_request(method, quote(path), params=query, content=content, headers=headers)
        try:
            answer = self._http.send(request, stream=True)
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise self._explained(error) from error
        self._answered = True
        with contextlib.closing(answer):
            yield answer

    def ask(self, method: str, path: str, kind: type[T], *, content: bytes | None = None, headers: Mapping[str, str]) -> T:
        """The answer, as that kind of record.

        Raises:
            RefusedError, InputError, StorageError: what the server says. IdentityError, UnreachableError: there is no answer.
        """
        with self.opened(method, path, content=content, headers=headers) as answer:
            if answer.status_code >= 300:
                raise problem(answer)
            return self.read(answer, kind)

    def read(self, answer: httpx.Response, kind: type[T]) -> T:
        """An answer's body as that kind of record."""
        data = _body(answer)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            hint = "is it a Hansa server of this version?"
            raise UnreachableError(f"the answer cannot be read: {error}", path=str(answer.url), hint=hint) from error

    def _explained(self, error: Exception) -> HansaError:
        """What kept the server from answering. A refused certificate is told apart from a broken line by a bare handshake."""
        told = explain(error, self.url)
        if told.code == "lost" and not (self._answered or self.proxied):
            told = probe(self.url, self._context, timeout_s=CONNECT_S / 2) or told
        return told


def problem(answer: httpx.Response) -> HansaError:
    """What the server refused, as the error that it is."""
    told = refusal(httpx.Response(answer.status_code, content=_body(answer)))
    if answer.status_code == 507:
        return StorageError(told.message, hint=told.hint)  # asking again makes no room
    return told


def pieces(answer: httpx.Response, size: int) -> Iterator[bytes]:
    """An answer's bytes, at most `size` at a time."""
    try:
        yield from answer.iter_raw(size)
    except httpx.TransportError as error:
        raise explain(error, str(answer.url)) from error


def _body(answer: httpx.Response) -> bytes:
    """The body, if it is not too long."""
    found = bytearray()
    try:
        for piece in answer.iter_bytes():
            found += piece
            if len(found) > ANSWER_LIMIT:
                raise UnreachableError("the answer is too long", path=str(answer.url), expected=f"at most {ANSWER_LIMIT:,} bytes")
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise explain(error, str(answer.url)) from error
    return bytes(found)
