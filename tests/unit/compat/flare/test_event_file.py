"""Event files, read back by their format: frames with two checksums, and protocol buffers by field number."""

from __future__ import annotations

import struct
from pathlib import Path

from hansa.compat.flare.app_common.widgets.event_file import EventFile, crc32c

Fields = dict[int, list[bytes]]


def frames(content: bytes) -> list[bytes]:
    """The records of a TFRecord file, each with its checksums checked."""
    found = []
    while content:
        length = struct.unpack("<Q", content[:8])[0]
        data = content[12 : 12 + length]
        for part, said in ((content[:8], content[8:12]), (data, content[12 + length : 16 + length])):
            crc = crc32c(part)
            assert struct.unpack("<I", said)[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        found.append(data)
        content = content[16 + length :]
    return found


def fields(data: bytes) -> Fields:
    """A protocol buffer's fields by number: varints as bytes of a number, all others as they are."""
    found: Fields = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = varint()
        size = {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            value = str(varint()).encode()
        else:
            size = varint() if size is None else size
            value = data[place : place + size]
            place += size
        found.setdefault(key >> 3, []).append(value)
    return found


def test_scalars_and_texts_are_events_that_tensorboard_s_format_describes(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "site-1", now=lambda: 1_700_000_000.5)
    file.scalars({"loss": 0.25, "accuracy": 0.5}, step=300)
    file.text("note", "größer", step=0)
    file.close()
    assert file.path.name.startswith("events.out.tfevents.1700000000")
    version, scalars, text = (fields(data) for data in frames(file.path.read_bytes()))
    assert (struct.unpack("<d", version[1][0])[0], version[3]) == (1_700_000_000.5, [b"brain.Event:2"])
    values = [fields(each) for each in fields(scalars[5][0])[1]]
    assert scalars[2] == [b"300"]
    assert [(each[1][0], struct.unpack("<f", each[2][0])[0]) for each in values] == [(b"loss", 0.25), (b"accuracy", 0.5)]
    value = fields(fields(text[5][0])[1][0])
    tensor, plugin = fields(value[8][0]), fields(fields(value[9][0])[1][0])
    assert (tensor[1], tensor[8], plugin[1]) == ([b"7"], ["größer".encode()], [b"text"])
