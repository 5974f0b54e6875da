"""What any one party may leave at the server: blobs that nothing refers to yet, events of its own making. In memory, bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hansa.errors import RefusedError
from hansa.runtime.store.blob import Blobs

BLOBS: Final = 64  # that a party has sent and that no result or job has named yet: one for each of its runs is usual
BYTES: Final = 64 << 30  # of these together
EVENTS: Final = 60  # that a site may cause by itself at once: greetings, renewals, quarrels of two agents
EVENT_S: Final = 10.0  # after which it may cause one more


class QuotaError(RefusedError):
    """A party has left too much at the server."""

    code = "quota"


class LinesError(QuotaError):
    """A site has told enough of a run: no more of its live lines are kept."""

    code = "lines"


@dataclass(slots=True)
class _Left:
    """How many events a party may still cause, as of a time."""

    count: float
    at: float


class Quotas:
    """Counts what parties leave since the server's start; what came in parts before is counted when they go on with it."""

    def __init__(self, *, blobs: int = BLOBS, size: int = BYTES, events: int = EVENTS) -> None:
        self._most, self._bytes, self._events = blobs, size, events
        self._sent: dict[str, dict[str, int]] = {}
        self._left: dict[str, _Left] = {}

    def send(self, owner: str, digest: str, size: int) -> None:
        """Return if the party may send this blob, too.

        Raises:
            QuotaError: it has sent too many, or too much, that nothing has named.
        """
        sent = self._sent.setdefault(owner, {})
        others = sum(sent.values()) - sent.get(digest, 0)
        if digest not in sent and len(sent) >= self._most:
            raise _blobs(f"{len(sent)} blobs", f"at most {self._most}")
        if others + size > self._bytes:
            raise _blobs(f"{others + size:,} bytes", f"at most {self._bytes:,}")
        sent[digest] = size

    def named(self, owner: str, digest: str) -> None:
        """A result or a job has named the blob: it is no longer the party's to answer for."""
        self._sent.get(owner, {}).pop(digest, None)

    def gone(self, blobs: Blobs) -> None:
        """Forget the blobs that are not here any more: they were swept."""
        for owner, sent in self._sent.items():
            self._sent[owner] = {digest: size for digest, size in sent.items() if blobs.received(digest, owner=owner) > 0}

    def cause(self, owner: str, what: str, *, now: float) -> None:
        """Return if the party may cause one more event of its own. `now` is any clock of seconds that does not go back.

        Raises:
            QuotaError: it has caused too many in short time; says when it may again.
        """
        left = self._left.setdefault(owner, _Left(self._events, now))
        left.count, left.at = min(self._events, left.count + (now - left.at) / EVENT_S), now
        if left.count < 1:
            hint = f"ask again in {EVENT_S * (1 - left.count):.0f} s; if nobody there does it, its agent loops: look at its log"
            raise QuotaError(f"too many events of one site: {what}", site=owner, expected=f"{self._events} at once", hint=hint)
        left.count -= 1


def _blobs(got: str, expected: str) -> QuotaError:
    hint = "send the results, or submit the jobs, that name what is here; what nothing names is removed ten minutes after it came"
    return QuotaError("too much was sent that nothing refers to", got=got, expected=expected, hint=hint)
