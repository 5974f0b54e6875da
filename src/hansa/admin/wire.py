"""HTTPS to a server with one of a kit's certificates: what goes wrong on the way, or is refused, is a typed error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from hansa.errors import HansaError, IdentityError, MissingExtraError, StorageError, UnreachableError

try:
    import httpx
    from cryptography import x509

    from hansa.runtime.authz.certificates import der
    from hansa.runtime.config import SITE_FILE, Kit, load_site
    from hansa.runtime.protocol.messages import HOLD_S
    from hansa.runtime.transport.faults import explain, own_fault, probe, refusal
    from hansa.runtime.transport.way import proxy_for, tls
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), extra="site") from error

CONNECT_S: Final = 4.0  # a fault of TLS, identity or name is told within 5 s
ANSWER_LIMIT: Final = 64 << 20  # bytes of one JSON answer

T = TypeVar("T")


def proxy_of(kit: Kit, environment: Mapping[str, str]) -> httpx.Proxy | None:
    """The proxy between a kit and its server, if there is one: that of site.toml, or what HTTPS_PROXY and NO_PROXY say.

    Raises:
        ConfigError: it is no address; or site.toml is wrong.
    """
    own = load_site(kit).proxy if (kit.folder / SITE_FILE).is_file() else ""
    return proxy_for(kit.url, environment, own=own, login=kit.proxy_login())


class Wire:
    """Requests to the server of a kit, in the thread that makes them.

    certificate, key: PEM files, shown in the handshake where no proxy ends TLS. proxy: an HTTP proxy on the way.

    Raises:
        InputError: they cannot be used.
    """

    def __init__(self, kit: Kit, certificate: Path, key: Path, *, proxy: httpx.Proxy | None = None) -> None:
        self.url, self._proxy, self._certificate = kit.url, proxy, certificate
        self._answered = False  # whether this server has ever answered
        self._context = tls(kit.trusted, certificate if kit.direct else None, key if kit.direct else None)
        timeout = httpx.Timeout(HOLD_S + 15.0, connect=CONNECT_S)
        self._http = httpx.Client(base_url=kit.url, verify=self._context, timeout=timeout, trust_env=False, proxy=proxy)

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
        told = explain(error, self.url, self._proxy)
        if told.code == "lost" and not self._answered:
            told = probe(self.url, self._context, timeout_s=CONNECT_S / 2, proxy=self._proxy) or told
        if isinstance(told, IdentityError):
            told = own_fault(der(*x509.load_pem_x509_certificates(self._certificate.read_bytes())), time.time()) or told
        return told


def problem(answer: httpx.Response) -> HansaError:
    """What the server refused, as the error that it is."""
    said = {name: answer.headers[name] for name in ("Content-Type", "Server") if name in answer.headers}
    told = refusal(httpx.Response(answer.status_code, content=_body(answer), headers=said))
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
