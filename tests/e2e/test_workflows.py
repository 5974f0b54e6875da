"""Cyclic transfer and cross-site evaluation over real sites: the simulation's bytes, kills on the way, a site that says no."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import flow_jobs, jobs
from tests.e2e.agents import SITE_TOML, agents, furnish
from tests.e2e.world import Caller, make_project, serving

from hansa.data.federated import FederatedRows
from hansa.simulation.engine import simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]
SLOW = """
import time

from hansa.data import datasets, partition

DATA = partition.column(datasets.heart(), by="site", split=(0.6, 0.15, 0.25))


def load(slot):
    time.sleep(0.3)  # a worker that is started again reads for a while
    return DATA.load(slot)
"""
FILES = ("model.safetensors", "best.safetensors", "matrix.json")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the simulation, on sites of the same names."""
    out = tmp_path_factory.mktemp("simulated") / "run"
    simulate(flow_jobs.job, {"heart": FederatedRows(NAMES, jobs.data.load)}, seed=7, out=out)
    return {name: (out / name).read_bytes() for name in FILES}


def test_a_model_that_goes_round_and_the_matrix_of_all_models_survive_kills_and_a_site_keeps_its_own_model_if_it_says_so(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder = make_project(tmp_path / "office", NAMES)
    giving = SITE_TOML + "local_models = true\n"
    with serving(folder) as server, agents(folder / "kits", NAMES, toml=giving, shards=SLOW) as sites:
        lea = Caller.of(folder / "kits" / "lea")
        run = lea.submit(f"{Path(flow_jobs.__file__)}:job", seed=7, sites=NAMES, min_sites=4)["run"]
        hop = lea.wait(run, lambda event: event["kind"] == "task.opened" and event["step"] == 3)[-1]
        server.kill()  # in the middle of the second hop: the run's process goes with it
        traveller = sites[NAMES[hop["slots"][0]]]
        traveller.kill()
        server.start()
        lea.token = ""
        traveller.start()
        lea.wait(run, lambda event: event["kind"] == "round" and event["record"].get("model") == "best")
        for pid in server.runs():
            os.kill(pid, signal.SIGKILL)  # among the models
        shown = lea.ended(run)
        assert shown["state"] == "completed", shown
        assert {name: lea.file(run, name) for name in FILES} == expected
        lines = lea.file(run, "metrics.jsonl").splitlines()
        assert [json.loads(line)["round"] for line in lines] == [*range(1, 9)]

        furnish(folder / "kits" / NAMES[2])  # a policy without local_models: closed
        again = lea.submit(f"{Path(flow_jobs.__file__)}:job", seed=7, sites=NAMES, min_sites=4)["run"]
        assert lea.ended(again)["state"] == "completed"
        closed, whole = json.loads(lea.file(again, "matrix.json")), json.loads(expected["matrix.json"])
        lea.client.close()
    kept = f"{NAMES[2]} (local)"
    (missing,) = closed["missing"]
    assert (missing["model"], missing["site"], missing["code"]) == (kept, None, "refused")
    assert missing["message"] == "this site's own model does not go to other sites [local_models]"
    assert closed["cells"] == {**whole["cells"], kept: {}}
    assert closed["sha256"] == without(whole["sha256"], kept)


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
