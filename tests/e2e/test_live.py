"""What sites tell while they work, over real agents and a real server: what leaves, who sees it, and what stands still."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.agents import SHARDS, SITE_TOML, agents
from tests.e2e.world import Caller, free_port, make_project, serving

from hansa.admin.client import connect
from hansa.provision.project import ServerSection

NAMES = ["cleveland", "hungarian"]
JOB = """
import logging
import os
import threading
import time

import numpy as np

import hansa as hs
from hansa.core.round import Policy
from hansa.core.task import Shareable, Task

LOG = logging.getLogger("job")


class Talks(hs.Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        if task_name == "stand still" and fl_ctx.slot == 1:
            while not abort_signal.triggered:  # neither a step nor a byte
                time.sleep(0.05)
            LOG.warning("asked to stop")
        if task_name == "work slowly":
            for _ in range(4):
                abort_signal.check()
                time.sleep(0.7)
        for step in (1, 2):
            fl_ctx.track(step=step, of=2, loss=1.0 / step)
        LOG.info("rows of %s\\nERROR forged", fl_ctx.site)
        print("printed by", fl_ctx.site)
        os.system("echo by a child")
        return Shareable({"n": np.array([1.0])})


def ask(federation):
    for number, name in enumerate(("work slowly", "stand still"), start=1):
        replies = federation.task(Task(name, round=number), [0, 1], Policy())
        answered = [reply.site for reply in replies]
        federation.report({"round": number, "global": {"answers": len(answered)}, "lost": [reply.site for reply in replies.lost]})


job = hs.Job("talk", ask, data="heart", executor=Talks(), progress_s=2.0)
"""
OPEN = SITE_TOML + 'kinds = ["arrays", "metrics", "logs"]\n'


def hansa(*arguments: str) -> str:
    command = [sys.executable, "-m", "hansa.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_sites_tell_is_seen_while_they_work_as_far_as_their_policies_let_it_and_what_stands_still_is_given_up(
    tmp_path: Path,
) -> None:
    port = free_port()
    section = ServerSection(host="127.0.0.1", port=free_port(), listen="127.0.0.1", metrics_port=port)
    folder = make_project(tmp_path / "office", NAMES, server=section)
    (tmp_path / "talk.py").write_text(JOB)
    with (
        serving(folder),
        agents(folder / "kits", NAMES[:1], toml=OPEN, shards=SHARDS),
        agents(folder / "kits", NAMES[1:]) as closed,
        connect(folder / "kits" / "lea") as lea,
        connect(folder / "kits" / "max") as max_,
    ):
        run = lea.submit(f"{tmp_path}/talk.py:job", sites=NAMES, min_sites=2)
        seen: list[Any] = []
        numbers = ""
        for event in run.events():
            seen.append(event)
            if event.kind == "round" and not numbers:
                numbers = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
                for_all = metrics(folder / "kits" / "cleveland")
        kinds = [event.kind for event in seen]
        assert kinds.index("metric") < kinds.index("round")
        assert kinds[-1] == "run.ended"
        told = [(event.data["site"], event.data["step"], event.data["values"]) for event in seen if event.kind == "metric"]
        assert told.count(("cleveland", 2, {"loss": 0.5})) == 2
        assert ("hungarian", 1, {"loss": 1.0}) in told
        logs = [(event.data["site"], event.data["text"]) for event in seen if event.kind == "log"]
        assert {site for site, _ in logs} == {"cleveland"}  # the other site's policy keeps its lines
        assert {"rows of cleveland\nERROR forged", "printed by cleveland", "by a child"} <= {text for _, text in logs}
        assert "job rows of cleveland\\nERROR forged" in "\n".join(map(str, seen))
        assert "asked to stop" in next((closed["hungarian"].kit / "state" / "logs").glob("*.log")).read_text()
        [lost] = [event.data for event in seen if event.kind == "task.lost"]
        assert (lost["site"], lost["reason"]) == ("hungarian", "no progress for 2 s")
        assert [event.record["lost"] for event in seen if event.kind == "round"] == [[], ["hungarian"]]
        assert "hansa_sites_online 2.0" in for_all
        assert not any(name in for_all for name in ("talk", "cleveland", "hungarian", run.id))  # a site is not to see the others
        assert 'hansa_run_round{job="talk"' in numbers
        assert f'hansa_run_site_metric{{metric="loss",run="{run.id}",site="cleveland"}} 0.5' in numbers
        assert {event.kind for event in max_.run(run.id).events()} >= {"metric"}  # a colleague sees numbers, and no lines
        assert "log" not in {event.kind for event in max_.run(run.id).events()}
        home = run.download(tmp_path / "home")
        lines = [json.loads(line) for line in (home / "live.jsonl").read_text().splitlines()]
        assert {line["kind"] for line in lines} == {"metric", "log"}
        shown = hansa("job", "logs", run.id, "--site", "cleveland", "--follow", "--kit", str(folder / "kits" / "lea"))
        assert "work slowly round 1 step 2/2  loss=0.5" in shown
        assert "hungarian" not in shown


def metrics(kit: Path) -> str:
    with Caller.of(kit).client as client:
        return client.get("/metrics").text


def test_a_simulation_writes_what_is_tracked_in_the_order_of_the_sites_and_the_same_in_each_run(tmp_path: Path) -> None:
    from hansa.core.job import Job
    from hansa.data import datasets, partition
    from hansa.references import load_reference
    from hansa.simulation.engine import simulate

    (tmp_path / "talk.py").write_text(JOB.replace('"stand still" and', '"nothing" and').replace("range(4)", "range(0)"))
    job = load_reference(f"{tmp_path}/talk.py:job")
    assert isinstance(job, Job)
    data = partition.column(datasets.heart(), by="site")
    found = []
    for name, workers in (("one", 1), ("two", 2)):
        simulate(job, data, out=tmp_path / name, workers=workers)
        found.append((tmp_path / name / "live.jsonl").read_text())
    assert found[0] == found[1]
    first = json.loads(found[0].splitlines()[0])
    assert first == {
        "site": "Cleveland", "kind": "metric", "task": "work slowly", "round": 1, "values": {"loss": 1.0}, "step": 1, "of": 2,
    }  # fmt: skip
    assert [json.loads(line)["site"] for line in found[0].splitlines()[:4]] == ["Cleveland"] * 2 + ["Hungary"] * 2
