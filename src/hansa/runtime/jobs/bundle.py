"""A bundle that came from somewhere: opened only if it is exactly of the form that `build` writes, or refused by name."""

from __future__ import annotations

import hashlib
import io
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from hansa.document import Document, read_document
from hansa.errors import InputError
from hansa.files import storage_error
from hansa.runtime.manifest import ENTRIES, FORMAT, MANIFEST, NAME, PACKED, PLAN, Manifest

_HEADER: Final = 30  # bytes of an entry's local header, before its name
_END: Final = 22  # bytes of the last record
_NAME_BYTES: Final = 200
_SLACK: Final = 1024  # bytes that any entry may have, however well it is packed


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may ask of its reader, in bytes and files. `ratio` is of unpacked to packed bytes."""

    packed: int = PACKED
    unpacked: int = 256 << 20
    entries: int = ENTRIES
    ratio: int = 100


LIMITS: Final = Limits()


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened: its manifest, its plan, and the content of its files by path."""

    manifest: Manifest
    plan: Document
    files: Mapping[str, bytes] = field(repr=False)


def open_bundle(data: bytes, *, limits: Limits = LIMITS) -> Bundle:
    """The bundle in the bytes, every file as its manifest says. Whose signature it carries is not checked here.

    Raises:
        InputError: it is no such archive; names the entry and the rule. VersionError: its plan is of another version.
    """
    files = _unpack(data, limits)
    plan = files.pop(PLAN, b"")
    try:
        manifest = msgspec.json.decode(files.pop(MANIFEST, b""), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the bundle has no manifest of this version: {error}", path=MANIFEST) from error
    if manifest.format != FORMAT:
        raise InputError("a bundle of another version", path=MANIFEST, got=manifest.format, expected=FORMAT)
    found = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    if wrong := {path for path, _ in found.items() ^ manifest.files.items()}:
        raise InputError("a file is not the one of the manifest", path=min(wrong))
    if hashlib.sha256(plan).hexdigest() != manifest.plan_hash:
        raise InputError("the plan is not the one of the manifest", path=PLAN)
    return Bundle(manifest, _agreed(manifest, read_document(plan)), files)


def _agreed(manifest: Manifest, plan: Document) -> Document:
    """The plan, if it asks for what the manifest asks for: that is what machines go by, the plan what people read."""
    for name in ("job", "data", "requires", "environment", "cores", "gpus", "memory_mb"):
        got, expected = getattr(plan, name), getattr(manifest, name)
        if got != expected:
            raise InputError("the plan says something else than the manifest", path=f"{PLAN} {name}", got=got, expected=expected)
    return plan


def extract(bundle: Bundle, folder: Path) -> Path:
    """Write the bundle's files as `folder`, all or none; a folder that is there already stays as it is."""
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        for path, content in bundle.files.items():
            target = part / path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.write_bytes(content)
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not folder.exists():
            part.rename(folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
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
    if total > limits.entries or size > total * (46 + _NAME_BYTES):
        raise InputError("too many entries, or too long ones", got=total, expected=f"at most {limits.entries:,}")


def _check_entries(entries: list[zipfile.ZipInfo], packed: int, limits: Limits) -> None:
    seen: set[str] = set()
    end = unpacked = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if not NAME.fullmatch(entry.orig_filename):
            expected = "letters, digits, . _ - and /, at most 200 bytes and 10 folders"
            raise InputError("an entry's name is refused", path=repr(entry.orig_filename[:200]), expected=expected)
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


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:  # never gives more than the size that was checked
        content = file.read()
    if len(content) != entry.file_size:
        raise InputError("an entry is refused: another size than it says", path=repr(entry.filename))
    return content
