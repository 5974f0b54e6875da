"""Real agents, workers and a real server: a run from end to end, and what is killed in the middle of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e import jobs
from tests.e2e.agents import agents
from tests.e2e.world import Caller, make_project, serving

from hansa.core import codec
from hansa.simulation.engine import simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
JOB = f"{Path(jobs.__file__)}:job"


@pytest.fixture(scope="module")
def expected() -> str:
    """The SHA-256 of the model that the simulation trains."""
    return codec.digest(simulate(jobs.job, {"heart": jobs.data}, seed=7).model)


def hash_of(caller: Caller, run: str) -> str:
    import hashlib

    return hashlib.sha256(caller.file(run, "model.safetensors")).hexdigest()


@pytest.mark.parametrize("sandbox", ["basic", "strict", "off"])
def test_a_run_over_real_sites_gives_the_bits_of_the_simulation(tmp_path: Path, expected: str, sandbox: str) -> None:
    names = NAMES
    folder = make_project(tmp_path / "office", names)
    with serving(folder), agents(folder / "kits", names, sandbox=sandbox) as sites:
        lea = Caller.of(folder / "kits" / "lea")
        run = lea.submit(JOB, seed=7, sites=names, min_sites=len(names))["run"]
        shown = lea.ended(run)
        assert shown["state"] == "completed", (shown, sites[names[0]].log.read_text())
        assert hash_of(lea, run) == expected
        lea.client.close()
