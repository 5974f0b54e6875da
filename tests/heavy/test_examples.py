"""The examples of the heavy lane run at their small size, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.test_examples import SIGNATURES

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "heavy").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_heavy_example_runs(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(path), "--small"]
    quiet = {name: value for name, value in os.environ.items() if name != "HANSA_DATA" or path.stem == "tff_tutorial"}
    done = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert [line for line in SIGNATURES.get(path.stem, ()) if f"{line}\n" not in done.stdout] == []
