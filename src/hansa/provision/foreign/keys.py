"""What became of each key of a file: nothing that was read is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

from hansa.errors import ConfigError
from hansa.provision.foreign.files import Content, Plain, Steps, dotted

Fate: TypeAlias = Literal["became", "not used", "decide", "unknown"]
_LONG: Final = 60  # characters of a value that are shown
_WORDS: Final = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table", float: "a number"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """A key, its value, and what became of it. `decide`: a person has to look at it; `unknown`: nothing is known of the key."""

    file: str
    key: str
    value: str
    fate: Fate
    text: str


@dataclass
class Keys:
    """A file's keys. Each is taken by `became`, `unused` or `decide`; `lines` tells of all, of what nobody took as unknown."""

    content: Content
    taken: dict[Steps, tuple[Fate, str]] = field(default_factory=dict)

    def became(self, steps: Steps, text: str) -> None:
        """The key, with all below it, became this."""
        self.taken[steps] = ("became", text)

    def unused(self, steps: Steps, why: str) -> None:
        """The key, with all below it, is of no use here."""
        self.taken[steps] = ("not used", why)

    def decide(self, steps: Steps, what: str) -> None:
        """The key, with all below it, needs a decision of a person."""
        self.taken[steps] = ("decide", what)

    def get(self, steps: Steps, kind: type[T], default: T | None = None) -> T:
        """The value at the path; without a default it must be there.

        Raises:
            ConfigError: it is missing, or of another kind; with its line.
        """
        value = self.at(steps)
        if value is None:
            if default is None:
                raise ConfigError("a key is missing", path=f"{self.content.path.name} {dotted(steps)}", expected=_WORDS[kind])
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError("a wrong value", path=self.content.where(steps), got=repr(value)[:80], expected=_WORDS[kind])
        return value

    def at(self, steps: Steps) -> Plain:
        """The value at the path; None if there is none."""
        value: Any = self.content.value
        for step in steps:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        found: Plain = value
        return found

    def names(self, steps: Steps) -> list[str]:
        """The keys of the table at the path; none if there is no table."""
        value = self.at(steps)
        if value is None:
            return []
        return list(self.get(steps, dict))

    def rows(self, steps: Steps) -> Iterator[Steps]:
        """The paths of the tables in the list at the path.

        Raises:
            ConfigError: it is no list, or an entry is no table.
        """
        for number in range(len(self.get(steps, list, []))):
            self.get((*steps, number), dict)
            yield (*steps, number)

    def lines(self) -> list[Line]:
        """What became of every key, in the file's order: each value is told of once, where it or what holds it was taken."""
        return list(self._lines((), self.content.value))

    def _lines(self, steps: Steps, value: Plain) -> Iterator[Line]:
        if steps in self.taken:
            yield self._line(steps, value, *self.taken[steps])
        elif isinstance(value, dict) and value:
            for name, each in value.items():
                yield from self._lines((*steps, name), each)
        elif isinstance(value, list) and value and any(key[: len(steps)] == steps for key in self.taken):
            for number, each in enumerate(value):
                yield from self._lines((*steps, number), each)
        elif steps:
            yield self._line(steps, value, "unknown", "not a key that is known: it had no effect")

    def _line(self, steps: Steps, value: Plain, fate: Fate, text: str) -> Line:
        return Line(self.content.path.name, dotted(steps), _short(value), fate, text)


def _short(value: Plain) -> str:
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    text = ", ".join(map(_short, value)) if isinstance(value, list) else "" if value is None else str(value)
    text = text.lower() if isinstance(value, bool) else text
    text = text if text.isprintable() else ascii(text)[1:-1]
    return f"{text[:_LONG]}..." if len(text) > _LONG else text
