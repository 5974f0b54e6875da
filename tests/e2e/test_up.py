"""`hansa up` as a person uses it: started, used from outside, interrupted, killed, started again; no process is left."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e import jobs, thin

from hansa import codec
from hansa.admin.client import connect
from hansa.errors import RefusedError
from hansa.record.folder import RunFolder
from hansa.simulation.engine import simulate

REFERENCE = f"{Path(jobs.__file__)}:job"
DATA = f"heart={Path(jobs.__file__)}:data"
SEED = 3


def hansa(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hansa.cli", *arguments]


def tree(pid: int) -> list[int]:
    """The processes below one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid for child in children for pid in (int(child), *tree(int(child)))]


def gone(pids: list[int], within_s: float = 15.0) -> bool:
    """Whether none of the processes is there any more, at last."""
    ends = time.monotonic() + within_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        select.select([handle], [], [], max(0.0, ends - time.monotonic()))
        ended = bool(select.select([handle], [], [], 0)[0])
        os.close(handle)
        if not ended:
            return False
    return True


@contextmanager
def up(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`hansa up` in a process, ready; ended by its own number."""
    process = subprocess.Popen(
        hansa("up", "--dir", str(folder), *more, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith('{"url"'):
            raise AssertionError(f"{line!r} {process.communicate(timeout=30)[1]}")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def expected() -> str:
    return codec.digest(simulate(jobs.job, jobs.data, seed=SEED).model)


def test_a_job_runs_downloads_and_gives_the_hash_of_the_simulation(tmp_path: Path, expected: str) -> None:
    folder = tmp_path / "fed"
    command = hansa("up", "--sites", "4", "--dir", str(folder), "--job", REFERENCE, "--seed", str(SEED), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["status"], said["model_sha256"]) == ("completed", expected)
    model = Path(said["folder"]) / "model.safetensors"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == expected
    assert "round 3/3" in done.stderr
    assert {path.name for path in (folder / "kits").iterdir()} == {"server", "admin", "me", *(f"site-{k}" for k in range(1, 5))}


def test_half_precision_and_layers_that_stay_at_a_site_give_the_simulations_model_for_a_part_of_its_bytes(tmp_path: Path) -> None:
    reference = f"{Path(thin.__file__)}:job"
    command = hansa("up", "--sites", "2", "--dir", str(tmp_path / "fed"), "--job", reference, "--seed", str(SEED), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    simulated = simulate(thin.job, thin.data, seed=SEED)
    assert said["model_sha256"] == codec.digest(simulated.model)
    here, there = simulated.metrics[0], RunFolder.open(said["folder"]).rounds()[0]
    assert (there["bytes_up"], there["bytes_down"]) == (here["bytes_up"], here["bytes_down"])
    body = 64 * 16 + 16  # the shared layer's entries; beside them scalars travel, and the sums of the evaluation
    assert 2 * 2 * body <= there["bytes_up"] < 2 * 2 * body + 300
    assert 2 * 2 * 2 * body <= there["bytes_down"] < 2 * 2 * 2 * body + 300  # out for training and for evaluation


class Terminal:
    """A command in a terminal of its own, as a person has it: what it shows, and keys that are pressed."""

    def __init__(self, *command: str) -> None:
        self.screen, theirs = pty.openpty()
        tty = ["setsid", "--ctty", *command]
        self.process = subprocess.Popen(tty, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
        os.close(theirs)
        self.shown = ""

    def until(self, text: str, within_s: float = 60.0) -> str:
        """What is shown, once it holds the text."""
        ends = time.monotonic() + within_s
        while text not in self.shown:
            assert select.select([self.screen], [], [], max(0.0, ends - time.monotonic()))[0], self.shown
            try:
                self.shown += os.read(self.screen, 65_536).decode()
            except OSError:  # the other end is closed
                raise AssertionError(self.shown) from None
        return self.shown

    def press(self, key: bytes) -> None:
        os.write(self.screen, key)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
        os.close(self.screen)


def test_in_a_terminal_it_says_what_to_type_next_stops_on_ctrl_c_and_starts_again_as_it_was(tmp_path: Path, expected: str) -> None:
    command = hansa("up", "--dir", str(tmp_path / "fed"), "--data", DATA)
    terminal = Terminal(*command)
    try:
        shown = terminal.until("Ctrl-C stops it.")
        started = tree(terminal.process.pid)
        assert len(started) >= 5
        typed = next(line for line in shown.splitlines() if line.startswith("next  ")).removeprefix("next  hansa ").split()
        typed[typed.index("FILE.py:job")] = REFERENCE
        done = subprocess.run(
            hansa(*typed, "--seed", str(SEED), "--json"), capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        run = json.loads(done.stdout)["run"]
        kit = tmp_path / "fed" / "kits" / "admin"
        with connect(kit) as session:
            assert [site.online for site in session.sites()] == [True] * 4
            folder = session.run(run).download(tmp_path / "home")
        assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == expected
        started = sorted({*started, *tree(terminal.process.pid)})
        terminal.press(b"\x03")
        assert "Traceback" not in terminal.until("stopped", within_s=10.0)
        assert terminal.process.wait(timeout=10) == 0
        assert gone(started, within_s=0)
    finally:
        terminal.close()
    certificates = {path: path.read_bytes() for path in (tmp_path / "fed" / "kits").glob("*/certificate.pem")}
    again = Terminal(*hansa("up", "--dir", str(tmp_path / "fed")))
    try:
        assert again.until("Ctrl-C stops it.").count("https://") == 1
        assert len(certificates) >= 6
        assert {path: path.read_bytes() for path in certificates} == certificates
        with connect(kit) as session:
            assert [each.run for each in session.runs()] == [run]
        again.press(b"\x03")
        assert again.process.wait(timeout=15) == 0
    finally:
        again.close()


def test_when_it_is_killed_the_kernel_ends_its_processes_and_the_run_goes_on_when_it_is_up_again(
    tmp_path: Path, expected: str
) -> None:
    with up(tmp_path / "fed", "--data", DATA) as process, connect(tmp_path / "fed" / "kits" / "admin") as session:
        run = session.submit(REFERENCE, seed=SEED)
        assert any(event.kind == "task.started" for event in run.events())
        started = tree(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert gone(started)
    with up(tmp_path / "fed"), connect(tmp_path / "fed" / "kits" / "admin") as session:
        again = session.run(run.id)
        assert again.wait().state == "completed"
        model = again.result().model
        assert model is not None
        assert codec.digest(model) == expected


def test_a_job_whose_data_no_site_has_is_refused_with_the_reason(tmp_path: Path) -> None:
    with up(tmp_path / "fed", "--sites", "2"), connect(tmp_path / "fed" / "kits" / "admin") as session:
        run = session.submit(REFERENCE)
        status = run.wait()
        assert status.state == "refused"
        assert "no data with the label 'heart'" in str(status.refused)
        with pytest.raises(RefusedError, match="refused"):
            run.result()
        done = subprocess.run(
            hansa("job", "watch", run.id, "--kit", str(tmp_path / "fed" / "kits" / "admin")),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", DATA, "--sites", "9"], "the data have fewer sites"),
        (["--data", "nothing.py:data"], "no such file"),
        (["--job", f"{Path(jobs.__file__)}:learner"], "something else than a Job"),
    ],
)
def test_wrong_input_is_told_before_anything_starts(tmp_path: Path, arguments: list[str], told: str) -> None:
    command = hansa("up", "--dir", str(tmp_path / "fed"), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "fed").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    command = hansa("up", "--dir", str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
