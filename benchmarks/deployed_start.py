"""W7, a whole federation on one machine: from `hansa up --sites 4 --job` to the first client's task, and what it costs at rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TypeAlias

from benchmarks.federation import below, pss
from benchmarks.measure import Figure
from hansa.runtime.store.events import SqliteEvents

JOB = """
from hansa.adapters.numpy import logistic
from hansa.core.job import Job
from hansa.data import datasets, partition
from hansa.learning.fedavg import fedavg

data = partition.column(datasets.heart(), by="site", split=(0.6, 0.15, 0.25))
job = Job("first", fedavg(logistic().bound_to(datasets.heart(), classes=2), rounds=3, standardise=True), data="heart")
"""
UP = (sys.executable, "-m", "hansa.cli", "up", "--sites", "4", "--json")
Held: TypeAlias = dict[str, int]  # bytes by process
SETTLED_S = 10.0  # from which on a federation counts as idle


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload; the first start, which compiles and fills the file system's cache, is not counted."""
    repeats, watched_s = (1, 5.0) if small else (7, 60.0)
    with tempfile.TemporaryDirectory(prefix="hansa-start-") as place:
        starts = [_first_task(Path(place) / f"{number}") for number in range(repeats + 1)][1:]
        started, most = _memory(Path(place) / "memory")
        idle = _idle(Path(place) / "idle", watched_s)
    spread = {"n": repeats, "range, s": [round(min(starts), 2), round(max(starts), 2)]}
    none = "none"
    return [
        Figure("W7", "first client task after `hansa up --sites 4 --job`", median(starts), "s", none, 3.0, "<=", spread),
        Figure("W7", "memory of the whole tree (PSS) up to then", _total(started), "MB", none, 350, "<=", _megabytes(started)),
        Figure("W7", "the same, peak of the run", _total(most), "MB", none, details=_megabytes(most)),
        Figure("W7", "an idle federation of 4 sites", sum(idle.values()), "% of a core", none, 0.2, "<=", {"by process": idle}),
    ]


def _total(held: Held) -> float:
    return sum(held.values()) / 1e6


def _megabytes(held: Held) -> dict[str, dict[str, float]]:
    return {"MB by process": {name: round(size / 1e6, 1) for name, size in held.items()}}


def _first_task(folder: Path) -> float:
    """Seconds from the command to the first client's task."""
    began = time.time()
    subprocess.run(_with_job(folder), check=True, capture_output=True)
    return _began_first_task(folder) - began


def _memory(folder: Path) -> tuple[Held, Held]:
    """What each process held, in bytes, when all together held most: up to the first client's task, and in the whole run."""
    process = subprocess.Popen(_with_job(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: list[tuple[float, Held]] = []
    while process.poll() is None:
        held: Held = {}
        for pid in below(process.pid):
            with suppress(OSError, StopIteration):  # it has ended meanwhile
                held[f"{_named(pid)} {pid}"] = pss(pid)
        seen.append((time.time(), held))
        time.sleep(0.05)
    first = _began_first_task(folder)
    started = max((held for at, held in seen if at <= first), key=lambda each: sum(each.values()))
    return started, max((held for _, held in seen), key=lambda each: sum(each.values()))


def _began_first_task(folder: Path) -> float:
    """When the first client's task started, on the clock of the wall."""
    events = SqliteEvents(folder / "fed" / "kits" / "server" / "data" / "events.sqlite", read_only=True)
    try:
        return next(event.at for event in events.all() if event.kind == "task.started")
    finally:
        events.close()


def _idle(folder: Path, watched_s: float) -> dict[str, float]:
    """What each process of a federation without work uses of a core, in percent."""
    process = subprocess.Popen([*UP, "--dir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if process.stdout is None or "url" not in json.loads(process.stdout.readline()):
            raise RuntimeError("the federation did not come up")
        time.sleep(SETTLED_S)
        before = {pid: _ran_s(pid) for pid in below(process.pid)}
        began = time.monotonic()
        time.sleep(watched_s)
        passed = time.monotonic() - began
        return {_named(pid): round((_ran_s(pid) - used) / passed * 100, 4) for pid, used in before.items()}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def _with_job(folder: Path) -> list[str]:
    folder.mkdir()
    (folder / "job.py").write_text(JOB, encoding="utf-8")
    return [*UP, "--dir", str(folder / "fed"), "--job", f"{folder / 'job.py'}:job", "--seed", "0"]


def _named(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


def _ran_s(pid: int) -> float:
    """Seconds that the process's threads have run, finer than the clock's ticks."""
    tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  names, not paths
    return sum(int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9
