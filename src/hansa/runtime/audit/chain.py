"""Whether a record of events is whole: each stream's hash chain, and the signed heads that show a cut-off or rewritten end."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.errors import HansaError, RefusedError
from hansa.runtime.store.event import GENESIS, Entry, Event, Head, canonical, link

KIND: Final = "audit"
TEXT_LIMIT: Final = 1_000  # characters of one field
_PURPOSE: Final = "hansa audit head v1\n"  # signed with it, so that the signature is good for nothing else


class Verified(NamedTuple):
    """The record is whole: how many events it has, and where each stream ends."""

    events: int
    heads: dict[str, Head]


class Broken(NamedTuple):
    """The first event of a stream that is not what was committed there, or is missing, and why."""

    stream: str
    seq: int
    why: str


Verdict: TypeAlias = Verified | Broken


class SignedHead(msgspec.Struct, frozen=True):
    """A head that someone vouches for at a time: whoever keeps it notices when the record before it changes or shrinks."""

    head: Head
    at: float
    signature: str  # Ed25519, base64


def verify(events: Iterable[Event], heads: Iterable[Head] = ()) -> Verdict:
    """Whether the events, in the order of their store, are whole streams that run through every one of the heads.

    Without heads, a record that was cut off at its end, or rewritten from some event on, cannot be told from a whole one: give the
    heads that were signed (`check_head`) and kept elsewhere.
    """
    expected = {(head.stream, head.seq): head.hash for head in heads}
    ends: dict[str, Head] = {}
    count = last = 0
    for event in events:
        before = ends.get(event.stream) or Head(event.stream, 0, GENESIS)
        why = _fault(event, before, expected.pop((event.stream, before.seq + 1), None))
        if why is None and event.id <= last:
            why = "the event stands out of order"
        if why is not None:
            return Broken(event.stream, min(event.seq, before.seq + 1), why)
        ends[event.stream], last, count = event.head, event.id, count + 1
    for stream, seq in sorted(key for key in expected if key[1] > 0):
        end = ends[stream].seq if stream in ends else 0
        return Broken(stream, end + 1, f"the record ends before event {seq}, which a head names")
    return Verified(count, ends)


def _fault(event: Event, before: Head, signed: str | None) -> str | None:
    """What is wrong with an event that should follow `before`; None if nothing is."""
    wanted = before.seq + 1
    if event.seq != wanted:
        return f"event {event.seq} stands where event {wanted} should be"
    if event.prev != before.hash:
        return "the event does not continue the one before it"
    try:
        text = canonical(event.data)
    except HansaError:
        return "the event's data is no plain JSON"
    if link(event.prev, stream=event.stream, seq=event.seq, kind=event.kind, at=event.at, text=text) != event.hash:
        return "the event does not have its hash"
    if signed is not None and signed != event.hash:
        return "the event is not the one whose head was signed"
    return None


def sign_head(head: Head, key: Ed25519PrivateKey, *, at: float) -> SignedHead:
    """The head with a signature. at: seconds since the epoch."""
    return SignedHead(head, at, base64.b64encode(key.sign(_signed(head, at))).decode())


def check_head(signed: SignedHead, key: Ed25519PublicKey) -> Head:
    """The head, if the key's owner signed it.

    Raises:
        RefusedError: the signature is not of this key, or not of this head; names the stream.
    """
    try:
        key.verify(base64.b64decode(signed.signature, validate=True), _signed(signed.head, signed.at))
    except (InvalidSignature, binascii.Error, ValueError, HansaError) as error:
        path = f"{inert(signed.head.stream)} {signed.head.seq}"
        raise RefusedError("the head's signature is not good", path=path, hint="compare the project's audit key") from error
    return signed.head


def _signed(head: Head, at: float) -> bytes:
    return (_PURPOSE + canonical({"at": at, "hash": head.hash, "seq": head.seq, "stream": head.stream})).encode()


def entry(
    actor: str,
    action: str,
    resource: str,
    decision: Literal["permit", "deny"],
    *,
    reason: str = "",
    hashes: Mapping[str, str] | None = None,
) -> Entry:
    r"""An audit entry: who wanted to do what to what, and what was decided. Commit it together with the effect.

    actor: a name with the fingerprint of its key. hashes: of what the decision rests on (`policy`, `job`).
    Whatever a text holds, it stays on one line and moves no cursor.

    >>> entry("mallory", "job.abort", "run 7\nmallory permit", "deny").data["resource"]
    'run 7\\nmallory permit'
    """
    texts = {"actor": actor, "action": action, "resource": resource, "decision": decision, "reason": reason}
    data: dict[str, Any] = {name: inert(text) for name, text in texts.items() if text}
    if hashes:
        data["hashes"] = {inert(name): inert(value) for name, value in hashes.items()}
    return Entry(KIND, data)


def inert(text: str) -> str:
    r"""The text with everything a terminal or a log would act on written out (`\n`, `\x1b`), and a long one cut off, saying so."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:TEXT_LIMIT])
    more = len(text) - TEXT_LIMIT
    return shown if more <= 0 else f"{shown}... ({more:,} characters more)"
