"""mypy --strict accepts each program in good/ and rejects each line of bad/ that is marked `# E: part of the message`."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted([*HERE.glob("good/*.py"), *HERE.glob("bad/*.py")])


@functools.cache
def findings() -> dict[tuple[str, int], list[str]]:
    """mypy's errors by file and line: one call for all files, because each start costs seconds."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--hide-error-context",
        "--no-pretty",
        *map(str, FILES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found: dict[tuple[str, int], list[str]] = {}
    for path, line, message in re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found.setdefault((str((ROOT / path).resolve()), int(line)), []).append(message)
    return found


def expected(path: Path) -> dict[int, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {number: line.partition("# E: ")[2] for number, line in enumerate(lines, 1) if "# E: " in line}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_mypy_finds_exactly_the_marked_errors(path: Path) -> None:
    marked = expected(path)
    found = {line: messages for (name, line), messages in findings().items() if name == str(path)}
    assert found.keys() == marked.keys(), found
    for line, text in marked.items():
        assert any(text in message for message in found[line]), (line, found[line])


@pytest.mark.parametrize("path", sorted(HERE.glob("bad/*.py")), ids=lambda path: path.name)
def test_a_bad_program_marks_what_is_wrong(path: Path) -> None:
    assert expected(path)
