"""YAML and JSON of strangers, read into plain values with the place of each: capped, no tags, no aliases, no key twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from hansa.errors import ConfigError, MissingExtraError
from hansa.files import storage_error

LIMIT: Final = 512 * 1024  # bytes: a project of 5,000 sites has 300,000
DEPTH: Final = 24
_PLAIN: Final = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null", "str")}

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"
Steps: TypeAlias = tuple[str | int, ...]


@dataclass
class Content:
    """What a file holds. `places` leads from a path to its line and column, counted from 1; JSON has none."""

    path: Path
    value: Plain
    places: dict[Steps, tuple[int, int]] = field(default_factory=dict)

    def where(self, steps: Steps) -> str:
        """A path as people are shown it: file, line and key."""
        line = f":{self.places[steps][0]}" if steps in self.places else ""
        return f"{self.path.name}{line} {dotted(steps)}"


def dotted(steps: Steps) -> str:
    """The path `("participants", 0, "name")` as participants[0].name; a key with a dot in it stands in quotes."""
    parts = ((f"[{step}]" if isinstance(step, int) else f".{_quoted(step)}") for step in steps)
    return "".join(parts).lstrip(".")


def read(path: Path) -> Content:
    """The file's content: JSON if its name ends so, else YAML.

    Raises:
        ConfigError: it is too long or too deep, malformed, or has a tag, an alias or a key twice; with line and column.
        StorageError: it cannot be read. MissingExtraError: PyYAML is not installed.
    """
    try:
        if path.stat().st_size > LIMIT:
            raise ConfigError("the file is too long", path=str(path), expected=f"at most {LIMIT:,} bytes")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("no such file", path=str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error.reason} at byte {error.start}", path=str(path)) from None
    except OSError as error:
        raise storage_error(error, path) from error
    return _json(path, text) if path.suffix == ".json" else _yaml(path, text)


def _json(path: Path, text: str) -> Content:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError("a key stands twice", path=str(path), got=repr(twice))
        return found

    try:
        return Content(path, json.loads(text, object_pairs_hook=unique))
    except json.JSONDecodeError as error:
        raise _malformed(path, error.lineno, error.colno, error.msg) from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise ConfigError(f"a value that cannot be read: {error}", path=str(path)) from None
    except RecursionError:
        raise ConfigError("nested too deep", path=str(path), expected=f"at most {DEPTH} levels") from None


def _yaml(path: Path, text: str) -> Content:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtraError("PyYAML", extra="deploy") from error
    try:
        return _Builder(path, yaml.SafeLoader(text)).build()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _malformed(path, line, column, error.problem or error.context or "malformed") from None
    except yaml.YAMLError as error:  # a character that YAML does not have
        raise ConfigError(f"not YAML: {error}".replace("\n", " "), path=str(path)) from None


class _Builder:
    """Plain values of YAML's events, one after the other: nothing recurses, nothing is constructed by a tag."""

    def __init__(self, path: Path, loader: Any) -> None:
        self._path, self._loader = path, loader
        self._open: list[tuple[dict[str, Plain] | list[Plain], Steps]] = []
        self._key: list[str | None] = []  # of each open mapping: the key that waits for its value
        self._content = Content(path, None)

    def build(self) -> Content:
        """The one document of the stream."""
        import yaml

        documents = 0
        while self._loader.check_event():
            event = self._loader.get_event()
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        raise self._wrong(event, "a second document in the file")
                case yaml.AliasEvent():
                    raise self._wrong(event, f"an alias (*{event.anchor}): write the value out")
                case yaml.ScalarEvent():
                    self._scalar(event)
                case yaml.MappingStartEvent():
                    self._begin(event, {})
                case yaml.SequenceStartEvent():
                    self._begin(event, [])
                case yaml.CollectionEndEvent():
                    self._open.pop()
                    self._key.pop()
        return self._content

    def _scalar(self, event: Any) -> None:
        import yaml

        tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit) if event.tag is None else event.tag
        plain = tag if tag in _PLAIN else "tag:yaml.org,2002:str"  # dates and the like are text here
        if event.tag is not None and event.tag not in _PLAIN:
            raise self._wrong(event, f"a tag ({event.tag[:80]})")
        if self._open and isinstance(self._open[-1][0], dict) and self._key[-1] is None:
            return self._name(event)
        node = yaml.ScalarNode(plain, event.value, event.start_mark, event.end_mark)
        try:
            self._put(event, self._loader.construct_object(node))
        except ValueError as error:  # an integer of more digits than Python reads
            raise self._wrong(event, f"a value that cannot be read: {error}") from None
        return None

    def _name(self, event: Any) -> None:
        table, steps = self._open[-1]
        if event.value in table:
            raise self._wrong(event, f"the key {event.value!r} a second time")
        if event.value == "<<":
            raise self._wrong(event, "a merge key (<<): write the keys out")
        self._key[-1] = event.value
        self._content.places[(*steps, event.value)] = _place(event)

    def _begin(self, event: Any, empty: dict[str, Plain] | list[Plain]) -> None:
        if event.tag is not None:
            raise self._wrong(event, f"a tag ({event.tag[:80]})")
        if self._open and isinstance(self._open[-1][0], dict) and self._key[-1] is None:
            raise self._wrong(event, "a key that is no text")
        if len(self._open) >= DEPTH:
            raise self._wrong(event, f"more than {DEPTH} levels")
        self._open.append((empty, self._put(event, empty)))
        self._key.append(None)

    def _put(self, event: Any, value: Plain) -> Steps:
        """Give the value its place in what is open; its path."""
        if not self._open:
            self._content.value = value
            return ()
        into, steps = self._open[-1]
        if isinstance(into, dict):
            name = self._key[-1] or ""
            self._key[-1] = None
            into[name] = value
            return (*steps, name)
        into.append(value)
        path = (*steps, len(into) - 1)
        self._content.places[path] = _place(event)
        return path

    def _wrong(self, event: Any, what: str) -> ConfigError:
        line, column = _place(event)
        return _malformed(self._path, line, column, what)


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _malformed(path: Path, line: int, column: int, what: str) -> ConfigError:
    hint = "mend that line, and read it again with --check: nothing was written"
    return ConfigError(f"cannot be read: {what}", path=f"{path}, line {line}, column {column}", hint=hint)


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else repr(name)
