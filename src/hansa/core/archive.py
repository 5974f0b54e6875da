"""Zip archives of files, from and for strangers: what is read is exactly of the form that is written here, or refused by name."""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hansa.errors import InputError

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,9}")
_HEADER: Final = 30  # bytes of an entry's local header, before its name
_END: Final = 22  # bytes of the last record
_SLACK: Final = 1024  # bytes that any entry may have, however well it is packed


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may ask of its reader, in bytes and files. `ratio` is of unpacked to packed bytes."""

    packed: int = 64 << 20
    unpacked: int = 256 << 20
    entries: int = 2_000
    ratio: int = 100
    name: int = 200


def pack(files: Mapping[str, bytes], limits: Limits) -> bytes:
    """The files as a zip: entries sorted, stored, of one fixed time, so that the same files give the same bytes.

    Raises:
        InputError: a name or the whole is over a limit.
    """
    for name in files:
        _check_name(name, limits)
    if len(files) > limits.entries or (total := sum(map(len, files.values()))) > limits.packed:
        got = f"{len(files):,} files" if len(files) > limits.entries else f"{total:,} bytes"
        raise InputError("too much for one archive", got=got, expected=f"{limits.entries:,} files, {limits.packed:,} bytes")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, files[name])
    return out.getvalue()


def unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The files of a zip by name; nothing is written anywhere, and nothing is unpacked before all entries were looked at.

    Raises:
        InputError: names the entry and what is wrong with it.
    """
    _check_end(data, limits)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(data), limits)
            return {entry.filename: _content(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise InputError(f"not a sound zip: {error}") from error


def _check_end(data: bytes, limits: Limits) -> None:
    """Look at the last record alone: it says how much there is to read."""
    if not _END <= len(data) <= limits.packed:
        raise InputError("not a zip of this size", got=f"{len(data):,} bytes", expected=f"at most {limits.packed:,}")
    last = data[-_END:]
    here, total, size, offset, comment = struct.unpack("<HHIIH", last[8:])
    if last[:8] != b"PK\x05\x06\0\0\0\0" or comment or here != total or offset + size != len(data) - _END:
        raise InputError("not a plain zip", hint="one part, no comment, nothing before or behind it, not zip64")
    if total > limits.entries or size > total * (46 + limits.name):
        raise InputError("too many entries, or too long ones", got=total, expected=f"at most {limits.entries:,}")


def _check_entries(entries: list[zipfile.ZipInfo], packed: int, limits: Limits) -> None:
    seen: set[str] = set()
    end = unpacked = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        _check_name(entry.orig_filename, limits)
        mode = entry.external_attr >> 16
        plain = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not entry.flag_bits & ~0x6 and not entry.extra
        rules = {
            "named twice": entry.filename.lower() in seen,
            "not a plain entry": not plain or entry.filename != entry.orig_filename,
            "not a regular file": bool(stat.S_IFMT(mode)) and not stat.S_ISREG(mode),
            "overlaps another": entry.header_offset != end,
            "packed too well": entry.file_size > limits.ratio * entry.compress_size + _SLACK,
        }
        if broken := [rule for rule, holds in rules.items() if holds]:
            raise InputError(f"an entry is refused: {broken[0]}", path=repr(entry.filename))
        seen.add(entry.filename.lower())
        end += _HEADER + len(entry.filename) + entry.compress_size
        unpacked += entry.file_size
    if unpacked > limits.unpacked or unpacked > limits.ratio * packed or end > packed:
        raise InputError("too much to unpack", got=f"{unpacked:,} bytes", expected=f"at most {limits.unpacked:,}")


def _check_name(name: str, limits: Limits) -> None:
    parts = name.split("/")
    if not _NAME.fullmatch(name) or len(name) > limits.name or ".." in parts or "." in parts:
        expected = f"letters, digits, . _ - and /, at most {limits.name} bytes and 10 folders"
        raise InputError("a file's name is refused", path=repr(name[: limits.name]), expected=expected)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:  # never gives more than the size that was checked
        content = file.read()
    if len(content) != entry.file_size:
        raise InputError("an entry is refused: another size than it says", path=repr(entry.filename))
    return content
