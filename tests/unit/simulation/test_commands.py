"""`hansa run`: what it writes, what it resumes, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hansa.cli import main
from hansa.config.loading import load
from hansa.record.folder import RunFolder
from hansa.simulation import demo

JOB = """
name = "tiny"
seed = 3
[data]
source = "csv"
path = "rows.csv"
label = "y"
[partition]
kind = "dirichlet"
sites = 3
alpha = 5.0
[learner]
kind = "numpy.softmax"
[algorithm]
name = "fedavg"
rounds = 2
"""


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write no curves.png here: drawing takes longer than they do."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).normal(size=(60, 2))
    lines = [f"{a:.3f},{b:.3f},{int(a > 0)}" for a, b in drawn]
    (tmp_path / "rows.csv").write_text("a,b,y\n" + "\n".join(lines) + "\n")
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path / "job.toml"


def started(job: Path, *options: str) -> Path:
    """The folder of a run that was made to look as if Ctrl-C had come after its first round."""
    out = job.parent / "run"
    assert main(["run", str(job), "--out", str(out), *options]) == 0
    paused(out)
    return out


def paused(out: Path) -> None:
    folder = RunFolder.open(out)
    folder.write_info(msgspec.structs.replace(folder.info, state="paused"))
    (out / "checkpoints" / "round-2.safetensors").unlink(missing_ok=True)
    folder.resume_from(1)


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 2
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_run_is_resumed_from_another_folder_to_the_same_model(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(job.parent)
    assert main(["run", "job.toml", "--out", "run"]) == 0
    before = (job.parent / "run" / "model.safetensors").read_bytes()
    paused(job.parent / "run")
    monkeypatch.chdir("/")
    assert main(["run", "--resume", str(job.parent / "run")]) == 0
    assert (job.parent / "run" / "model.safetensors").read_bytes() == before


def test_a_run_is_not_resumed_on_another_setting(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = started(job)
    job.write_text(JOB.replace("alpha = 5.0", "alpha = 0.5"))
    told = error_of(["run", "--resume", str(out)], capsys)
    assert told["path"] == "$.partition.alpha"
    assert "it was 5.0" in told["hint"]
    assert RunFolder.open(out).info.state == "paused"


def test_a_run_is_not_resumed_on_other_rows(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = started(job)
    rows = job.parent / "rows.csv"
    rows.write_text(rows.read_text().replace("0.", "1.", 1))
    told = error_of(["run", "--resume", str(out)], capsys)
    assert (told["code"], told["path"]) == ("data", "rows.csv sha256")


def test_a_run_without_checkpoints_begins_again_and_says_so(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = started(job)
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    before = (out / "model.safetensors").read_bytes()
    assert main(["run", "--resume", str(out)]) == 0
    assert "no checkpoint of the 1 rounds so far; it begins again at round 1" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == before


def test_a_run_that_is_under_way_is_not_resumed(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = started(job)
    with (out / ".lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = error_of(["run", "--resume", str(out)], capsys)
    assert told["message"] == "the run is already running"
    assert str(os.getpid()) in told["got"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--dropout", "0.5"], ["--dropout"]),
        (["--keep-updates", "--seed", "1"], ["--seed", "--keep-updates"]),
        (["--baselines"], ["--baselines"]),
        (["--engine", "vectorised"], ["engine"]),
    ],
)
def test_what_cannot_change_is_refused_by_name(
    job: Path, options: list[str], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = error_of(["run", "--resume", str(started(job)), *options], capsys)
    for name in names:
        assert name in told["message"]


def test_a_resumed_run_keeps_its_updates_and_its_model_to_start_from_and_is_verified(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    assert main(["run", str(job), "--out", str(first)]) == 0
    out = started(job, "--init", str(first / "model.safetensors"), "--keep-updates")
    for path in (out / "updates" / "round-2").iterdir():
        path.unlink()
    assert main(["run", "--resume", str(out)]) == 0
    assert list((out / "updates" / "round-2").glob("*.safetensors"))
    assert main(["runs", "verify", str(out)]) == 0
    update = next((out / "updates" / "round-1").glob("*.safetensors"))
    update.write_bytes(update.read_bytes()[:-9])
    capsys.readouterr()
    assert main(["runs", "verify", str(out)]) == 5
    assert str(update) in capsys.readouterr().err


def test_stdout_holds_one_object_whatever_the_job_prints(job: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = """
print("loading")
import os
def mute():
    def say(shareable, ctx):
        os.write(1, b"filtering")
        return shareable
    return say
"""
    (job.parent / "own.py").write_text(own)
    job.write_text(JOB + '[[filters]]\nkind = "own.py:mute"\n')
    for workers in ("1", "2"):
        assert main(["run", str(job), "--out", str(job.parent / workers), "--workers", workers, "--json"]) == 0
        out, err = capfd.readouterr()
        assert json.loads(out)["status"] == "completed"
        assert "filtering" in err


def test_baselines_are_in_the_json_and_in_the_run_folder(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = job.parent / "run"
    assert main(["run", str(job), "--out", str(out), "--baselines", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["baselines"]
    assert told == json.loads((out / "baselines.json").read_text())
    assert sorted(told["sites"]["site-000"]) == ["centralised", "federated", "local"]
    assert set(told["pooled"]["federated"]) == {"loss", "accuracy"}


def test_a_model_to_start_from_is_checked_before_there_is_a_folder(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = job.parent / "run"
    told = error_of(["run", str(job), "--out", str(out), "--init", "none.safetensors"], capsys)
    assert told["path"] == "none.safetensors"
    assert not out.exists()


def test_the_demonstration_is_loaded_again_with_its_own_split() -> None:
    origin = demo._origin(4, 7)
    assert origin.reference is not None
    loaded = load(origin.reference.path, overrides=origin.reference.overrides)
    for slot in range(4):
        ours, theirs = loaded.data["heart"].load(slot), demo.data(seed=7).load(slot)
        assert np.array_equal(ours.part("test").y, theirs.part("test").y)
        assert np.array_equal(ours.part("test").x, theirs.part("test").x, equal_nan=True)
    assert not np.array_equal(demo.data(seed=7).load(0).x, demo.data(seed=0).load(0).x, equal_nan=True)
    assert loaded.job.seed == 7
    assert origin.settings["features"] == loaded.settings["features"]
