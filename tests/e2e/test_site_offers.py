"""What a site offers and demands, over real agents: environments, cores, filters; what it lacks, it says to the author."""

from __future__ import annotations

import os
import subprocess
import sys
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


SHARES = """
import os
import time
from pathlib import Path

import hansa as hs
from hansa.core.round import Policy
from hansa.core.task import Shareable, Task


class Meets(hs.Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        place = Path("PLACE")
        (place / fl_ctx.run).touch()
        while len(list(place.iterdir())) < 2:  # until the other run is at work as well
            abort_signal.check()
            time.sleep(0.02)
        names = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")}
        [device] = set(names.values())
        return Shareable({}, {"gpu": float(device), "cores": float(sum(1 << core for core in os.sched_getaffinity(0)))})


def ask(federation):
    for reply in federation.task(Task("meet", round=1), [0], Policy()):
        federation.report({"round": 1, "global": reply.shareable.metrics})


job = hs.Job("meets", ask, data="heart", executor=Meets(), resources=hs.Resources(gpus=1, cores=1))
"""


def test_two_runs_at_once_have_a_gpu_each_of_those_that_the_site_declares(tmp_path: Path) -> None:
    """Numbers are enough for that: no GPU need be there. The agent's own environment says which ones the site may give."""
    folder, place = make_project(tmp_path / "office", NAMES[:1]), tmp_path / "place"
    place.mkdir()
    (tmp_path / "shares.py").write_text(SHARES.replace("PLACE", str(place)))
    toml = SITE_TOML.replace("[policy]", "[resources]\ngpus = 2\ncores = 2\n[policy]")
    with (
        serving(folder),
        agents(folder / "kits", NAMES[:1], toml=toml, environment={"CUDA_VISIBLE_DEVICES": "3,5,7"}) as there,
        connect(folder / "kits" / "lea") as lea,
    ):
        assert (lea.site(NAMES[0]).gpus, lea.site(NAMES[0]).cores) == (2, 2)
        assert "min_cohort 1" in lea.site(NAMES[0]).demands
        runs = [lea.submit(f"{tmp_path}/shares.py:job", sites=NAMES[:1], min_sites=1) for _ in range(2)]
        told = [run.wait() for run in runs]
        assert [each.state for each in told] == ["completed", "completed"]
        assert sorted(each.metrics["gpu"] or 0.0 for each in told) == [3.0, 5.0]
        if (os.cpu_count() or 1) > 1:
            one, other = (int(each.metrics["cores"] or 0) for each in told)
            assert one & other == 0
        assert there[NAMES[0]].stop() == 0
        assert not lea.site(NAMES[0]).online  # at once: it has said so
        shown = subprocess.run(
            [sys.executable, "-m", "hansa.cli", "site", "show", NAMES[0], "--kit", str(folder / "kits" / "lea")],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        assert "offline" in shown
        assert "demands     min_cohort 1; leaves arrays, metrics, at most 4096 MB" in shown
