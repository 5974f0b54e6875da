"""Plays by speaker, and the next character."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hansa.data import partition, text
from hansa.errors import DataError

PLAY = "Anna:\nIs it you?\n\nBert:\nIt is.\nOpen.\n\nAnna:\nCome in.\n"


def test_a_play_is_cut_by_speaker_and_y_is_the_character_after_each_of_x(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text(PLAY, encoding="utf-8")
    rows = text.shakespeare(folder=tmp_path, length=5)
    alphabet = np.array(rows.classes)
    assert ["".join(alphabet[x]) for x in rows.x] == ["Is it", " you?", "\nCome", "It is", ".\nOpe"]
    assert ["".join(alphabet[y]) for y in rows.y] == ["s it ", "you?\n", "Come ", "t is.", "\nOpen"]
    assert rows.x.dtype == rows.y.dtype == np.dtype(np.int64)
    sites = partition.column(rows, split=(1, 0, 0))
    assert [(name, len(sites.load(slot))) for slot, name in enumerate(sites.sites)] == [("Anna", 3), ("Bert", 2)]


def test_a_speech_without_its_speaker_and_a_play_without_a_whole_piece_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a speech begins with a line `Name:`.*Bert speaks"):
        text.speeches("Anna:\nWell.\n\nBert speaks\n")
    with pytest.raises(DataError, match="no speaker has a piece"):
        text.windows({"Anna": "Come in.\n"}, length=50)
    with pytest.raises(DataError, match="at least one character"):
        text.windows({"Anna": "Come in.\n"}, length=0)
    with pytest.raises(DataError, match=r"there is no such file.*https://"):
        text.shakespeare(folder=tmp_path)


def test_the_packed_text_has_its_speakers() -> None:
    if (data := os.environ.get("HANSA_DATA")) is None:
        pytest.skip("HANSA_DATA does not name the folder of the larger data sets")
    rows = text.shakespeare(folder=data)
    assert len(rows.classes) == 65
    assert rows.x.shape[1] == 80
    assert {"ROMEO", "JULIET"} <= set(rows.columns["site"].tolist())
