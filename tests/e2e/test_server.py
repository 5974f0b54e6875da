"""A real server process, spoken to over TLS by sites that are threads of the test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import jobs
from tests.e2e.world import Caller, FakeSite, Server, make_project, serving

from hansa.simulation.engine import simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
REFERENCE = f"{Path(jobs.__file__)}:job"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "fed", NAMES)


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    with serving(project) as server:
        yield server


@pytest.fixture
def lea(project: Path, server: Server) -> Iterator[Caller]:
    caller = Caller.of(project / "kits" / "lea")
    yield caller
    caller.client.close()


def site(project: Path, name: str, **options: Any) -> FakeSite:
    return FakeSite(Caller.of(project / "kits" / name), jobs.job, jobs.data, **options)


@pytest.fixture
def sites(project: Path, server: Server) -> Iterator[list[FakeSite]]:
    with ExitStack() as stack:
        found = [site(project, name) for name in NAMES]
        for each in found:
            stack.callback(each.close)
            each.start()
        yield found


def expected(tmp_path: Path, seed: int) -> str:
    simulate(jobs.job, jobs.data, seed=seed, out=tmp_path / "simulated")
    return hashlib.sha256((tmp_path / "simulated" / "model.safetensors").read_bytes()).hexdigest()


def test_the_deployed_run_gives_the_model_of_the_simulated_one(lea: Caller, sites: list[FakeSite], tmp_path: Path) -> None:
    run = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
    shown = lea.ended(run)
    assert shown["state"] == "completed", shown
    assert hashlib.sha256(lea.file(run, "model.safetensors")).hexdigest() == expected(tmp_path, 3)
