"""The example of a deployed federation runs as a user would start it, and leaves no process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_deployed_example_trains_refuses_and_revokes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "deployed" / "federation.py"), "--small"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(None, 1) for line in done.stdout.splitlines() if line.startswith(("deployed", "simulated")))
    assert told["deployed"] == told["simulated"]
    assert "refused: {'long-beach'" in done.stdout
    assert "switzerland was revoked: left the project" in done.stdout
    assert "the record is whole" in done.stdout
