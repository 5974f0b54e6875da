"""A whole federation on one machine, in real processes with real TLS: for trying, teaching and tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hansa.admin.answers import Status
from hansa.admin.client import connect
from hansa.admin.follow import follow
from hansa.admin.here.local import Local, prepare, source
from hansa.admin.here.processes import Child, Parts, Processes, interruptible
from hansa.record.progress import Mode

_LOOK_S = 5.0  # between looks at whether a process has ended


@dataclass(frozen=True)
class Asked:
    """What `up` is to do. job, data: references as a person gives them; data_folder: where named data sets lie.

    sites: how many; port: where the server listens, 0 for a free one; seed: of the job's run.
    """

    folder: Path
    job: str | None = None
    data: str | None = None
    data_folder: str | None = None
    sites: int | None = None
    port: int = 0
    seed: int | None = None
    mode: Mode = "auto"


def serve(asked: Asked, parts: Parts, environment: Mapping[str, str], ready: Callable[[Local, float], None]) -> Child:
    """Keep the federation up until one of its processes ends by itself, which is returned; Ctrl-C and SIGTERM end all.

    `ready` is told the folder, and how many seconds it took.
    """
    began = time.monotonic()
    with interruptible(), Processes(parts, environment) as processes:
        local = _prepared(asked, processes)
        processes.start_sites()
        processes.all_ready()
        ready(local, time.monotonic() - began)
        return processes.wait()


def run(
    asked: Asked, job: str, parts: Parts, environment: Mapping[str, str], ready: Callable[[Local, float], None]
) -> tuple[Status, Path]:
    """Put the federation up, run the job and watch it, download the run folder, and end all: how it ended, and the folder.

    Raises:
        RunError: the server ended meanwhile. KeyboardInterrupt: all was ended; put up again, the run goes on.
    """
    began = time.monotonic()
    with interruptible(), Processes(parts, environment) as processes:
        local = _prepared(asked, processes)
        with connect(local.kits / "admin") as session:
            bundle = session.bundle(job)  # while the server starts
            processes.start_sites()
            ready(local, time.monotonic() - began)
            made = session.submit_bundle(bundle, sites=local.sites, seed=asked.seed)

            def look() -> list[str]:
                ended = processes.ended()
                if processes.children[0] in ended:
                    raise processes.children[0].failure()
                return [str(child.failure()) for child in ended]

            status = follow(made, mode=asked.mode, hold_s=_LOOK_S, each=look)
            return status, made.download(local.runs / made.id)


def _prepared(asked: Asked, processes: Processes) -> Local:
    """The folder, provisioned while the server's process loads what it needs, which then serves."""
    data = source(asked.job, asked.data, folder=asked.data_folder)
    local = prepare(asked.folder, data, sites=asked.sites, port=asked.port)
    processes.begin(local)
    return local
