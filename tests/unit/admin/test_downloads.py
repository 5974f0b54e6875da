"""Where a server's file names may lead."""

from pathlib import Path

import pytest

from hansa.admin.client import inside
from hansa.errors import RefusedError


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../up", "a\\b", "a\0b", "a/.."])
def test_a_file_outside_the_run_folder_is_refused(path: str) -> None:
    with pytest.raises(RefusedError, match="outside the run folder"):
        inside(path)


@pytest.mark.parametrize("path", ["run.json", "checkpoints/round-1.safetensors", "..hidden"])
def test_a_file_of_the_run_folder_is_taken(path: str) -> None:
    assert inside(path) == Path(path)
