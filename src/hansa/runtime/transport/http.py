"""A connection to the server: every request carries a token and a proof, and is repeated while the way is gone."""

from __future__ import annotations

import asyncio
import http.client
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import HansaError, IdentityError
from hansa.runtime.protocol.messages import AGENT, INSIDE, JSON_LIMIT, OWN, Message, Token, decode, encode, own_bytes
from hansa.runtime.protocol.session import proof
from hansa.runtime.transport.bulk import Answer, Line, Lines
from hansa.runtime.transport.faults import UNTOLD, LostError, explain, own_fault, probe, refusal
from hansa.runtime.transport.way import show, tls

CONNECT_S: Final = 4.0  # a fault of TLS, identity or name is told within 5 s
QUIET_S: Final = 30.0  # without a byte, an answer is given up and asked for again
RENEW_S: Final = 30.0  # before a token ends
SKEW_S: Final = 30.0  # beyond which a clock is told of; at 60 s the server refuses
IDLE_S: Final = 25.0  # an unused connection is kept: a handshake costs as much as ten requests; the server closes it after 30 s
ANSWER_LIMIT: Final = 4 * JSON_LIMIT  # bytes
_FIRST_S, _LONGEST_S = 0.1, 5.0  # pauses before a request is repeated
_LOG: Final = logging.getLogger("hansa.transport")

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Where the server is, who it must be, and who asks.

    `ca` is that of the server's address (None: any that this machine knows). `certificate` and `key_file` are shown in the
    handshake (None: a proxy ends TLS); `chain` (DER, leaf first) is what a token is asked for with.
    """

    url: str
    ca: Path | None
    certificate: Path | None
    key_file: Path | None = field(repr=False)
    chain: Sequence[bytes] = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)


class Connection:
    """Requests to the server, in one asyncio loop. `proxy` is an HTTP proxy that allows CONNECT.

    retry: whether a lost connection is tried again, with growing pauses, until the caller cancels; without it, it is an error.
    passing: codes of refusals that may pass, and are treated so, too.
    agent: what this agent calls itself, so that the server tells it from another one with the same identity.
    on_back: called when the server answers again after it was lost, or has been started anew.

    Raises:
        InputError: the kit's certificate or CA cannot be used.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        proxy: httpx.Proxy | None = None,
        retry: bool = True,
        passing: frozenset[str] = frozenset(),
        agent: str = "",
    ) -> None:
        self._who, self._retry, self._proxy, self._passing = credentials, retry, proxy, passing
        self._context = tls(credentials.ca, credentials.certificate, credentials.key_file)
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=IDLE_S)
        timeout = httpx.Timeout(QUIET_S, connect=CONNECT_S)
        self._http = httpx.AsyncClient(verify=self._context, trust_env=False, proxy=proxy, limits=limits, timeout=timeout)
        self._lines = Lines(self._line)
        self._own = {AGENT: agent} if agent else {}
        self._token, self._ends = "", 0.0
        self._getting = asyncio.Lock()
        self._answered = False  # whether this server has ever let us in
        self.skew_s = 0.0  # how far the server's clock is ahead of ours
        self.on_back: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lines.close()
        await self._http.aclose()

    async def adopt(self, who: Credentials) -> None:
        """Ask as these from now on: the same party, with its next certificate. What is under way ends as it began.

        Raises:
            InputError: the certificate cannot be used.
        """
        async with self._getting:  # a token that is being fetched would be bound to the old key
            show(self._context, who.certificate, who.key_file)
            self._who, self._token = who, ""

    async def post(self, path: str, message: Message, kind: type[M]) -> M:
        """The server's answer to a message.

        Raises:
            InputError, RefusedError, IdentityError: the server's refusal. UnreachableError: without `retry` only.
        """
        return _read(await self.request("POST", path, content=encode(message)), kind)

    async def tell(self, path: str, message: Message) -> None:
        """Send a message that has no answer."""
        await self.request("POST", path, content=encode(message))

    async def get(self, path: str, kind: type[M], *, params: Mapping[str, str] | None = None, hold_s: float = 0.0) -> M:
        """The server's answer; `hold_s` is for how long the server may hold it."""
        return _read(await self.request("GET", path, params=params, quiet_s=QUIET_S + hold_s), kind)

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        quiet_s: float = QUIET_S,
    ) -> httpx.Response:
        """The answer to a request, which is repeated while the way is gone."""

        async def once(own: Mapping[str, str]) -> httpx.Response:
            timeout = httpx.Timeout(quiet_s, connect=CONNECT_S)
            all_headers = {**own, **(headers or {})}
            url = self._who.url + path
            answer = await self._ask(method, url, content=content, headers=all_headers, params=params, timeout=timeout)
            if answer.status_code >= 300:
                raise refusal(answer)
            return answer

        try:
            return await self.persist(lambda: self.proven(method, path, once), what=f"{method} {path}")
        except HansaError as error:
            if method == "HEAD" and error.code == UNTOLD:  # its refusals have no body: GET's have
                await self.request("GET", path, headers={"Range": "bytes=0-0"})
            raise

    async def _ask(self, method: str, url: str, *, headers: Mapping[str, str], **how: Any) -> httpx.Response:
        """The answer as it came, if it is no larger than one can be: whoever gives it, no more is kept, and nothing is unpacked."""
        plain = {**headers, "Accept-Encoding": "identity"}
        async with self._http.stream(method, url, headers=plain, **how) as answer:
            content = bytearray()
            async for block in answer.aiter_raw():
                content += block
                if len(content) > ANSWER_LIMIT:
                    raise LostError("malformed", "the server's answer is too long", expected=f"at most {ANSWER_LIMIT:,} bytes")
            said = {name: value for name, value in answer.headers.items() if name not in ("content-encoding", "transfer-encoding")}
            return httpx.Response(answer.status_code, headers=said, content=bytes(content))

    async def proven(self, method: str, path: str, once: Callable[[Mapping[str, str]], Awaitable[T]]) -> T:
        """What one request gives, sent with a token and a proof. A token that the server does not take is renewed once."""
        for last in (False, True):
            token = await self._valid_token()
            own = proof(self._who.key, method=method, url=self._who.url + path, now=time.time(), token=token)
            try:
                answer = await self._guarded(once({"Authorization": f"DPoP {token}", "DPoP": own, **self._own}))
            except HansaError as error:
                if last or error.code not in _STALE:
                    raise
                if self._token == token:
                    self._token = ""
                continue
            self._answered = True
            return answer
        raise AssertionError  # the loop's last turn returns or raises

    async def persist(self, attempt: Callable[[], Awaitable[T]], *, what: str) -> T:
        """What the attempt gives, made again while the way is gone or the server cannot serve."""
        pause_s, lost = _FIRST_S, ""
        while True:
            try:
                answer = await attempt()
            except HansaError as error:
                if not self._retry or not (isinstance(error, LostError) or error.code in self._passing):
                    raise
                if lost != error.code:
                    _LOG.warning("server.lost code=%s what=%r why=%r", error.code, what, str(error))
                lost = error.code
            else:
                if lost:
                    _LOG.info("server.back what=%r", what)
                    self.on_back()
                return answer
            await asyncio.sleep(pause_s * (0.5 + secrets.randbelow(1_000) / 2_000))  # spread, for a thousand sites at once
            pause_s = min(2 * pause_s, _LONGEST_S)

    async def carry(
        self,
        method: str,
        path: str,
        kind: type[M],
        *,
        content: Callable[[], bytes] = bytes,
        own: int | None = None,
        params: Mapping[str, str] | None = None,
        hold_s: float = 0.0,
    ) -> tuple[M, memoryview]:
        """The server's answer to a message that blobs may come with, either way, and the bytes that follow it.

        content: called in a thread; of what it gives, the first `own` bytes are the message. Raises as `post` does.
        """
        headers = {} if own is None else {OWN: str(own), "Content-Type": "application/octet-stream"}
        target = f"{path}?{urlencode(params)}" if params else path

        async def once(proofs: Mapping[str, str]) -> Answer:
            asked = {**proofs, **headers}
            quiet_s, most = QUIET_S + hold_s, JSON_LIMIT + INSIDE

            def ask(line: Line) -> Answer:
                return line.ask(method, target, asked, content(), limit=most, quiet_s=quiet_s)

            return await self._in_thread(ask)

        answer = await self.persist(lambda: self.proven(method, path, once), what=f"{method} {path}")
        try:
            size = own_bytes(answer.own, len(answer.content))
            message: M = decode(answer.content[:size], kind)
        except (msgspec.MsgspecError, ValueError) as error:
            raise _malformed(error) from error
        return message, answer.content[size:]

    async def bulk(self, method: str, path: str, transfer: Callable[[Line, Mapping[str, str]], None]) -> None:
        """Do a transfer in a thread, with a connection and the headers that prove who asks; one attempt.

        A caller that is cancelled waits until the thread has noticed.
        """
        await self.proven(method, path, lambda own: self._in_thread(lambda line: transfer(line, own)))

    async def _in_thread(self, work: Callable[[Line], T]) -> T:
        line = self._lines.take()
        running = asyncio.ensure_future(asyncio.to_thread(work, line))
        try:
            found = await asyncio.shield(running)
        except asyncio.CancelledError:
            line.cut()
            await asyncio.gather(running, return_exceptions=True)
            line.close()
            raise
        except BaseException:
            line.close()  # a refusal, too, may have come before all was sent
            raise
        self._lines.give(line)
        return found

    def _line(self) -> Line:
        return Line(self._who.url, self._context, self._proxy, connect_s=CONNECT_S, quiet_s=QUIET_S)

    @property
    def direct(self) -> bool:
        """Whether TLS ends at the server itself: no proxy in between limits the size of a body."""
        return self._who.certificate is not None

    async def _guarded(self, sending: Awaitable[T]) -> T:
        """What the request gives, with the way's faults told apart."""
        try:
            return await sending
        except (httpx.HTTPError, http.client.HTTPException, OSError) as error:
            told = explain(error, self._who.url, self._proxy)
            if told.code == "lost" and not self._answered:
                seen = await asyncio.to_thread(probe, self._who.url, self._context, timeout_s=CONNECT_S / 2, proxy=self._proxy)
                told = seen or told
            if isinstance(told, IdentityError):
                told = own_fault(self._who.chain, time.time()) or told
            raise told from error

    async def _valid_token(self) -> str:
        async with self._getting:
            if not self._token or time.monotonic() > self._ends:
                renewed = self._answered and not self._token
                await self._guarded(self._fetch_token())
                if renewed:  # a token that was good is not: the server has been started anew, or this side has a new key
                    self.on_back()
            return self._token

    async def _fetch_token(self) -> None:
        path = f"{self._who.url}/v1/token"
        asked = time.time()
        own = proof(self._who.key, method="POST", url=path, now=asked, chain=self._who.chain)
        answer = await self._ask("POST", path, headers={"DPoP": own})
        if answer.status_code != 200:
            raise refusal(answer)
        token = _read(answer, Token)
        self.skew_s = token.server_time - (asked + time.time()) / 2
        if abs(self.skew_s) > SKEW_S:
            _LOG.warning("clock.skew seconds=%.0f hint='set both clocks by NTP: at 60 s the server refuses'", self.skew_s)
        self._token, self._ends = token.token, time.monotonic() + max(0.0, token.expires_in - RENEW_S)


# What a server says of a token that it has forgotten or that has ended. Anything else is said for good.
_STALE: Final = frozenset({"no_token", "token_expired", "bad_signature"})


def _read(answer: httpx.Response, kind: type[M]) -> M:
    try:
        message: M = decode(answer.content, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _malformed(error) from error
    return message


def _malformed(error: Exception) -> LostError:
    return LostError("malformed", f"the server's answer cannot be read: {error}", hint="is a proxy in between?")
