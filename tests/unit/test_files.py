"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from hansa.errors import StorageError
from hansa.files import write_atomic


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("new")
    write_atomic(tmp_path / "link", [b"a", b"b"])
    write_atomic(tmp_path / "dangling", [b"c"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"ab"
    assert (tmp_path / "new").read_bytes() == b"c"


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(StorageError, match="not a regular file") as caught:
            write_atomic(tmp_path / name, [b""])
        assert caught.value.path == str(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]
