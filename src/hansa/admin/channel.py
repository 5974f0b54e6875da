"""A person's way to the server: HTTPS with the kit's certificate, a token, and a proof of possession on every request."""

from __future__ import annotations

import contextlib
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

import msgspec

from hansa.errors import HansaError, MissingExtraError, StorageError, UnreachableError

try:
    import httpx

    from hansa.runtime.authz.certificates import der
    from hansa.runtime.config import Kit
    from hansa.runtime.protocol.messages import CHUNK, HOLD_S, Token
    from hansa.runtime.protocol.session import proof
    from hansa.runtime.transport.faults import explain, probe, refusal
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), extra="site") from error

CONNECT_S: Final = 5.0
PATIENCE_S: Final = 300.0  # how long a server that was reached before is tried again: it may be restarting
RENEW_S: Final = 30.0  # before a token ends, the next one is asked for
ANSWER_LIMIT: Final = 64 << 20  # bytes of one JSON answer
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})

T = TypeVar("T")


class Channel:
    """Requests of one person to one server. Use it as a context manager, from one thread; `close` may come from another."""

    def __init__(self, kit: Kit, *, patience_s: float = PATIENCE_S) -> None:
        self._kit, self._patience_s = kit, patience_s
        self._key, self._chain = kit.private_key(), der(*kit.chain())
        self._token, self._renew_at = "", 0.0
        self._answered = False  # whether this server has ever answered
        self._closed = threading.Event()
        away = urlsplit(kit.url).hostname not in _LOCAL  # a proxy is for what is elsewhere
        self._proxied = away and "https" in getproxies()
        timeout = httpx.Timeout(HOLD_S + 15.0, connect=CONNECT_S)
        self._context = _context(kit)
        self._http = httpx.Client(base_url=kit.url, verify=self._context, timeout=timeout, trust_env=away)

    @property
    def kit(self) -> Kit:
        """Who asks."""
        return self._kit

    def close(self) -> None:
        """Close the connection; a wait for the server ends."""
        self._closed.set()
        self._http.close()

    def ask(self, method: str, path: str, kind: type[T], *, query: Mapping[str, Any] | None = None, body: object = None) -> T:
        """The server's answer, as that kind of record. Asked again once with a new token, where the old one is no longer good.

        Raises:
            RefusedError, InputError, StorageError: what the server says. IdentityError, UnreachableError: it was not reached.
        """
        content = None if body is None else msgspec.json.encode(body)
        with self._sent(method, path, query=query, content=content, headers={"Content-Type": "application/json"}) as answer:
            data = _limited(answer)
        if kind is type(None):
            return None
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            hint = "is it a Hansa server of this version?"
            raise UnreachableError(f"the answer cannot be read: {error}", path=self._kit.url + path, hint=hint) from error

    def patiently(self, asked: Callable[[], T], *, note: Callable[[str], None] = lambda _: None) -> T:
        """What the call gives, made again while the server cannot be reached, for some minutes: only for what may be repeated.

        Raises:
            UnreachableError: it has been tried long enough, or the channel was closed.
        """
        ends, pause_s, told = time.monotonic() + self._patience_s, 0.2, False
        while True:
            try:
                return asked()
            except UnreachableError as error:
                if time.monotonic() > ends or self._closed.is_set():
                    raise
                if not told:
                    note(f"{error.message}; trying again")
                    told = True
            self._closed.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  so that many do not come at once
            pause_s = min(2 * pause_s, 5.0)

    def upload(self, digest: str, data: bytes) -> None:
        """Give the server a blob, from where it has it already."""
        path = f"/v1/blobs/{digest}"
        with self._sent("HEAD", path) as answer:
            offset = _offset(answer)
        while True:
            headers = {"Upload-Offset": str(offset), "Upload-Length": str(len(data)), "Content-Type": "application/octet-stream"}
            with self._sent("PUT", path, content=data[offset : offset + CHUNK], headers=headers) as answer:
                offset = _offset(answer)
            if offset >= len(data):
                return

    @contextlib.contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a file of the server, piece by piece."""
        with self._sent("GET", path) as answer:
            yield self._pieces(answer)

    def _pieces(self, answer: httpx.Response) -> Iterator[bytes]:
        try:
            yield from answer.iter_raw(CHUNK)
        except httpx.TransportError as error:
            raise explain(error, str(answer.url)) from error

    @contextlib.contextmanager
    def _sent(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """The answer to a request, open; what is no success is raised."""
        place = quote(path)
        for again in (True, False):
            token = self._good_token(anew=not again)
            shown = proof(self._key, method=method, url=self._kit.url + path, now=time.time(), token=token)
            full = {"Authorization": f"DPoP {token}", "DPoP": shown, **(headers if headers and content is not None else {})}
            with self._opened(method, place, query, content, full) as answer:
                if answer.status_code == 401 and again:
                    continue
                if answer.status_code >= 300:
                    raise _problem(answer)
                yield answer
                return

    @contextlib.contextmanager
    def _opened(
        self, method: str, path: str, query: Mapping[str, Any] | None, content: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        request = self._http.build_request(method, path, params=query, content=content, headers=headers)
        try:
            answer = self._http.send(request, stream=True)
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise self._explained(error) from error
        self._answered = True
        with contextlib.closing(answer):
            yield answer

    def _explained(self, error: Exception) -> HansaError:
        """What kept the server from answering. A refused certificate is told apart from a broken line by a bare handshake."""
        told = explain(error, self._kit.url)
        if told.code == "lost" and not (self._answered or self._proxied):
            told = probe(self._kit.url, self._context, timeout_s=CONNECT_S / 2) or told
        return told

    def _good_token(self, *, anew: bool) -> str:
        now = time.monotonic()
        if anew or now >= self._renew_at:
            path = "/v1/token"
            shown = proof(self._key, method="POST", url=self._kit.url + path, now=time.time(), chain=self._chain)
            with self._opened("POST", path, None, None, {"DPoP": shown}) as answer:
                if answer.status_code >= 300:
                    raise _problem(answer)
                data = _limited(answer)
            try:
                found = msgspec.json.decode(data, type=Token)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                hint = "is it a Hansa server of this version?"
                raise UnreachableError(f"the answer cannot be read: {error}", path=self._kit.url, hint=hint) from error
            self._token, self._renew_at = found.token, now + found.expires_in - RENEW_S
        return self._token


def _context(kit: Kit) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(kit.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(kit.certificate, kit.key)
    return context


def _limited(answer: httpx.Response) -> bytes:
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


def _problem(answer: httpx.Response) -> HansaError:
    """What the server refused, as the error that it is."""
    told = refusal(httpx.Response(answer.status_code, content=_limited(answer)))
    if answer.status_code == 507:
        return StorageError(told.message, hint=told.hint)  # asking again makes no room
    return told


def _offset(answer: httpx.Response) -> int:
    text = answer.headers.get("Upload-Offset", "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UnreachableError("the server does not say how much it has", path=str(answer.url), hint="is it of this version?")
    return int(text)
