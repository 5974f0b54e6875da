"""Apps in the style of FLARE 2.0 on real sites: what is simulated, and the same again when processes are killed on the way."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from safetensors.numpy import load
from tests.e2e.agents import SITE_TOML, agents
from tests.e2e.flare_apps import APPS, GOLDEN, validated
from tests.e2e.test_up import hansa
from tests.e2e.world import Caller, make_project, serving

from hansa.compat.flare.job import Sites, job
from hansa.simulation.engine import simulate

NAMES = ["site-1", "site-2"]
TOML = SITE_TOML.replace("heart", "flare")
SHARDS = "def load():\n    return '/where/the/rows/are'\n"
FILES = ("model.safetensors", "result.json")


def test_apps_run_on_real_sites_as_they_are_simulated_and_go_on_after_kills(tmp_path: Path) -> None:
    simulate(job(validated(tmp_path / "quick" / "app")), Sites.of(2), out=tmp_path / "simulated")
    slow = validated(tmp_path / "slow" / "app", sleep_s=0.3)
    folder = make_project(tmp_path / "office", NAMES)
    with serving(folder) as server, agents(folder / "kits", NAMES, toml=TOML, shards=SHARDS) as sites:
        asked = [
            "job",
            "submit",
            "--flare",
            str(APPS / "hello-numpy-sag"),
            "--kit",
            str(folder / "kits" / "lea"),
            "--wait",
            "--json",
        ]
        told = subprocess.run(hansa(*asked), capture_output=True, text=True, timeout=60, check=True)
        lea = Caller.of(folder / "kits" / "lea")
        hello = json.loads(told.stdout)["run"]
        assert load(lea.file(hello, "model.safetensors"))["numpy_key"].tolist() == GOLDEN
        lines = [json.loads(line) for line in lea.file(hello, "metrics.jsonl").splitlines()]
        assert [sorted(line["sites"]) for line in lines] == [NAMES] * 3

        run = lea.submit(str(slow / "config" / "config_fed_server.json"), seed=0, sites=NAMES, min_sites=2)["run"]
        lea.wait(run, lambda event: event["kind"] == "round" and event["record"]["round"] == 1)
        server.kill()  # with the run's process; its workflow asks again, and is told what had come
        server.start()
        lea.token = ""
        shown = lea.ended(run)
        assert shown["state"] == "completed", shown
        assert {name: lea.file(run, name) for name in FILES} == {
            name: (tmp_path / "simulated" / name).read_bytes() for name in FILES
        }
        lea.client.close()
    assert len(sites) == 2
