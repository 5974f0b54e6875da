"""W3 deployed: what a round costs over mutual TLS, with `hansa up`: a server, a run's process, four agents and their workers.

`python -m benchmarks.deployed --megabytes 100 --rounds 8` measures one size and prints it as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.exchange import ARRAYS, CLIENTS, shapes
from benchmarks.measure import Figure, run_python
from hansa.admin.client import Run, connect

READY_S = 60.0
LOOK_S = 0.1  # between looks at peaks, which only ever grow
SMALL, LARGE, HUGE = 1, 100, 1000  # MB
FLOOR = "two copies over TLS 1.3 through Python's ssl, 2.5 CPU s a GB each way"
JOB = '''
"""A job whose sites return an update of a given size, and compute nothing."""

from echo import Echo

from hansa.core.job import Job
from hansa.learning.fedavg import fedavg


class Drawn(Echo):
    """Each update differs from every other in one entry: equal ones would be one blob at the server, and be sent once."""

    def fit(self, model, data, config, *, rng, abort):
        update = super().fit(model, data, config, rng=rng, abort=abort)
        next(iter(update.delta.values()))[0] = rng.random()
        return update


learner = Drawn({shapes!r}, own=False)
job = Job("w3", fedavg(learner, rounds={rounds}, metrics=[], evaluate_sites="none"), data="rows", include=["echo.py"])
'''
DATA = '''
"""A row for each site."""

import numpy as np

from hansa.data.federated import Rows, population

rows = population({clients}, lambda _: Rows(np.zeros((1, 1), np.float32), np.zeros(1)))
'''


@dataclass(frozen=True)
class Measured:
    """One run. Seconds are medians over rounds from the second on; peaks are high-water marks of resident memory (VmHWM)."""

    megabytes: int
    rounds: int
    clients: int
    round_s: float
    round_s_range: tuple[float, float]
    cpu_s: float  # a round: user + sys of the whole tree
    server_mb: float
    run_mb: float
    agent_mb: float
    worker_mb: float

    @property
    def memory(self) -> float:
        """Peaks of the server and of the run's process together, in models."""
        return (self.server_mb + self.run_mb) / self.megabytes


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload: each size a federation of its own."""
    sizes = {SMALL: (5, 1), LARGE: (3, 1)} if small else {SMALL: (30, 3), LARGE: (5, 3), HUGE: (2, 1)}
    found = {mb: [_fresh(mb, rounds, CLIENTS) for _ in range(repeats)] for mb, (rounds, repeats) in sizes.items()}
    figures = [figure for megabytes, each in found.items() for figure in _figures(megabytes, each)]
    if not small:
        figures.append(_whatever_the_number(found[LARGE][0], _fresh(LARGE, sizes[LARGE][0], 2 * CLIENTS)))
    return figures


def _fresh(megabytes: int, rounds: int, clients: int) -> Measured:
    sizes = ["--megabytes", str(megabytes), "--rounds", str(rounds), "--clients", str(clients)]
    return Measured(**run_python("-m", "benchmarks.deployed", *sizes, env=os.environ))


def _figures(megabytes: int, found: list[Measured]) -> list[Figure]:
    name = f"round of {CLIENTS} x {megabytes} MB over TLS"
    details = {"runs": [asdict(each) for each in found], "arrays": ARRAYS}
    wall, cpu, memory = (median(values) for values in zip(*((m.round_s, m.cpu_s, m.memory) for m in found), strict=True))
    figures = [
        Figure("W3-deployed", name, wall, "s (median)", "none", 0.1 if megabytes == SMALL else None, "<=", details),
        Figure("W3-deployed", f"{name}, CPU", cpu, "CPU s", FLOOR, 3.3 if megabytes == LARGE else None),
    ]
    if megabytes != SMALL:
        memory_name = f"server and run, peak resident, {megabytes} MB"
        figures.append(Figure("W3-deployed", memory_name, memory, "x model", "one model", 2.5 if megabytes == HUGE else None))
    return figures


def _whatever_the_number(few: Measured, many: Measured) -> Figure:
    name = f"server and run, peak resident, {many.clients} sites"
    details = {"runs": [asdict(few), asdict(many)]}
    return Figure(
        "W3-deployed", name, many.memory / few.memory, f"x {few.clients} sites", f"{few.clients} sites", 1.05, "<=", details
    )


def measure(megabytes: int, rounds: int, clients: int, *, profile: str | None = None) -> Measured:
    """What the rounds of one federation cost."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = folder / "job.py"
        job.write_text(JOB.format(shapes=shapes(megabytes), rounds=rounds), encoding="utf-8")
        (folder / "data.py").write_text(DATA.format(clients=clients), encoding="utf-8")
        (folder / "echo.py").write_bytes(Path(__file__).with_name("echo.py").read_bytes())
        with _up(folder, clients, profile) as pid, connect(folder / "fed" / "kits" / "admin") as session:
            tree = Tree(pid)
            with tree.watched():
                marks = list(_rounds(session.submit(f"{job}:job", seed=0), tree))
    spans = [b[0] - a[0] for a, b in itertools.pairwise(marks)]
    cpu_s = (marks[-1][1] - marks[0][1]) / len(spans)
    peaks = {kind: round(tree.peak_mb(kind), 1) for kind in ("server", "run", "agent", "worker")}
    return Measured(
        megabytes=megabytes,
        rounds=rounds,
        clients=clients,
        round_s=round(median(spans), 4),
        round_s_range=(round(min(spans), 4), round(max(spans), 4)),
        cpu_s=round(cpu_s, 4),
        **{f"{kind}_mb": value for kind, value in peaks.items()},
    )


def _rounds(run: Run, tree: Tree) -> Iterator[tuple[float, float]]:
    """When each round ended by the server's clock, and the CPU seconds of the tree at about that time."""
    for event in run.events():
        if event.kind == "round":
            yield event.at, tree.cpu_s()
        if event.kind == "run.ended" and event.data["state"] != "completed":
            raise RuntimeError(f"the run has ended {event.data}")


@contextmanager
def _up(folder: Path, clients: int, profile: str | None) -> Iterator[int]:
    """A federation that is ready; the number of its first process."""
    data = f"rows={folder / 'data.py'}:rows"
    command = ["-m", "hansa.cli", "up", "--sites", str(clients), "--dir", str(folder / "fed"), "--data", data, "--json"]
    started = [*(profile.split() if profile else []), sys.executable, *command]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not select.select([process.stdout], [], [], READY_S)[0]:
                raise RuntimeError("the federation was not ready in time")
            if not process.stdout.readline():
                raise RuntimeError("the federation has not started")
            yield process.pid
        finally:
            process.terminate()
            process.communicate(timeout=60)


class Tree:
    """The processes below one: their CPU time, and the peaks of their memory, looked at by a thread while `watched` lasts."""

    def __init__(self, root: int) -> None:
        self._root, self._ticks = root, os.sysconf("SC_CLK_TCK")
        self._peaks: dict[str, dict[int, float]] = {}
        self._done = threading.Event()

    def cpu_s(self) -> float:
        """User and system seconds of all of them, and of those that they have waited for."""
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self._all()) / self._ticks

    def peak_mb(self, kind: str) -> float:
        """The highest peak among the processes of a kind."""
        return max(self._peaks.get(kind, {}).values(), default=0.0)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take the peaks meanwhile."""
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S):
            for pid in self._all():
                kind, peak = _kind(pid), _peak_mb(pid)
                if kind:
                    self._peaks.setdefault(kind, {})[pid] = peak

    def _all(self) -> list[int]:
        found, waiting = [], [self._root]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += _children(pid)
        return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]
    except OSError:  # it ended meanwhile
        return []


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return ["0"] * 20


def _kind(pid: int) -> str:
    """What a process of the federation is."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    except OSError:
        return ""
    parts = {"server.run_main": "run", "client.worker": "worker"}
    forked = {"hansa server": "server", "hansa site-": "agent"}
    return next((kind for part, kind in parts.items() if part in command), "") or next(
        (kind for part, kind in forked.items() if name.startswith(part)), ""
    )


def _peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deployed", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=LARGE, help="size of the model, and of each update")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--profile", help="a command to start the federation under, such as 'perf record -g -o out'")
    options = parser.parse_args()
    began: Any = time.monotonic()
    found = measure(options.megabytes, options.rounds, options.clients, profile=options.profile)
    sys.stderr.write(f"{time.monotonic() - began:.1f} s in all\n")
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
