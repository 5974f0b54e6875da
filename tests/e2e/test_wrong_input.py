"""What a person gets wrong ends in one error that names where and what to do, with the exit code of its kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hansa.cli import main

JOB = """name = "digits"
seed = 7
[data]
source = "digits"
[partition]
kind = "iid"
sites = 4
[learner]
kind = "numpy.softmax"
[algorithm]
name = "fedavg"
rounds = 1
"""


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the one error that is printed."""
    code = main(["run", *arguments])
    told = capsys.readouterr()
    assert told.err.count("error:") == 1
    assert "Traceback" not in told.err
    assert not told.out
    return code, told.err


@pytest.mark.parametrize(
    ("old", "new", "where", "hint"),
    [
        ("rounds = 1", "ronds = 1", "algorithm.ronds", "did you mean 'rounds'?"),
        ("rounds = 1", 'rounds = "many"', "algorithm.rounds", ""),
        ("rounds = 1", "rounds = 0", "rounds", "at least 1"),
        ('kind = "iid"', 'kind = "idd"', "partition.kind", "did you mean 'iid'?"),
        ('source = "digits"', 'source = "digit"', "data.source", "did you mean 'digits'?"),
        ('kind = "numpy.softmax"', 'kind = "numpy.sofmax"', "learner.kind", "did you mean 'numpy.softmax'?"),
        ('name = "fedavg"', 'name = "fedavgg"', "algorithm.name", "did you mean 'fedavg'?"),
        ("[learner]", "[leaner]", "leaner", "did you mean 'learner'?"),
    ],
)
def test_a_typo_in_a_job_file_is_named_with_the_nearest_valid_name(
    tmp_path: Path, old: str, new: str, where: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(JOB.replace(old, new))
    code, told = refused([str(job), "--out", str(tmp_path / "run")], capsys)
    assert code == 2
    assert where in told
    assert hint in told
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_or_no_toml_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.toml").write_text("name = \n")
    for arguments, part in (
        ([str(tmp_path / "none.toml")], "none.toml"),
        ([str(tmp_path / "job.toml")], "job.toml"),
        ([f"{tmp_path}/none.py:job"], "none.py"),
        (["no.such.module:job"], "no.such.module"),
        ([], "name a job"),
    ):
        code, told = refused(arguments, capsys)
        assert code == 2
        assert part in told


def test_a_run_folder_that_is_not_empty_or_of_a_newer_version_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(JOB)
    folder = tmp_path / "run"
    assert main(["run", str(job), "--out", str(folder)]) == 0
    capsys.readouterr()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    code, told = refused([str(job), "--out", str(folder)], capsys)
    assert code == 2
    assert "not empty" in told
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**info, "format": info["format"] + 1}))
    code, told = refused(["--resume", str(folder)], capsys)
    assert code == 2
    assert "newer Hansa" in told


def test_a_missing_extra_is_named_with_what_to_install(tmp_path: Path) -> None:
    job = tmp_path / "net.py"
    job.write_text("import hansa.adapters.torch\n")
    without = f"import sys; sys.modules['torch'] = None; from hansa.cli import main; sys.exit(main(['run', {str(job) + ':job'!r}]))"
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "pip install 'hansa[torch]'" in done.stderr
    assert "Traceback" not in done.stderr
