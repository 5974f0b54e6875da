"""A line as it is typed: its words, and the file that its answer goes to."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hansa.errors import InputError
from hansa.files import storage_error

_PIECES: Final = re.compile(r""">+|(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s>"'\\])+|["'\\].*""")  # an arrow, a word, an open quote


@dataclass(frozen=True)
class Line:
    """The words of a command. `into`: the file that its answer is written to, anew ("w", and shown) or at its end ("a", not shown).

    >>> Line.of("cat server log.txt >> 'my log'")
    Line(words=('cat', 'server', 'log.txt'), into=PosixPath('my log'), mode='a')
    """

    words: tuple[str, ...]
    into: Path | None = None
    mode: Literal["w", "a"] = "w"

    @staticmethod
    def of(text: str) -> Line:
        """The line that was typed; no words if it is empty or a comment.

        Raises:
            InputError: a quote is not closed, or `>` names no file.
        """
        found = [each.group() for each in _PIECES.finditer(text)]
        found = found[: next((at for at, each in enumerate(found) if each.startswith("#")), len(found))]
        arrows = [at for at, each in enumerate(found) if each.startswith(">")]
        try:
            words = [shlex.split(each)[0] for each in found]
        except ValueError as error:
            raise InputError(f"syntax error: {error}", got=text[:200]) from None
        if not arrows:
            return Line(tuple(words))
        at = arrows[0]
        if len(arrows) > 1 or words[at] not in (">", ">>") or len(words) != at + 2 or at == 0:
            raise InputError("syntax error", got=text[:200], expected="COMMAND > FILE or COMMAND >> FILE")
        return Line(tuple(words[:at]), Path(words[at + 1]), "a" if words[at] == ">>" else "w")

    @property
    def shown(self) -> bool:
        """Whether the answer is shown."""
        return self.into is None or self.mode == "w"

    def keep(self, answer: str) -> None:
        """Write the answer to the file, if one is named.

        Raises:
            StorageError: it cannot be written.
        """
        if self.into is None:
            return
        try:
            with self.into.expanduser().open(self.mode, encoding="utf-8") as file:
                file.write(answer)
        except OSError as error:
            raise storage_error(error, self.into) from error
