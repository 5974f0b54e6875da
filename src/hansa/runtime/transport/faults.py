"""What went wrong on the way, in words: each fault of TLS, identity and network has its own code and mend."""

from __future__ import annotations

import contextlib
import errno
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
from hansa.runtime.protocol.messages import Problem, decode

UNTOLD: Final = "http"  # the code of a refusal that says no more than its status
_TEXT: Final = 2_000  # characters of what another party says that are passed on
_KIT: Final = "use the kit that the project's administrator made for this project; if the server's kit is new, ask for a new one"
_CLOCK: Final = "compare both clocks with NTP first"


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
    10: _Fault("expired", "the server's certificate has expired", f"{_CLOCK}; then: hansa provision rotate server"),
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
    ("CERTIFICATE_EXPIRED", _Fault("expired", "this kit's certificate has expired", "ask for a new one: hansa provision rotate")),
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
_BROKEN: Final = _Fault("lost", "the connection was lost", "it is tried again", True)
_NO_ROUTE: Final = _Fault("no_route", "there is no way to this address", "check the network", True)
_UNREACHABLE: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


def explain(error: BaseException, url: str) -> HansaError:
    """The typed error of a request to `url` that got no answer."""
    fault = _fault(error)
    place = "{0.hostname}:{0.port}".format(urlsplit(url))
    if fault.lost:
        return LostError(fault.code, fault.message, path=place, hint=fault.hint)
    return IdentityError(fault.code, fault.message, path=place, hint=fault.hint)


def refusal(response: httpx.Response) -> HansaError:
    """The typed error of an answer that says no. The answer's code is passed on as text; its status chooses the class."""
    status = response.status_code
    try:
        told: Problem = decode(response.content, Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # not ours: a proxy's page
        code = "no_token" if status == 401 else UNTOLD
        told = Problem(title=f"status {status}", status=status, code=code, hint="is a proxy in between?")
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


def probe(url: str, context: ssl.SSLContext, *, timeout_s: float) -> HansaError | None:
    """What a bare handshake with the server meets; None if it is sound. Blocks for at most about `timeout_s`.

    An HTTP client tells of a refused certificate only that the connection broke; the handshake itself says why.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 443)
    try:
        with (
            socket.create_connection(address, timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as connection,
        ):
            with contextlib.suppress(OSError):  # closed already: what the server said before is still to be read
                connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: hansa\r\nConnection: close\r\n\r\n")
            connection.recv(1)  # with TLS 1.3 a refusal comes after the handshake
    except OSError as error:
        return explain(error, url)
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
        hint = f"{_CLOCK}; then ask the project's administrator: hansa provision rotate NAME"
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
                return _PROXY
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
