"""Runs that are killed, interrupted or starved of disk resume to the bits of an undisturbed run."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.e2e import doomed

import hansa as hs
from hansa.core.rng import generator
from hansa.core.round import Policy, select
from hansa.references import load_reference
from hansa.simulation.engine import Result

PROGRAM = Path(doomed.__file__)
POINTS = [  # job, round, slot, workers
    ("fedavg", 1, 0, 1),
    ("fedavg", 3, 2, 2),
    ("scaffold", 2, 1, 1),
    ("scaffold", 4, 5, 2),
    ("fedper", 3, 4, 2),
    ("tally", 1, 3, 1),
    ("tally", 3, 0, 2),
]


def sampled(name: str, number: int, slot: int) -> int:
    """The slot, or, where it is not in that round's cohort, the next one that is."""
    if name == "tally":
        return slot
    cohort = select(6, Policy(cohort=4), generator(3, round=number, purpose="cohort"))
    return min((each for each in cohort if each >= slot), default=max(cohort))


def start(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the doomed program in a group of its own."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), name, str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )


def resume(name: str, folder: Path, *, workers: int = 1) -> Result:
    """Go on with a run in this process, which is another one than began it: what was the program's own there comes by reference."""
    jobs = cast(dict[str, hs.Job], load_reference(f"{PROGRAM}:jobs"))
    return hs.simulate(jobs[name], doomed.data, out=folder, seed=3, workers=workers, resume=True)


@pytest.fixture(autouse=True, scope="module")
def _without_pictures() -> Iterator[None]:
    """Runs write no curves.png here: drawing takes longer than they do."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "matplotlib", None)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an undisturbed run of a job."""

    @functools.cache
    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp("straight") / "run"
        hs.simulate(doomed.jobs[name], doomed.data, out=folder, seed=3)
        return folder

    return run


def same(name: str, one: Path, other: Path) -> None:
    """Check that two run folders hold the same but for the wall clock."""
    metrics = []
    for folder in (one, other):
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        metrics.append([{key: value for key, value in record.items() if key != "seconds"} for record in records])
    assert metrics[0] == metrics[1]
    if name != "tally":
        for file in ("model.safetensors", "best.safetensors"):
            assert len({hashlib.sha256((folder / file).read_bytes()).hexdigest() for folder in (one, other)}) == 1


def state(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text())["state"])


def gone(pids: Path, within_s: float = 10) -> bool:
    """Whether all processes that are listed in the file end in time. They are nobody's children, so they can only be asked for."""
    known = {int(line) for line in pids.read_text().split()}
    end = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in known):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(("name", "number", "slot", "workers"), POINTS)
def test_killed_in_the_middle_of_a_round_and_resumed_gives_the_same_bits(
    tmp_path: Path, straight: Callable[[str], Path], name: str, number: int, slot: int, workers: int
) -> None:
    doom = f"SIGKILL:{number}:{sampled(name, number, slot)}"
    killed = start(name, tmp_path / "killed", DOOM=doom, WORKERS=str(workers), PIDS=str(tmp_path / "pids"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert gone(tmp_path / "pids"), "a worker outlived its run"
    assert state(tmp_path / "killed") == "running"
    resumed = resume(name, tmp_path / "killed", workers=3 - workers)  # a loop's run goes on in a pool, and back
    same(name, tmp_path / "killed", straight(name))
    if name == "tally":
        assert resumed.value == hs.simulate(doomed.jobs[name], doomed.data, seed=3).value


def test_a_run_killed_time_and_again_still_ends_with_the_same_bits(tmp_path: Path, straight: Callable[[str], Path]) -> None:
    folder = tmp_path / "killed"
    for count, number in enumerate((2, 2, 4)):
        doom = f"SIGKILL:{number}:{sampled('scaffold', number, 2)}"
        again = {"RESUME": "1"} if count else {}
        assert start("scaffold", folder, DOOM=doom, OPTIONS='{"checkpoint_every": 2}', **again).returncode == -signal.SIGKILL
    resume("scaffold", folder)
    same("scaffold", folder, straight("scaffold"))


@pytest.mark.parametrize("damage", ["torn", "flipped"])
def test_a_checkpoint_that_the_kill_left_damaged_is_passed_over_and_it_says_so(
    tmp_path: Path, straight: Callable[[str], Path], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "killed"
    assert start("scaffold", folder, DOOM=f"SIGKILL:4:{sampled('scaffold', 4, 2)}").returncode == -signal.SIGKILL
    path = folder / "checkpoints" / "round-3.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data[:-100] if damage == "torn" else data)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 4, "glob')
    resume("scaffold", folder)
    assert "round-3.safetensors was passed over" in capsys.readouterr().err
    same("scaffold", folder, straight("scaffold"))


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_pauses_a_run_that_says_how_it_is_resumed(tmp_path: Path, straight: Callable[[str], Path], workers: int) -> None:
    doom = f"group:3:{sampled('scaffold', 3, 1)}"
    stopped = start("scaffold", tmp_path / "run", DOOM=doom, WORKERS=str(workers), PIDS=str(tmp_path / "pids"))
    assert stopped.returncode == 130, stopped.stderr
    assert f"hansa run --resume {tmp_path / 'run'}" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert state(tmp_path / "run") == "paused"
    assert gone(tmp_path / "pids")
    resume("scaffold", tmp_path / "run")
    assert state(tmp_path / "run") == "completed"
    same("scaffold", tmp_path / "run", straight("scaffold"))


def test_hansa_run_ends_with_130_on_ctrl_c_and_resumes_to_the_same_bits(tmp_path: Path, straight: Callable[[str], Path]) -> None:
    def hansa(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hansa.cli", "run", *arguments]
        env = {**os.environ, **environment}
        return subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, start_new_session=True, check=False
        )

    doom = f"group:2:{sampled('fedavg', 2, 3)}"
    stopped = hansa(f"{PROGRAM}:job", "--seed", "3", "--workers", "2", "--out", "run", DOOM=doom)
    assert stopped.returncode == 130, stopped.stderr
    assert "error: interrupted" in stopped.stderr
    assert state(tmp_path / "run") == "paused"
    resumed = hansa("--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    same("fedavg", tmp_path / "run", straight("fedavg"))


def namespaces() -> bool:
    """Whether a small file system can be mounted in a namespace of one's own."""
    tool = shutil.which("unshare")
    probe = ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return tool is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not namespaces(), reason="no unprivileged mounts here")
def test_a_full_disk_ends_the_run_with_exit_5_and_loses_nothing(tmp_path: Path, straight: Callable[[str], Path]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program = f"{sys.executable} {PROGRAM} scaffold {disk}/run"
    script = f"""
        mount -t tmpfs -o size=72k none {disk}
        {program} 2> {tmp_path}/first; echo $? > {tmp_path}/code
        cp -r {disk}/run {tmp_path}/full
        mount -o remount,size=16m {disk}
        RESUME=1 {program} 2> {tmp_path}/second || exit 1
        cp -r {disk}/run {tmp_path}/resumed
    """
    options = json.dumps({"keep_updates": True})  # they fill the disk round by round
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], env={**os.environ, "OPTIONS": options}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "second").read_text()
    assert (tmp_path / "code").read_text().strip() == "5"
    assert "error: the disk is full; at path" in (tmp_path / "first").read_text()
    assert "free some space and resume" in (tmp_path / "first").read_text()
    assert list((tmp_path / "full" / "checkpoints").glob("round-*.safetensors")), "the disk was full before the first round ended"
    same("scaffold", tmp_path / "resumed", straight("scaffold"))


def test_a_file_that_may_not_grow_further_is_a_full_disk_too(tmp_path: Path) -> None:
    limited = f"""if True:
        import resource, runpy, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        sys.argv = ["doomed", "fedavg", {str(tmp_path / "run")!r}]
        runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
    """
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 5, done.stderr
    assert "the disk is full" in done.stderr
