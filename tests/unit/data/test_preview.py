"""The preview is a PNG, whatever the sites and labels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from hansa.core.trees import Array
from hansa.data import partition
from hansa.data.federated import Rows, describe
from hansa.data.preview import plot
from hansa.errors import DataError, MissingExtraError, StorageError


def rows(y: Array) -> Rows:
    return Rows(np.zeros((len(y), 1)), y)


@pytest.mark.parametrize(
    ("y", "sites"),
    [(np.arange(40) % 4, 4), (np.arange(400) % 30, 200), (np.linspace(0, 1, 40), 3)],
    ids=["few sites", "many sites and labels", "no labels"],
)
def test_a_picture_is_written(tmp_path: Path, y: Array, sites: int) -> None:
    pytest.importorskip("matplotlib")
    path = plot(partition.iid(rows(y), sites=sites), tmp_path / "a.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_same_data_gives_the_same_bytes_from_data_or_summary(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    federated = partition.iid(rows(np.arange(20) % 2), sites=2)
    assert plot(federated, tmp_path / "a.png").read_bytes() == plot(describe(federated), tmp_path / "b.png").read_bytes()


def test_a_picture_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    federated = partition.iid(rows(np.arange(4)), sites=2)
    with pytest.raises(DataError, match=r"ends in .png"):
        plot(federated, tmp_path / "a.jpg")
    with pytest.raises(StorageError, match="cannot be written"):
        plot(federated, tmp_path / "nowhere" / "a.png")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"hansa\[plot\]"):
        plot(partition.iid(rows(np.arange(4)), sites=2), tmp_path / "a.png")
