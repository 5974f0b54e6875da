"""What a verb answers: lines for people, facts for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Said:
    """An answer. What came from the server or a site is harmless to a terminal in `lines`, and as it came in `details`."""

    lines: Sequence[str]
    details: Mapping[str, Any] = field(default_factory=dict)


def said(*lines: str, **details: Any) -> Said:
    """These lines, harmless to a terminal, with their facts."""
    return Said([harmless(line) for line in lines], details)


def harmless(text: str) -> str:
    r"""The text on one line, with what a terminal would act on written out; nothing is cut off.

    >>> harmless("a\tb\x1b[2J")
    'a\tb\\x1b[2J'
    """
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table, as FLARE draws it.

    >>> table(["CLIENT"], [["north"]])
    ['| CLIENT |', '| north  |']
    """
    full = [list(head), *([harmless(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[k]) for row in full) for k in range(len(head))]
    return ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in full]
