"""What a site offers and demands, over real agents: environments, cores, filters; what it lacks, it says to the author."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.agents import SITE_TOML, agents
from tests.e2e.world import make_project, serving
from tests.unit.runtime.client.test_environments import make_environment

from hansa.admin.client import connect

NAMES = ["cleveland", "hungarian"]
JOB = """
import os
import sys

import numpy as np

import hansa as hs
from hansa.core.round import Policy
from hansa.core.task import Shareable, Task


class Tells(hs.Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        facts = {"cores": len(os.sched_getaffinity(0)), "own": float(sys.prefix.endswith("special")), "hidden": float(gpus == "")}
        return Shareable({"secret": np.array([30.0, 40.0])}, facts)


def ask(federation):
    for reply in federation.task(Task("tell", round=1), [0, 1], Policy()):
        told = {"norm": float(np.linalg.norm(reply.shareable.body["secret"])), **reply.shareable.metrics}
        federation.report({"round": 1, "global": told})


job = hs.Job("tells", ask, data="heart", executor=Tells(), environment="special")
greedy = hs.Job("greedy", ask, data="heart", executor=Tells(), resources=hs.Resources(gpus=2))
"""
GENEROUS = """
[environments]
special = "special"

[resources]
cores = 1
"""
DEMANDS = 'filters = [{{kind = "clip", norm = 1.0}}]\n'


def test_a_run_is_done_by_the_sites_environment_on_its_cores_behind_its_filters_and_refusals_name_what_is_missing(
    tmp_path: Path,
) -> None:
    folder = make_project(tmp_path / "office", NAMES)
    make_environment(folder / "kits" / NAMES[0] / "special")
    (tmp_path / "tells.py").write_text(JOB)
    toml = SITE_TOML.replace("[policy]", GENEROUS + "[policy]") + DEMANDS
    with (
        serving(folder),
        agents(folder / "kits", NAMES[:1], toml=toml),
        agents(folder / "kits", NAMES[1:]),
        connect(folder / "kits" / "lea") as lea,
    ):
        run = lea.submit(f"{tmp_path}/tells.py:job", sites=NAMES, min_sites=1)
        [record] = [event.record for event in run.events() if event.kind == "round"]
        assert record["global"] == {"norm": pytest.approx(1.0), "cores": 1.0, "own": 1.0, "hidden": 1.0}
        assert run.status().refused == {"hungarian": "this site has no environment 'special' [environment]"}
        greedy = lea.submit(f"{tmp_path}/tells.py:greedy", sites=NAMES, min_sites=1)
        assert greedy.wait().state == "refused"
        assert "gives at most 0 GPUs to a run; this one asks for 2" in str(greedy.status().refused)
