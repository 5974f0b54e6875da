"""Cyclic transfer and cross-site evaluation over real sites: the simulation's bytes, kills on the way, a site that says no."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import flow_jobs
from tests.e2e.agents import SITE_TOML, agents, furnish
from tests.e2e.test_up import hansa, up
from tests.e2e.world import Caller, make_project, serving

from hansa.admin.client import connect
from hansa.config.jobfile import read
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
    simulate(flow_jobs.job, {"heart": FederatedRows(NAMES, flow_jobs.SITES.load)}, seed=7, out=out)
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
        assert json.loads(lea.file(run, "matrix.json"))["missing"] == []
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


STATISTICS = """
[data]
source = "heart"
[algorithm]
name = "statistics"
classes = 2
"""
EVALUATE = """
[data]
source = "heart"
[learner]
kind = "numpy.logistic"
[algorithm]
name = "evaluate"
model = "home"
[metrics]
names = ["auc", "loss"]
"""


def test_by_commands_under_hansa_up_each_workflow_gives_the_files_of_the_simulation(tmp_path: Path) -> None:
    names = [f"site-{number}" for number in range(1, 5)]
    sites = FederatedRows(names, flow_jobs.SITES.load)
    reference, kit = str(Path(flow_jobs.__file__)), str(tmp_path / "fed" / "kits" / "admin")

    def said(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(hansa(*arguments, "--json"), capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def brought(job: str, out: str) -> Path:
        run = said("job", "submit", job, "--kit", kit, "--seed", "5", "--wait")["run"]
        said("job", "download", run, "--out", out, "--kit", kit)
        return tmp_path / out

    with up(tmp_path / "fed", "--data", f"{reference}:data"):
        home = brought(f"{reference}:job", "home")
        (tmp_path / "statistics.toml").write_text(STATISTICS)
        (tmp_path / "evaluate.toml").write_text(EVALUATE)
        together = brought(f"{reference}:composed", "together")
        described, evaluated = brought("statistics.toml", "described"), brought("evaluate.toml", "evaluated")
        with connect(kit) as session:
            gave = {run.job: session.run(run.run).result() for run in session.runs()[-2:]}
    simulate(flow_jobs.job, {"heart": sites}, seed=5, out=tmp_path / "simulated", workers=2)
    for name in FILES:
        assert (home / name).read_bytes() == (tmp_path / "simulated" / name).read_bytes()
    simulate(flow_jobs.composed, {"heart": sites}, seed=5, out=tmp_path / "composed", workers=2)
    for name in ("model.safetensors", "result.json"):
        assert (together / name).read_bytes() == (tmp_path / "composed" / name).read_bytes()
    told = [
        [json.loads(line).get("global") for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (together, tmp_path / "composed")
    ]
    assert told[0] == told[1]
    assert told[0][0]["aggregator/clipping/mean_value/aggregated_bits"] == 4 * 8 * (22 + 4 + 4 + 4 + 2 * (22 + 8 + 8))
    for folder, name in ((described, "result.json"), (evaluated, "matrix.json")):
        file = folder.name.replace("described", "statistics").replace("evaluated", "evaluate")
        simulate(read(tmp_path / f"{file}.toml").job(), sites, seed=5, out=tmp_path / file)
        assert (folder / name).read_bytes() == (tmp_path / file / name).read_bytes()
    assert (gave["statistics"].value, gave["statistics"].matrix) == (json.loads((described / "result.json").read_bytes()), None)
    assert (gave["evaluate"].value, gave["evaluate"].matrix) == (None, json.loads((evaluated / "matrix.json").read_bytes()))
    shown = said("runs", "show", "home", "--root", str(tmp_path))
    assert list(shown["matrix"]["cells"]["site-2 (local)"]) == names
    assert shown["matrix"]["cells"]["final"] == json.loads((evaluated / "matrix.json").read_bytes())["cells"]["model"]
    assert (home / "matrix.png").read_bytes().startswith(b"\x89PNG")
    assert said("runs", "show", "described", "--root", str(tmp_path))["result"]["rows"] == 920
