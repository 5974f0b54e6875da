"""What went wrong on the way, in words: each fault of TLS, identity and network has its own code and mend."""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
from cryptography import x509

from hansa.errors import HansaError, IdentityError, InputError, RefusedError, UnreachableError, VersionError
from hansa.runtime.protocol.messages import PROBLEM, Problem, decode
from hansa.runtime.transport.way import way

UNTOLD: Final = "http"  # the code of a refusal that says no more than its status
_TEXT: Final = 2_000  # characters of what another party says that are passed on
_KIT: Final = "use the kit that the project's administrator made for this project; if the server's kit is new, ask for a new one"
_CLOCK: Final = "compare both clocks with NTP first"
_ENDED: Final = (
    "ask the administrator: for a person `hansa provision renew NAME`, for a site `hansa provision rotate NAME`, whose new kit "
    "takes this one's place: hansa provision unpack NEW.zip --into KIT, then hansa site enroll KIT"
)


class LostError(UnreachableError):
    """The way to the server is gone for now: the same request may succeed in a moment."""

    code = "lost"

    def __init__(self, code: str, message: str, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]  # the coordinates of HansaError, passed through
        self.code = code


@dataclass(frozen=True, slots=True)
class _Fault:
    """How a fault is told. `lost`: it may pass by itself."""

    code: str
    message: str
    hint: str
    lost: bool = False


# OpenSSL's X509_V_ERR_*: 9 not yet valid, 10 expired, 18-21 no way to a CA, 26 wrong purpose, 62 and 64 another host
_VERIFY: Final = {
    9: _Fault("not_yet_valid", "the server's certificate is not valid yet", f"{_CLOCK}; this machine's may be late"),
    10: _Fault(
        "expired",
        "the server's certificate has expired",
        f"{_CLOCK}; then: hansa provision renew server",
    ),
    26: _Fault("wrong_kind", "who answers has a certificate, but not a server's", "check the address in kit.toml"),
    62: _Fault("wrong_name", "the server's certificate is for another name", "the address in kit.toml must be in project.toml's"),
    64: _Fault(
        "wrong_name", "the server's certificate is for another address", "the address in kit.toml must be in project.toml's"
    ),
}
_WRONG_CA: Final = _Fault("wrong_ca", "the server's certificate is not of this project's CA", _KIT)
_ALERTS: Final = (  # what OpenSSL calls the other side's alert
    (
        "CERTIFICATE_REQUIRED",
        _Fault("no_certificate", "the server asks for a certificate in the handshake", "enrol this kit first"),
    ),
    ("UNKNOWN_CA", _Fault("wrong_ca", "the server does not know the CA of this kit's certificate", _KIT)),
    ("DECRYPT_ERROR", _Fault("wrong_ca", "the server does not believe this kit's certificate", _KIT)),
    ("CERTIFICATE_EXPIRED", _Fault("expired", "this kit's certificate has expired", _ENDED)),
    ("CERTIFICATE_REVOKED", _Fault("revoked", "this kit's certificate was revoked", "ask the project's administrator")),
    ("BAD_CERTIFICATE", _Fault("bad_certificate", "the server refuses this kit's certificate", _KIT)),
    ("CERTIFICATE_UNKNOWN", _Fault("bad_certificate", "the server refuses this kit's certificate", f"{_CLOCK}; {_KIT}")),
    ("WRONG_VERSION_NUMBER", _Fault("plaintext", "no TLS is spoken there", "is it the server's port, or a proxy's?")),
    ("HTTP_REQUEST", _Fault("plaintext", "no TLS is spoken there", "is it the server's port, or a proxy's?")),
)
_REFUSED: Final = _Fault(
    "connection_refused", "nobody listens at this address", "is the server running, and is this its port?", True
)
_DNS: Final = _Fault("dns", "the server's name cannot be resolved", "check the address in kit.toml, and the name server", True)
_TIMEOUT: Final = _Fault(
    "timeout", "no answer in time", "is a firewall in between? Outbound HTTPS to the server must be open", True
)
_PROXY: Final = _Fault(
    "proxy", "the proxy does not let this through", "check the proxy's address, and that it allows CONNECT", True
)
_PROXY_DOWN: Final = _Fault(
    "proxy_down", "the proxy does not answer", "check the proxy's address: `proxy` in site.toml, or HTTPS_PROXY", True
)
_PROXY_LOGIN: Final = _Fault(
    "proxy_login",
    "the proxy asks for a login, or refuses the one it got",
    "put NAME:PASSWORD into the kit's file proxy.login (chmod 600)",
    True,
)
_PROXY_DENIED: Final = _Fault(
    "proxy_denied", "the proxy's rules forbid this address", "ask who runs the proxy to allow CONNECT to the server's port", True
)
_PROXY_LOST: Final = _Fault(
    "proxy_lost", "the proxy does not reach the server", "does it resolve the server's name, and may it go there?", True
)
_OF_PROXY: Final = {  # what a proxy answers to CONNECT
    403: _PROXY_DENIED,
    405: _PROXY_DENIED,
    407: _PROXY_LOGIN,
    502: _PROXY_LOST,
    503: _PROXY_LOST,
    504: _PROXY_LOST,
}
_STATUS: Final = re.compile(r"\b[45]\d\d\b")
_OPENED: Final = "a proxy that opens TLS shows a certificate of its own: ask who runs it to leave this address alone"
_FRONT_BODY: Final = _Fault(
    "front_body", "what stands before the server takes no body of this size", "allow 1 MiB: client_max_body_size 1m"
)
_FRONT_LOST: Final = _Fault(
    "front_upstream", "what stands before the server does not reach it", "is the server up, and does proxy_pass lead to it?"
)
_FRONT_TIMEOUT: Final = _Fault(
    "front_timeout", "what stands before the server did not wait for it", "allow 60 s for an answer: proxy_read_timeout"
)
_FRONT_DENIED: Final = _Fault(
    "front_denied", "what stands before the server refuses the request", "let GET, HEAD, POST, PUT to /v1 and /api pass untouched"
)
_OF_FRONT: Final = {  # what stands before a server that has not answered itself: nginx, a load balancer, a firewall
    401: _FRONT_DENIED,
    403: _FRONT_DENIED,
    405: _FRONT_DENIED,
    408: _FRONT_TIMEOUT,
    413: _FRONT_BODY,
    502: _FRONT_LOST,
    503: _FRONT_LOST,
    504: _FRONT_TIMEOUT,
}
_FRONT: Final = _Fault("front", "what answers is not this project's server", "check the address, and where a proxy before it leads")
BY_HAND: Final = frozenset(
    {"proxy", "proxy_login", "proxy_denied", "front", "front_body", "front_denied"}
)  # time mends none of these
_BROKEN: Final = _Fault("lost", "the connection was lost", "it is tried again", True)
_NO_ROUTE: Final = _Fault("no_route", "there is no way to this address", "check the network", True)
_UNREACHABLE: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


def explain(error: BaseException, url: str, proxy: httpx.Proxy | None = None) -> HansaError:
    """The typed error of a request to `url`, through `proxy` if there is one, that got no answer."""
    fault = _fault(error)
    parts = urlsplit(url)
    place, hint, got = f"{parts.hostname}:{parts.port or 443}", fault.hint, None
    if proxy is not None:
        place += f" through {proxy.url.host}:{proxy.url.port or 80}"  # and nothing of its login
        if fault in (_REFUSED, _DNS, _NO_ROUTE):
            fault, hint = _PROXY_DOWN, _PROXY_DOWN.hint
        elif fault is _WRONG_CA:
            hint = _OPENED
        elif fault.code.startswith("proxy"):
            got = next((str(each) for each in _causes(error) if isinstance(each, httpx.ProxyError)), None)
    if fault.lost:
        return LostError(fault.code, fault.message, path=place, got=got, hint=hint)
    return IdentityError(fault.code, fault.message, path=place, hint=hint)


def refusal(response: httpx.Response) -> HansaError:
    """The typed error of an answer that says no. The answer's code is passed on as text; its status chooses the class."""
    status = response.status_code
    if not response.headers.get("Content-Type", "").startswith(PROBLEM):
        return _front(response)
    try:
        told: Problem = decode(response.content, Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # the answer to HEAD has no body
        told = Problem(title=f"status {status}", status=status, code="no_token" if status == 401 else UNTOLD)
    message = told.title[:_TEXT] + (f"; {told.detail[:_TEXT]}" if told.detail else "")
    hint, code = told.hint[:_TEXT] or None, told.code[:64]
    if status >= 500 or status in {408, 429} or code == "busy":  # 507: the server's disk is full for now
        return LostError(code, message, hint=hint)
    if status in {401, 403}:
        return RefusedError(message, hint=hint) if code == RefusedError.code else IdentityError(code, message, hint=hint)
    kind = VersionError if code == VersionError.code else InputError
    error = kind(message, hint=hint)
    error.code = code
    return error


def _front(response: httpx.Response) -> LostError:
    """The typed error of an answer that is not our server's: it says no more than its status, and may pass when that is mended."""
    fault = _OF_FRONT.get(response.status_code, _FRONT)
    who = response.headers.get("Server", "a proxy or balancer")[:60]
    return LostError(fault.code, fault.message, got=f"status {response.status_code} of {who}", hint=fault.hint)


def probe(url: str, context: ssl.SSLContext, *, timeout_s: float, proxy: httpx.Proxy | None = None) -> HansaError | None:
    """What a bare handshake with the server meets; None if it is sound. Blocks for at most about `timeout_s`.

    An HTTP client tells of a refused certificate only that the connection broke; the handshake itself says why.
    """
    try:
        with contextlib.closing(way(url, context, proxy, timeout_s=timeout_s)) as connection:
            connection.connect()
            with contextlib.suppress(OSError):  # closed already: what the server said before is still to be read
                connection.sock.sendall(b"HEAD /health HTTP/1.1\r\nHost: hansa\r\nConnection: close\r\n\r\n")
            connection.sock.recv(1)  # with TLS 1.3 a refusal comes after the handshake
    except (OSError, http.client.HTTPException) as error:
        return explain(error, url, proxy)
    return None


def own_fault(chain: Sequence[bytes], now: float) -> HansaError | None:
    """What is wrong with the time of one's own certificate (DER, leaf first), if anything is: servers do not tell these apart."""
    if not chain:
        return None
    leaf = x509.load_der_x509_certificate(chain[0])
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now < begins.timestamp():
        hint, when = f"{_CLOCK}; this machine's may be late", f"from {begins:%Y-%m-%d %H:%M} UTC"
        return IdentityError("not_yet_valid", "this kit's certificate is not valid yet", expected=when, hint=hint)
    if now > ends.timestamp():
        hint = f"{_CLOCK}; then {_ENDED}"
        return IdentityError("expired", "this kit's certificate has expired", got=f"ended {ends:%Y-%m-%d %H:%M} UTC", hint=hint)
    return None


def _fault(error: BaseException) -> _Fault:
    for each in _causes(error):
        match each:
            case ssl.SSLCertVerificationError():
                return _VERIFY.get(each.verify_code, _WRONG_CA)
            case ssl.SSLWantReadError() | ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                continue
            case ssl.SSLError():
                text = f"{each.reason} {each}".upper()
                return next((fault for word, fault in _ALERTS if word in text), _BROKEN)
            case socket.gaierror():
                return _DNS
            case ConnectionRefusedError():
                return _REFUSED
            case httpx.ProxyError():
                return _OF_PROXY.get(int(status[0]) if (status := _STATUS.search(str(each))) else 0, _PROXY)
            case OSError() if each.errno in _UNREACHABLE:
                return _NO_ROUTE
    timed_out = any(isinstance(each, TimeoutError | httpx.TimeoutException) for each in _causes(error))
    return _TIMEOUT if timed_out else _BROKEN


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
