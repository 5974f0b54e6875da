"""The server with real agents and their workers: the same model as simulated, whatever is killed meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import jobs
from tests.e2e.world import Caller, make_project, serving

from hansa.simulation.engine import simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
REFERENCE = f"{Path(jobs.__file__)}:job"
SITE = """
[data]
heart = "rows.py:load"
[policy]
authors = "any"
code = "any"
"""
ROWS = """
from hansa.data import datasets, partition

def load(slot):
    return partition.column(datasets.heart(), by="site", split=(0.6, 0.15, 0.25)).load(slot)
"""


def start_agent(kit: Path) -> subprocess.Popen[bytes]:
    log = (kit / "agent.log").open("ab")
    with log:
        return subprocess.Popen([sys.executable, "-m", "hansa.runtime.client", str(kit)], stdout=log, stderr=log)


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = make_project(tmp_path / "fed", NAMES)
    for name in NAMES:
        (folder / "kits" / name / "site.toml").write_text(SITE)
        (folder / "kits" / name / "rows.py").write_text(ROWS)
    return folder


@pytest.fixture
def agents(project: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    found = [start_agent(project / "kits" / name) for name in NAMES]
    with ExitStack() as stack:
        for process in found:
            stack.callback(end, process)
        yield found


def in_round(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["kind"] == "result" and event["step"] == 2 * number + 1


def test_real_agents_give_the_model_of_the_simulation_though_server_and_run_are_killed(
    project: Path, agents: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    simulate(jobs.job, jobs.data, seed=3, out=tmp_path / "simulated")
    expected = hashlib.sha256((tmp_path / "simulated" / "model.safetensors").read_bytes()).hexdigest()
    with serving(project) as server:
        lea = Caller.of(project / "kits" / "lea")
        quiet = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
        shown = lea.ended(quiet, timeout_s=90)
        assert shown["state"] == "completed", (shown, (project / "kits" / "cleveland" / "agent.log").read_text())
        assert hashlib.sha256(lea.file(quiet, "model.safetensors")).hexdigest() == expected
        killed = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
        lea.wait(killed, in_round(1))
        os.kill(server.runs()[0], signal.SIGKILL)
        lea.wait(killed, in_round(2))
        server.kill()
        server.start()
        assert lea.ended(killed, timeout_s=90)["state"] == "completed"
        assert hashlib.sha256(lea.file(killed, "model.safetensors")).hexdigest() == expected
        lea.client.close()
