"""What an enclosed process leaves: opened only where it is what it should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hansa.errors import InputError
from hansa.runtime.store.untrusted import open_below


def test_a_plain_file_below_the_folder_is_opened(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "deep" / "model").write_bytes(b"weights")
    with open_below(tmp_path / "run", "deep/model") as file:
        assert file.read() == b"weights"


@pytest.mark.parametrize("path", ["link", "folder/secret", "pipe", "deep", "../secret", "deep/../../secret", "", "none"])
def test_nothing_else_is_whatever_it_leads_to(tmp_path: Path, path: str) -> None:
    run = tmp_path / "run"
    (run / "deep").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"key")
    (run / "link").symlink_to(tmp_path / "secret")
    (run / "folder").symlink_to(tmp_path)
    os.mkfifo(run / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InputError):
        open_below(run, path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
