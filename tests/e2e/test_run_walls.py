"""What a job's code can do at the server, where its workflow runs: real processes, the walls that are the default."""

from __future__ import annotations

import errno
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
from tests.e2e.world import Caller, free_port, make_project, serving

from hansa.provision.project import ServerSection
from hansa.runtime import sandbox
from hansa.runtime.server.runner import CRASHES, LOG_LIMIT

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
import sys
import time
from pathlib import Path

import hansa as hs


def lay(federation):
    server = Path.cwd().parents[2]
    folder = server / "runs" / Path.cwd().parent.name
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(server)], start_new_session=True)
    Path("left").touch()
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
        assert (room / "left").exists()
        assert left_by(data)
        ended = lea.ended(run)
        assert (ended["state"], f"{CRASHES} times" in ended["reason"]) == ("failed", True)
        assert lea.ended(lea.submit(f"{Path(jobs.__file__)}:job", seed=7, sites=NAMES)["run"])["state"] == "completed"
        assert json.loads((data / "runs" / run / "run.json").read_text())["state"] == "failed"
        assert (data / "precious").read_text() == "the server's own"
        assert not left_by(data)  # though it was in a session of its own
        lea.client.close()


def left_by(data: Path) -> list[Path]:
    """The processes that the job has left to themselves."""
    lines = {path: told(path) for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [path for path, line in lines.items() if b"time.sleep(600)" in line and os.fsencode(data) in line]


def told(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


GREEDY = """
import os
from pathlib import Path

import numpy as np

import hansa as hs


def take(federation):
    for _ in range(18):
        print("x" * (1 << 20))
    try:
        Path("large").write_bytes(bytes(3 << 20))
    except OSError as error:
        badness = int(Path("/proc/self/oom_score_adj").read_text())
        federation.report({"round": 1, "global": {"file": error.errno, "badness": badness}})
    held = np.ones((1 << 30) // 8)


job = hs.Job("greedy", take, data="heart")
"""


def test_the_process_of_a_run_has_so_much_memory_writes_files_of_some_size_and_a_log_that_is_cut(tmp_path: Path) -> None:
    section = ServerSection(
        host="127.0.0.1", port=free_port(), listen="127.0.0.1", sandbox="basic", run_memory_mb=768, run_file_mb=2
    )
    folder = make_project(tmp_path / "office", NAMES, server=section)
    (tmp_path / "greedy.py").write_text(GREEDY)
    with serving(folder), agents(folder / "kits", NAMES):
        lea = Caller.of(folder / "kits" / "lea")
        run = lea.submit(f"{tmp_path}/greedy.py:job", sites=NAMES)["run"]
        ended = lea.ended(run)
        assert ended["metrics"] == {"file": errno.EFBIG, "badness": 1000}
        assert (ended["state"], "Unable to allocate 1.00 GiB" in ended["reason"]) == ("failed", True), ended
        log = folder / "kits" / "server" / "data" / "work" / run / "log.txt"
        assert LOG_LIMIT < log.stat().st_size < LOG_LIMIT + 200
        assert log.read_bytes().endswith(b"[the log is cut here: what came behind 16 MiB is not kept]\n")
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
