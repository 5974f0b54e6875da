"""What run.json keeps of a job's files, so that a run is not resumed on others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hansa.errors import ConfigError, DataError
from hansa.files import storage_error

FILES, CODE = "files", "code"


def fingerprint(path: Path) -> dict[str, Any]:
    """A file's size in bytes and SHA-256; of a folder, the number of its files, their bytes, and the SHA-256 of names and sizes.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        # Sites' files are read when a site is asked for, which may be never: their content is not looked at.
        found = sorted((str(each.relative_to(path)), each.stat().st_size) for each in path.rglob("*") if each.is_file())
    except OSError as error:
        raise storage_error(error, path) from error
    listing = hashlib.sha256(msgspec.json.encode(found)).hexdigest()
    return {"files": len(found), "bytes": sum(size for _, size in found), "sha256": listing}


def code_of(settings: Mapping[str, Any], base: Path) -> dict[str, str]:
    """The SHA-256 of each Python file that a job file's tables name, by file; a module is not looked at."""
    tables = [table for value in settings.values() for table in (value if isinstance(value, list) else [value])]
    named = [value for table in tables if isinstance(table, Mapping) for value in table.values() if isinstance(value, str)]
    files = {value.rpartition(":")[0] for value in named if ".py:" in value}
    return {file: fingerprint(base / file)["sha256"] for file in sorted(files) if (base / file).is_file()}


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], *, run: str) -> list[str]:
    """Check that a job is the one that a run began with, by its resolved settings; the notes name code that has changed.

    Raises:
        ConfigError: a setting differs; says which, what it was, and what it is. DataError: a file of the data differs.
    """
    was, got = _flat(before), _flat(msgspec.json.decode(msgspec.json.encode(now)))
    notes = []
    for key in sorted(was.keys() | got.keys(), key=lambda key: (key[0] == FILES, key)):
        old, new = was.get(key), got.get(key)
        if old == new or (key[0] in (FILES, CODE) and key[0] not in before):
            continue
        if key[0] == CODE:
            notes.append(f"{key[1]} has changed since this run began")
        elif key[0] == FILES:
            raise DataError("the data have changed since this run began", run=run, path=f"{key[1]} {key[2]}", expected=old, got=new)
        else:
            hint = f"it was {_said(old)} when the run began, now it is {_said(new)}: set it back, or start a new run"
            raise ConfigError("the job has changed since this run began", run=run, path=f"$.{'.'.join(key)}", hint=hint)
    return list(dict.fromkeys(notes))


def _said(value: object) -> str:
    return "not set" if value is None else repr(value)


def _flat(nested: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in nested.items():
        found |= _flat(value, (*prefix, key)) if isinstance(value, Mapping) else {(*prefix, key): value}
    return found
