"""What a site says of itself is bounded, so that it can be kept, counted and shown."""

from __future__ import annotations

import msgspec
import pytest

from hansa.runtime.protocol.messages import Beat, Notes, decode

BUSY = b'{"busy": [{"run": "r", "seq": 1, "steps": %d}]}'
NOTE = b'{"notes": [{"run": "r", "kind": "metric", "at": 1.0, "values": {"%s": 1.0}}]}'


def test_numbers_and_names_that_can_be_shown_are_taken() -> None:
    assert decode(BUSY % (1 << 53), Beat).busy[0].steps == 1 << 53
    assert list(decode(NOTE % (b"n" * 80), Notes).notes[0].values) == ["n" * 80]


@pytest.mark.parametrize(
    ("text", "kind"),
    [(BUSY % 10**400, Beat), (BUSY % -1, Beat), (NOTE % (b"n" * 81), Notes)],
    ids=["a number that no float holds", "a count below 0", "a name without end"],
)
def test_others_are_refused(text: bytes, kind: type[msgspec.Struct]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(text, kind)
