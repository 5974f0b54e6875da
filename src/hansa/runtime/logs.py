"""The log of a server or a site's agent: a line for each fact, as text for people or as JSON for programs. Never a secret."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any, Final, Literal, TextIO, TypeAlias

Style: TypeAlias = Literal["text", "json"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_FIELD: Final = re.compile(r"(\w+)=%")
_SECRET: Final = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)


class Text(logging.Formatter):
    """One line a record, whatever it says; a traceback's lines are indented, so that none looks like a record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        when = self.formatTime(record)
        first = _inert(f"{when} {record.levelname} {record.name} {record.getMessage()}")
        return "\n".join([_safe(first), *(f"    | {_inert(line)}" for line in _safe(trace).splitlines())])


class Json(logging.Formatter):
    """One JSON object a record: `at` (seconds since 1970), `level`, `logger`, `event`, and what the record says of it by name."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, which has no line break."""
        told: dict[str, Any] = {"at": round(record.created, 6), "level": record.levelname.lower(), "logger": record.name}
        names, template = _FIELD.findall(str(record.msg)), str(record.msg)
        if isinstance(record.args, tuple) and names and len(names) == len(record.args) == template.count("%"):
            told["event"] = template.partition(" ")[0]
            told |= {name: _plain(value) for name, value in zip(names, record.args, strict=True)}
        else:
            told["event"] = "log"
            told["message"] = _safe(record.getMessage())
        if record.exc_info:
            told["trace"] = _safe(self.formatException(record.exc_info))
        return json.dumps(told)  # ASCII: not even what Unicode calls a line break is one


def configure(style: Style, *, level: Level = "info", stream: TextIO | None = None) -> None:
    """Let this process log so, to stderr unless another stream is given."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if style == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | bool) or value is None else _safe(str(value))


def _safe(text: str) -> str:
    """The text without what looks like a token or a private key."""
    return _SECRET.sub("[secret]", text)


def _inert(text: str) -> str:
    """The text on one line, harmless to a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
