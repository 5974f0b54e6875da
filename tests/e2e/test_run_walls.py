"""What a job's code can do at the server, where its workflow runs: real processes, the walls that are the default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.e2e import jobs
from tests.e2e.agents import agents
from tests.e2e.world import Caller, make_project, serving

from hansa.runtime import sandbox
from hansa.runtime.server.runner import CRASHES

NAMES = ["cleveland", "hungarian"]
PRIES = """
import os
import socket
from pathlib import Path

import hansa as hs


def attempts():
    KIT = Path.cwd().parents[3]
    blobs = KIT / "data" / "blobs"
    yield "read the server's key", lambda: (KIT / "key.pem").read_bytes()
    yield "read the events", lambda: (KIT / "data" / "events.sqlite").read_bytes()
    yield "list the blobs", lambda: os.listdir(blobs)
    yield "make a blob", lambda: (blobs / ("0" * 64)).write_bytes(b"")
    yield "see other runs", lambda: os.listdir(KIT / "data" / "runs")
    yield "write beside its room", lambda: (Path.cwd().parent / "log.txt").write_bytes(b"")
    yield "write elsewhere", lambda: Path("/tmp/hansa-pries").write_bytes(b"")
    yield "put a link in the place of its blobs", lambda: (Path.cwd().parent / "handed").rename(Path.cwd() / "away")
    yield "reach the network", lambda: socket.create_connection(("127.0.0.1", PORT), timeout=2)
    yield "write in its room", lambda: Path("own").write_bytes(b"")


def pry(federation):
    done = []
    for what, attempt in attempts():
        try:
            attempt()
        except OSError:
            continue
        done.append(what)
    raise RuntimeError("could " + ", ".join(done))


job = hs.Job("pries", pry, data="heart")
"""


def test_code_of_a_job_sees_nothing_of_the_server_and_what_it_makes_is_taken_over(tmp_path: Path) -> None:
    if why := sandbox.fault("strict", tmp_path):
        pytest.skip(f"this kernel forbids it: {why}")
    folder = make_project(tmp_path / "office", NAMES)
    with serving(folder), agents(folder / "kits", NAMES):
        lea = Caller.of(folder / "kits" / "lea")
        port = lea.kit.url.rpartition(":")[2]
        (tmp_path / "pries.py").write_text(PRIES.replace("PORT", port))
        pried = lea.ended(lea.submit(f"{tmp_path}/pries.py:job", sites=NAMES)["run"])
        assert (pried["state"], pried["reason"]) == ("failed", "could write in its room")
        run = lea.submit(f"{Path(jobs.__file__)}:job", seed=7, sites=NAMES)["run"]
        assert lea.ended(run)["state"] == "completed"
        assert list((folder / "kits" / "server" / "data" / "work" / run / "handed").glob("?" * 64)) == []  # taken over
        lea.client.close()


TRAPS = """
import os
import subprocess
import time
from pathlib import Path

import hansa as hs


def lay(federation):
    server = Path.cwd().parents[2]
    folder = server / "runs" / Path.cwd().parent.name
    Path("left").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    for name in ("report.html", "curves.png"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(server / "precious")
    (folder / "live.jsonl" / "full").mkdir(parents=True, exist_ok=True)
    (folder / "peek.txt").symlink_to(server.parent / "key.pem") if not (folder / "peek.txt").is_symlink() else None
    while not Path("go").exists():  # a pipe, which the test makes
        time.sleep(0.01)
    with open("go") as go:  # until somebody has seen all this
        go.read()
    os._exit(1)


job = hs.Job("traps", lay, data="heart")
"""


def test_what_a_job_leaves_behind_does_not_lead_the_server_astray_and_nothing_goes_on_that_it_started(tmp_path: Path) -> None:
    if why := sandbox.fault("strict", tmp_path):
        pytest.skip(f"this kernel forbids it: {why}")
    folder = make_project(tmp_path / "office", NAMES)
    data = folder / "kits" / "server" / "data"
    with serving(folder), agents(folder / "kits", NAMES):
        lea = Caller.of(folder / "kits" / "lea")
        (data / "precious").write_text("the server's own")
        (tmp_path / "traps.py").write_text(TRAPS)
        run = lea.submit(f"{tmp_path}/traps.py:job", sites=NAMES)["run"]
        room = data / "work" / run / "room"
        room.mkdir(parents=True, exist_ok=True)
        os.mkfifo(room / "go")
        (data / "work" / run / "live.jsonl").write_text("")
        wait_until(partial(is_read, room / "go"))
        left = (room / "left").read_text()
        ended = lea.ended(run)
        assert (ended["state"], f"{CRASHES} times" in ended["reason"]) == ("failed", True)
        assert lea.ended(lea.submit(f"{Path(jobs.__file__)}:job", seed=7, sites=NAMES)["run"])["state"] == "completed"
        assert json.loads((data / "runs" / run / "run.json").read_text())["state"] == "failed"
        assert (data / "precious").read_text() == "the server's own"
        assert not Path(f"/proc/{left}/cmdline").exists()
        lea.client.close()


def is_read(pipe: Path) -> bool:
    """Whether somebody reads from the pipe, who then reads its end."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_cannot_enclose_its_runs_as_it_should_does_not_start(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "office", NAMES)
    code = """
import sys
from pathlib import Path
from hansa.runtime import sandbox
from hansa.runtime.server.main import serve

sandbox._CLONE_NEWUSER = 1 << 60  # what the kernel refuses
try:
    serve(sys.argv[1], environment={}, ready=print)
except sandbox.SandboxError as error:
    print(error.exit_code, error)
"""
    command = [sys.executable, "-c", code, str(folder / "kits" / "server")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.startswith("3 runs cannot be enclosed as [server] sandbox says; expected strict"), done
    assert 'sandbox = "basic"' in done.stdout
