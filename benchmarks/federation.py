"""A federation for measuring: provisioned, its server in a process of its own, and what its processes hold and use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hansa.provision.changes import provision
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site
from hansa.runtime.authz.policy import Rules

_TICKS = os.sysconf("SC_CLK_TCK")


def provisioned(folder: Path, sites: Sequence[str]) -> Path:
    """A project with these sites and the person `me`, on loopback."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    project = Project(
        name="measured",
        server=ServerSection(host="127.0.0.1", port=port, listen="127.0.0.1"),
        organisations=(Organisation(name="all"),),
        sites=tuple(Site(name=name, org="all") for name in sites),
        people=(Person(name="me", org="all", role="project_admin"),),
        policy=Rules(min_cohort=1),
        central_keys=True,
    )
    provision(project, folder, now=time.time(), zips=False)
    return folder


@contextmanager
def serving(kit: Path) -> Iterator[int]:
    """A server's process: its number. It is stopped at the end."""
    command = [sys.executable, "-m", "hansa.cli", "server", "start", str(kit)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or not process.stdout.readline().startswith("ready"):
            raise RuntimeError("the server did not start")
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def children(pid: int) -> list[int]:
    """The processes that this one has started, from any of its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return found


def below(pid: int) -> list[int]:
    """The process and all that descend from it."""
    return [pid, *(each for child in children(pid) for each in below(child))]


def status(pid: int) -> dict[str, int]:
    """What the process holds: memory now and at its peak (bytes), threads, open files."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()}
    return {
        "rss": int(fields["VmRSS"]) * 1024,
        "peak": int(fields["VmHWM"]) * 1024,
        "threads": int(fields["Threads"]),
        "files": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
    }


def pss(pid: int) -> int:
    """The process's share of memory, in bytes: pages that several processes have are divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def cpu_s(pid: int) -> float:
    """User and system seconds of the process and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS
