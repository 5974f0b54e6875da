"""Whatever is done to a record, verification names the first event that is not what was committed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.runtime.audit.chain import Broken, Verified, verify
from hansa.runtime.store.event import GENESIS, Event, Head, canonical, link

STREAMS = ("project", "run-1", "run-2")


def chained(events: list[Event]) -> list[Event]:
    """The events, each stream numbered and linked anew, as someone would who can write to the store."""
    heads: dict[str, Head] = {}
    done = []
    for number, event in enumerate(events, start=1):
        before = heads.get(event.stream, Head(event.stream, 0, GENESIS))
        text, seq = canonical(event.data), before.seq + 1
        hashed = link(before.hash, stream=event.stream, seq=seq, kind=event.kind, at=event.at, text=text)
        done.append(Event(number, event.stream, seq, event.kind, event.at, event.data, before.hash, hashed))
        heads[event.stream] = done[-1].head
    return done


@dataclass
class Tampered:
    """A record after someone was at it, and where that must be noticed."""

    events: list[Event]
    at: tuple[str, int]


def changed(event: Event, field: str) -> Event:
    others: dict[str, Any] = {
        "kind": event.kind + "x",
        "at": event.at + 1e-6,
        "data": {**event.data, "n": -1},
        "prev": "f" * 64,
        "hash": event.hash[::-1],
        "seq": event.seq + 1,
    }
    return msgspec.structs.replace(event, **{field: others[field]})


def edit(draw: Callable[..., Any], events: list[Event], i: int) -> Tampered:
    field = draw(st.sampled_from(["kind", "at", "data", "prev", "hash", "seq"]))
    return Tampered([*events[:i], changed(events[i], field), *events[i + 1 :]], (events[i].stream, events[i].seq))


def edit_and_hash(draw: Callable[..., Any], events: list[Event], i: int) -> Tampered:
    """The event's own hash is made right again: the next of its stream, or the signed head, gives it away."""
    event = changed(events[i], "data")
    hashed = link(event.prev, stream=event.stream, seq=event.seq, kind=event.kind, at=event.at, text=canonical(event.data))
    last = not any(each.stream == event.stream for each in events[i + 1 :])
    forged = msgspec.structs.replace(event, hash=hashed)
    return Tampered([*events[:i], forged, *events[i + 1 :]], (event.stream, event.seq if last else event.seq + 1))


def rewrite(draw: Callable[..., Any], events: list[Event], i: int) -> Tampered:
    """Everything from the event on is chained anew: only the signed head shows it."""
    stream = events[i].stream
    end = max(event.seq for event in events if event.stream == stream)
    return Tampered(chained([*events[:i], changed(events[i], "data"), *events[i + 1 :]]), (stream, end))


def delete(draw: Callable[..., Any], events: list[Event], i: int) -> Tampered:
    return Tampered([*events[:i], *events[i + 1 :]], (events[i].stream, events[i].seq))


def insert(draw: Callable[..., Any], events: list[Event], i: int) -> Tampered:
    """An event stands a second time, somewhere else."""
    copy = events[draw(st.integers(0, len(events) - 1))]
    expected = 1 + sum(event.stream == copy.stream for event in events[:i])
    if copy.seq == expected:  # it came to stand right before itself: the second of the two is the one too many
        return Tampered([*events[:i], copy, *events[i:]], (copy.stream, copy.seq) if events[i] is copy else NOWHERE)
    return Tampered([*events[:i], copy, *events[i:]], (copy.stream, min(copy.seq, expected)))


def reorder(draw: Callable[..., Any], events: list[Event], i: int) -> Tampered:
    same = [k for k, event in enumerate(events) if event.stream == events[i].stream and k != i]
    first, second = sorted((i, draw(st.sampled_from(same))))
    swapped = list(events)
    swapped[first], swapped[second] = events[second], events[first]
    return Tampered(swapped, (events[i].stream, events[first].seq))


def truncate(draw: Callable[..., Any], events: list[Event], i: int) -> Tampered:
    ends = {stream: sum(event.stream == stream for event in events[:i]) for stream in STREAMS}
    first = min(stream for stream in STREAMS if ends[stream] < sum(event.stream == stream for event in events))
    return Tampered(events[:i], (first, ends[first] + 1))


NOWHERE = ("", 0)  # found, but where depends on what stands between
TAMPERINGS = (edit, edit_and_hash, rewrite, delete, insert, reorder, truncate)


def blank(stream: str, number: int) -> Event:
    return Event(0, stream, 0, "n", float(number), {"n": number, "site": "north"}, "", "")


records = st.lists(st.sampled_from(STREAMS), max_size=20).map(
    lambda streams: chained([blank(stream, n) for n, stream in enumerate([*STREAMS, *streams, *STREAMS])])
)


@settings(max_examples=300, deadline=None)
@given(records, st.sampled_from(TAMPERINGS), st.data())
def test_every_tampering_is_found_at_the_first_event_that_it_spoilt(
    record: list[Event], tamper: Callable[..., Tampered], data: st.DataObject
) -> None:
    heads = {event.stream: event.head for event in record}
    assert verify(record, heads.values()) == Verified(len(record), heads)
    tampered = tamper(data.draw, record, data.draw(st.integers(0, len(record) - 1)))
    verdict = verify(tampered.events, heads.values())
    assert isinstance(verdict, Broken)
    assert tampered.at in {NOWHERE, (verdict.stream, verdict.seq)}, verdict


@settings(max_examples=100, deadline=None)
@given(records, st.data())
def test_verification_of_hostile_events_raises_nothing(record: list[Event], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(record) - 1))
    values: dict[str, Any] = {
        "id": data.draw(st.integers()),
        "seq": data.draw(st.integers()),
        "at": data.draw(st.floats()),
        "data": data.draw(st.dictionaries(st.text(), st.one_of(st.floats(), st.text(), st.binary(), st.none()))),
        "stream": data.draw(st.text()),
        "prev": data.draw(st.text()),
    }
    field = data.draw(st.sampled_from(sorted(values)))
    hostile = msgspec.structs.replace(record[i], **{field: values[field]})
    assert isinstance(verify([*record[:i], hostile, *record[i + 1 :]]), Broken | Verified)
