"""The audit chain: whole records, signed heads, entries that move no cursor. Tamperings are in tests/property."""

import contextlib
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.errors import RefusedError
from hansa.runtime.audit.chain import Broken, Verified, check_head, entry, sign_head, verify
from hansa.runtime.store.event import GENESIS, Head, link
from hansa.runtime.store.events import Entry, Event, SqliteEvents


@pytest.fixture
def record(tmp_path: Path) -> list[Event]:
    """Two streams, three events each, by turns."""
    with contextlib.closing(SqliteEvents(tmp_path / "events.sqlite")) as events:
        for number in range(3):
            events.commit(
                {"project": [entry("alice", "job.submit", f"job {number}", "permit")], "run-1": [Entry("a", {})]}, at=number
            )
        return list(events.all())


def test_the_hash_is_sha256_of_the_link_before_and_the_canonical_json() -> None:
    # printf '%064d{"at":1.5,"data":{"n":1},"kind":"a","seq":1,"stream":"s"}' 0 | sha256sum
    wanted = "9f9169674013ae2e007c1ee2a5228722a257e1d695595995b7eef5c9448fda8a"
    assert link(GENESIS, stream="s", seq=1, kind="a", at=1.5, text='{"n":1}') == wanted


def test_a_whole_record_is_verified_with_its_heads(record: list[Event]) -> None:
    verdict = verify(record)
    assert isinstance(verdict, Verified)
    assert (verdict.events, verdict.heads) == (6, {"project": record[4].head, "run-1": record[5].head})
    assert isinstance(verify(record, [event.head for event in record]), Verified)
    assert verify([]) == Verified(0, {})


def test_an_older_head_is_held_to_as_well(record: list[Event]) -> None:
    other = Head("project", 2, "0" * 64)
    assert verify(record, [other]) == Broken("project", 2, "the event is not the one whose head was signed")


def test_a_stream_that_is_gone_is_missed(record: list[Event]) -> None:
    verdict = verify([event for event in record if event.stream == "project"], [event.head for event in record])
    assert verdict == Broken("run-1", 1, "the record ends before event 1, which a head names")


def test_a_signed_head_is_good_for_its_key_and_its_words_alone(record: list[Event]) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    signed = msgspec.json.decode(
        msgspec.json.encode(sign_head(record[-1].head, key, at=12.5)), type=type(sign_head(record[0].head, key, at=0.0))
    )
    assert check_head(signed, key.public_key()) == record[-1].head
    forged = [
        msgspec.structs.replace(signed, at=13.0),
        msgspec.structs.replace(signed, at=float("nan")),
        msgspec.structs.replace(signed, head=record[0].head),
        msgspec.structs.replace(signed, head=msgspec.structs.replace(signed.head, seq=2)),
        msgspec.structs.replace(signed, signature="not base64!"),
        msgspec.structs.replace(signed, signature=""),
        sign_head(record[-1].head, other, at=12.5),
    ]
    for each in forged:
        with pytest.raises(RefusedError, match="not good"):
            check_head(each, key.public_key())


def test_an_entry_says_who_what_and_why_on_one_line_whatever_the_texts_hold() -> None:
    kind, data = entry(
        "mallory\r\nroot permit", "job.abort\x1b[2J", "run\u202e7", "deny", reason="no right\0", hashes={"policy": "ab\n"}
    )
    assert kind == "audit"
    assert data == {
        "actor": "mallory\\r\\nroot permit",
        "action": "job.abort\\x1b[2J",
        "resource": "run\\u202e7",
        "decision": "deny",
        "reason": "no right\\x00",
        "hashes": {"policy": "ab\\n"},
    }
    assert entry("Jürgen (ab12)", "job.show", "run 7", "permit").data["actor"] == "Jürgen (ab12)"


def test_a_long_text_is_cut_off_and_says_so() -> None:
    assert entry("a" * 5_000, "x", "y", "deny").data["actor"] == "a" * 1_000 + "... (4,000 characters more)"
