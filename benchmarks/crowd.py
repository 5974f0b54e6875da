"""W6, a thousand light sites on one server: real sessions over TLS on loopback, each round answered by every site."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

from benchmarks import crowd_job, federation
from benchmarks.crowd_sites import name_of
from benchmarks.measure import Figure
from hansa.admin.client import Run, connect

GENERATORS = 2  # processes that the sites share


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload."""
    sites = 50 if small else 1_000
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="hansa-crowd-") as place:
        folder = federation.provisioned(Path(place) / "fed", [name_of(number) for number in range(sites)])
        for kind, size in (("few", "10 kB"),) if small else (("small", "10 kB"), ("large", "1 MB")):
            shutil.rmtree(folder / "kits" / "server" / "data", ignore_errors=True)
            found += _figures(crowd(folder, sites, kind), f"{sites:,} sites, {size}")
    return found


@dataclass(frozen=True)
class Crowd:
    """What a run of the workload was: the rounds that were completed, of how many, and what they took."""

    rounds: list[float]
    wanted: int
    joined_s: float
    accepted_s: float
    server: dict[str, int]
    process: dict[str, int]
    server_cpu_s: float
    sites_cpu_s: float


def crowd(folder: Path, sites: int, kind: str) -> Crowd:
    """Run the job of that name over so many light sites."""
    with ExitStack() as stack:
        server = stack.enter_context(federation.serving(folder / "kits" / "server"))
        began = time.monotonic()
        generators = [stack.enter_context(_sites(folder / "kits", kind, sites, part)) for part in range(GENERATORS)]
        for each in generators:
            if each.stdout is None or each.stdout.readline() != "ready\n":
                raise RuntimeError("the sites did not come up")
        joined_s = time.monotonic() - began
        session = stack.enter_context(connect(folder / "kits" / "me"))
        made = session.submit(f"{crowd_job.__name__}:{kind}", sites=[name_of(number) for number in range(sites)])
        pids = [server, *(each.pid for each in generators)]
        times, process, used = _watched(made, pids)
        return Crowd(
            rounds=[later - earlier for earlier, later in pairwise(times[1:])],
            wanted=crowd_job.ROUNDS[kind],
            joined_s=joined_s,
            accepted_s=times[1] - times[0],
            server=federation.status(server),
            process=process,
            server_cpu_s=used[0],
            sites_cpu_s=sum(used[1:]),
        )


@contextmanager
def _sites(kits: Path, kind: str, sites: int, part: int) -> Iterator[subprocess.Popen[str]]:
    first, last = sites * part // GENERATORS, sites * (part + 1) // GENERATORS
    command = [sys.executable, "-m", "benchmarks.crowd_sites", str(kits), kind, str(first), str(last - first)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.communicate(timeout=30)  # closes its stdin, at which it ends


def _watched(made: Run, pids: list[int]) -> tuple[list[float], dict[str, int], list[float]]:
    """When the run was submitted, was ready, and ended each round; what its process held; what the others used meanwhile."""
    times: list[float] = []
    process: dict[str, int] = {}
    before = [0.0 for _ in pids]
    for event in made.events():
        if event.kind in ("run.submitted", "run.ready", "round"):
            times.append(event.at)
        if event.kind == "run.ready":
            before = [federation.cpu_s(pid) for pid in pids]
        if event.kind in ("run.ready", "round"):
            process = next((federation.status(child) for child in federation.children(pids[0])), process)
        if event.kind == "run.ended" and event.data["state"] != "completed":
            raise RuntimeError(str(event.data["reason"]))
    return times, process, [federation.cpu_s(pid) - start for pid, start in zip(pids, before, strict=True)]


def _figures(found: Crowd, what: str) -> list[Figure]:
    seconds = found.rounds
    cuts = quantiles(seconds, n=20, method="inclusive")
    details = {
        "rounds, s": [round(each, 3) for each in seconds],
        "from the first site to the last, s": round(found.joined_s, 2),
        "from the submission to all yeses, s": round(found.accepted_s, 2),
        "server": found.server,
        "run process": found.process,
        "server, CPU s a round": round(found.server_cpu_s / found.wanted, 3),
        "sites, CPU s a round": round(found.sites_cpu_s / found.wanted, 3),
    }
    none = "none"
    return [
        Figure("W6", f"{what}: rounds completed", len(seconds), f"of {found.wanted}", none, found.wanted, ">=", details),
        Figure("W6", f"{what}: round, p50", median(seconds), "s", none),
        Figure("W6", f"{what}: round, p95", cuts[18], "s", none),
        Figure("W6", f"{what}: peak RSS of the server", found.server["peak"] / 1e6, "MB", none, 300, "<="),
        Figure("W6", f"{what}: peak RSS of the run's process", found.process["peak"] / 1e6, "MB", none),
    ]
