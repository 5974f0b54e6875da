"""A person's way to the server: a token, and a proof of possession on every request; patience while the server restarts."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from hansa.admin.wire import Wire, pieces, problem
from hansa.errors import RunError, UnreachableError
from hansa.runtime.authz.certificates import der
from hansa.runtime.config import Kit
from hansa.runtime.protocol.messages import CHUNK, Token
from hansa.runtime.protocol.session import proof
from hansa.runtime.transport.faults import BY_HAND

if TYPE_CHECKING:
    import httpx

PATIENCE_S: Final = 300.0  # how long a server that cannot be reached is tried again: it may be restarting
RENEW_S: Final = 30.0  # before a token ends, the next one is asked for

T = TypeVar("T")


class Channel:
    """Requests of one party to its server, from one thread; `close` may come from another. `proxy` is one on the way."""

    def __init__(self, kit: Kit, *, patience_s: float = PATIENCE_S, proxy: httpx.Proxy | None = None) -> None:
        self.kit, self._patience_s = kit, patience_s
        self._key, self._chain = kit.private_key(), der(*kit.chain())
        self._token, self._renew_at = "", 0.0
        self._closed = threading.Event()
        self._wire = Wire(kit, kit.certificate, kit.key, proxy=proxy)

    def close(self) -> None:
        """Close the connection; a wait for the server ends."""
        self._closed.set()
        self._wire.close()

    def ask(self, method: str, path: str, kind: type[T], *, query: Mapping[str, Any] | None = None, body: object = None) -> T:
        """The server's answer, as that kind of record (NoneType: there is nothing to read).

        Raises:
            RefusedError, InputError, StorageError: what the server says. IdentityError, UnreachableError: it was not reached.
        """
        content = None if body is None else msgspec.json.encode(body)
        with self._sent(method, path, query=query, content=content, headers={"Content-Type": "application/json"}) as answer:
            if kind is type(None):
                return None
            return self._wire.read(answer, kind)

    def patiently(self, asked: Callable[[], T], *, note: Callable[[str], None] = lambda _: None) -> T:
        """What the call gives, made again while the server cannot be reached, for some minutes: only for what may be repeated.

        Raises:
            UnreachableError: it has been tried long enough; or a person has to mend what is in the way; or the channel was closed;
                or the server was not there from the first: then nobody waits for it in silence.
        """
        ends, pause_s, told = time.monotonic() + self._patience_s, 0.2, False
        while True:
            try:
                return asked()
            except UnreachableError as error:
                if error.code in BY_HAND or not self._token or time.monotonic() > ends or self._closed.is_set():
                    raise
                if not told:
                    note(f"{error.message}; trying again")
                    told = True
            self._closed.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  so that many do not come at once
            pause_s = min(2 * pause_s, 5.0)

    def upload(self, digest: str, data: bytes) -> None:
        """Give the server a blob, from where it has it already.

        Raises:
            RunError: the server does not take what is sent.
        """
        path = f"/v1/blobs/{digest}"
        with self._sent("HEAD", path) as answer:
            offset = _offset(answer)
        whole = False
        while not whole:  # the last piece makes the blob whole: an empty one, where all had come before the server was killed
            piece = data[offset : offset + CHUNK]
            headers = {"Upload-Offset": str(offset), "Upload-Length": str(len(data)), "Content-Type": "application/octet-stream"}
            with self._sent("PUT", path, content=piece, headers=headers) as answer:
                before, offset = offset, _offset(answer)
            if offset != before + len(piece):
                raise RunError("the server does not take what is sent", path=digest, got=offset, expected=before + len(piece))
            whole = offset == len(data)

    @contextlib.contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a file of the server, piece by piece."""
        with self._sent("GET", path) as answer:
            yield pieces(answer, CHUNK)

    def fetch_token(self) -> Token:
        """A new token, with the server's time: the proof that the server knows this party.

        Raises:
            IdentityError: the server does not let it in; says why. UnreachableError: there is no answer.
        """
        path = "/v1/token"
        shown = proof(self._key, method="POST", url=self.kit.url + path, now=time.time(), chain=self._chain)
        return self._wire.ask("POST", path, Token, headers={"DPoP": shown})

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
        """The answer to a request, open; what is no success is raised. A token that the server does not take is renewed once."""
        for again in (True, False):
            token = self._good_token(anew=not again)
            shown = proof(self._key, method=method, url=self.kit.url + path, now=time.time(), token=token)
            own = {"Authorization": f"DPoP {token}", "DPoP": shown, **(headers if headers and content is not None else {})}
            with self._wire.opened(method, path, query=query, content=content, headers=own) as answer:
                if answer.status_code == 401 and again:
                    continue
                if answer.status_code >= 300:
                    raise problem(answer)
                yield answer
                return

    def _good_token(self, *, anew: bool) -> str:
        now = time.monotonic()
        if anew or now >= self._renew_at:
            found = self.fetch_token()
            self._token, self._renew_at = found.token, now + found.expires_in - RENEW_S
        return self._token


def _offset(answer: httpx.Response) -> int:
    text = answer.headers.get("Upload-Offset", "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UnreachableError("the server does not say how much it has", path=str(answer.url), hint="is it of this version?")
    return int(text)
