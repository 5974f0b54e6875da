"""Event files as TensorBoard reads them: TFRecord frames around protocol buffers, of which three messages are written here.

Event: wall_time = 1 (double), step = 2, file_version = 3, summary = 5. Summary: value = 1. Value: tag = 1, simple_value = 2
(float), tensor = 8, metadata = 9.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C, reflected


def _table() -> list[int]:
    made = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
        made.append(crc)
    return made


_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of the bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


class EventFile:
    """One event file in a folder, written as a whole frame at a time. `now` gives the seconds since 1970 of each event."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._now = now
        self.path = folder / f"events.out.tfevents.{int(now())}.hansa"
        self._file: BinaryIO = self.path.open("ab")
        self._write(_text(3, "brain.Event:2"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by tag."""
        self._write(
            _number(2, step) + _bytes(5, b"".join(_bytes(1, _text(1, tag) + _float(2, value)) for tag, value in values.items()))
        )

    def text(self, tag: str, text: str, step: int) -> None:
        """Add a text, as the text plugin shows it."""
        tensor = _number(1, 7) + _bytes(2, _bytes(2, _number(1, 1))) + _text(8, text)  # DT_STRING, of shape [1]
        metadata = _bytes(1, _text(1, "text"))
        self._write(_number(2, step) + _bytes(5, _bytes(1, _text(1, tag) + _bytes(8, tensor) + _bytes(9, metadata))))

    def close(self) -> None:
        """The file is whole."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        data = _double(1, self._now()) + event
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked(length) + data + _masked(data))
        self._file.flush()


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative step, as int64
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
