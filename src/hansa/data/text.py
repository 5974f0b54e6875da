"""Plays as federated data: each speaker is a site, and what is learned is the next character."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hansa.data.datasets import data_file, data_folder
from hansa.data.formats import read_npz
from hansa.data.rows import Rows
from hansa.errors import DataError

_URL = (
    "people get input.txt from https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare; name its folder with --data"
)


def shakespeare(*, folder: str | Path | None = None, length: int = 80) -> Rows:
    """40,000 lines of Shakespeare's plays, cut by speaker: x and y (n, length) int64, y the character after each of x.

    The column `site` names the speaker; `classes` is the alphabet. Looked for in `folder`: `tinyshakespeare.npz` (text, uint8) or
    `tinyshakespeare.txt` or `input.txt`. The text is in the public domain.

    Raises:
        DataError: no such file is there, or one is damaged.
    """
    return windows({name: "".join(words) for name, words in speeches(play(folder)).items()}, length=length)


def play(folder: str | Path | None = None) -> str:
    """The plays' text as it stands in the folder; see `shakespeare`.

    Raises:
        DataError: no such file is there, or it is damaged.
    """
    where = data_folder(folder)
    if (packed := where / "tinyshakespeare.npz").exists():
        return read_npz(packed, "text")[0].tobytes().decode("ascii")
    named = where / "tinyshakespeare.txt"
    return data_file(named if named.exists() else where / "input.txt", _URL).read_text(encoding="utf-8")


def speeches(text: str) -> dict[str, list[str]]:
    r"""The speeches of each speaker of a play, in order. An empty line ends one; its first line is the speaker's name and a colon.

    >>> speeches("Anna:\nIs it you?\n\nBert:\nIt is.\n\nAnna:\nCome in.\n")
    {'Anna': ['Is it you?\n', 'Come in.\n'], 'Bert': ['It is.\n']}

    Raises:
        DataError: a speech does not begin with a name; says which.
    """
    said: dict[str, list[str]] = {}
    for speech in text.strip().split("\n\n"):
        name, colon, words = (speech.strip("\n") + "\n").partition(":\n")  # a speech may be empty
        if not colon or not name or "\n" in name:
            raise DataError("a speech begins with a line `Name:`", path="text", got=speech[:40])
        said.setdefault(name, []).append(words)
    return said


def windows(said: dict[str, str], *, length: int) -> Rows:
    """Each speaker's text in pieces of `length` characters: x (n, length) int64 and y the same, one character later.

    Characters count in the order of the alphabet of all speakers, which is `classes`. What is left of a speaker's text after the
    last whole piece is not used; a speaker with less than one has no row.

    >>> rows = windows({"Anna": "abcab"}, length=2)
    >>> rows.x.tolist(), rows.y.tolist(), rows.columns["site"].tolist(), rows.classes
    ([[0, 1], [2, 0]], [[1, 2], [0, 1]], ['Anna', 'Anna'], ('a', 'b', 'c'))

    Raises:
        DataError: `length` is not positive, or no speaker has a whole piece.
    """
    if length < 1:
        raise DataError("a piece has at least one character", path="length", got=length)
    alphabet = sorted(set("".join(said.values())))
    place = {character: k for k, character in enumerate(alphabet)}
    pieces, names = [], []
    for name, text in said.items():
        codes = np.array([place[character] for character in text], np.int64)
        count = (len(codes) - 1) // length
        pieces += [codes[k * length : (k + 1) * length + 1] for k in range(count)]
        names += [name] * count
    if not pieces:
        raise DataError("no speaker has a piece of this length", path="length", got=length)
    every = np.stack(pieces)
    return Rows(every[:, :-1], every[:, 1:], {"site": np.array(names)}, classes=tuple(alphabet))
