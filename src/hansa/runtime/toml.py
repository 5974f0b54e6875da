"""TOML files read into frozen records: nothing is coerced, nothing passed over."""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from hansa.errors import ConfigError
from hansa.files import storage_error
from hansa.registry import nearest

LIMIT: Final = 4 * 1024 * 1024
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")

T = TypeVar("T", bound=msgspec.Struct)


def read_toml(path: Path, kind: type[T]) -> T:
    """The file as a record.

    Raises:
        ConfigError: no file, no TOML; a key is unknown (the nearest is named) or missing, or a value wrong, with its path "$.a.b".
        StorageError: it cannot be read.
    """
    try:
        if path.stat().st_size > LIMIT:
            raise ConfigError("the file is too long", path=str(path), expected=f"at most {LIMIT:,} bytes")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", path=str(path)) from None
    except OSError as error:
        raise storage_error(error, path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}", path=str(path)) from error
    try:
        return msgspec.convert(content, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _explain(error, path, kind) from None


def _explain(error: msgspec.ValidationError, path: Path, kind: type[msgspec.Struct]) -> ConfigError:
    """The error with its place in the file, and the name that was probably meant."""
    what, _, where = str(error).partition(" - at `")
    place = where.rstrip("`") or "$"
    if match := _UNKNOWN.search(what):
        known = sorted(name for record in _records(kind, place) for name in record.__struct_fields__)
        return ConfigError(f"no such key in {path.name}", path=f"{place}.{match[1]}", hint=nearest(match[1], known))
    if match := _MISSING.search(what):
        return ConfigError(f"a key is missing in {path.name}", path=f"{place}.{match[1]}")
    above, _, field = place.rpartition(".")
    known = sorted({option for record in _records(kind, above) for option in _options(record, field)})
    expected = ", ".join(known) if known and what.startswith("Invalid enum value") else None
    return ConfigError(f"a wrong value in {path.name}: {what}", path=place, expected=expected)


def _options(record: type[msgspec.Struct], name: str) -> Iterator[str]:
    """The words that may stand in a field."""
    for field in msgspec.structs.fields(record):
        for hint in (field.type, *get_args(field.type)) if field.encode_name == name else ():
            if get_origin(hint) is Literal:
                yield from map(str, get_args(hint))


def _records(kind: Any, place: str) -> list[type[msgspec.Struct]]:
    """The records that stand at a path such as "$.sites[0]"."""
    found = list(_structs(kind))
    for step in re.findall(r"[^.\[\]$]+", re.sub(r"\[[^\]]*\]", "", place)):
        found = [
            inner
            for record in found
            for field in msgspec.structs.fields(record)
            if field.encode_name == step
            for inner in _structs(field.type)
        ]
    return found


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    elif get_origin(hint) in (Union, types.UnionType, list, tuple):
        for member in get_args(hint):
            yield from _structs(member)
