"""Training scripts with the four lines, as people run them: simulated, in a federation, killed in the middle of a task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.agents import SITE_TOML, Agent, agents
from tests.e2e.test_site_runs import hash_of, until
from tests.e2e.world import Caller, make_project, serving

from hansa import codec
from hansa.core.job import Job
from hansa.data.federated import paths
from hansa.references import load_reference
from hansa.simulation.engine import simulate

EXAMPLES = Path(__file__).parents[2] / "examples" / "script"
SITES = ["cleveland", "hungarian"]
TRAIN = """
import time
from pathlib import Path
import numpy as np
import hansa.client as hc

rows = np.load(hc.data())                                   # a path: the site's own file
while task := hc.receive():
    stalls = Path.cwd().parent / f"stalled-{task.round}"    # the worker's folder: all that a strict one writes in
    if task.config.get("stall") == task.site and task.round > 1 and not stalls.exists():
        stalls.touch()
        time.sleep(600)
    if task.config.get("fail") == task.site:
        raise KeyError("age")
    print("trains", task.site, task.round)
    order = np.random.permutation(len(rows))
    hc.send({"w": task.params["w"] * 0.5 + rows[order[: len(rows) // 2]].mean(0)}, {"loss": 1 / task.round}, examples=len(rows))
"""
JOB = """
import numpy as np
from hansa import Job
from hansa.adapters.script import ScriptLearner
from hansa.learning import fedavg

def made(rounds=3, **config):
    learner = ScriptLearner("train.py", init={"w": np.zeros(3)}, config=config)
    return Job("script", fedavg(learner, rounds=rounds, quorum=1), data="rows")

job, stalling, failing = made(), made(stall="hungarian"), made(rounds=1, fail="hungarian")
"""


def hansa(*arguments: str, cwd: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "hansa.cli", *arguments, "--json"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


TWO = "from hansa.data import datasets, partition\ndata = partition.iid(datasets.digits(), sites=2, seed=0)\n"


def test_the_torch_example_learns_in_a_simulation(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    job = f"{EXAMPLES / 'job.py'}:job"
    said = hansa("run", job, "--data", "two.py:data", "--set", "algorithm.rounds=2", "--out", "run", cwd=tmp_path)
    assert said["global"]["accuracy"] > 0.5
    assert {"accuracy", "loss", "train_loss"} <= said["global"].keys()


def test_the_sklearn_example_gives_the_same_model_in_a_simulation_and_in_a_federation(tmp_path: Path) -> None:
    job = f"{EXAMPLES / 'job_sklearn.py'}:job"
    (tmp_path / "two.py").write_text(TWO)
    simulated = hansa("run", job, "--data", "two.py:data", "--out", "run", cwd=tmp_path)
    deployed = hansa("up", "--dir", "fed", "--job", job, "--data", "two.py:data", cwd=tmp_path)
    assert deployed["status"] == "completed"
    assert deployed["model_sha256"] == simulated["model_sha256"]
    assert deployed["global"]["train_accuracy"] > 0.8


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The job's file, with the script beside it; each site's rows in a file of its own."""
    import numpy as np

    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "job.py").write_text(JOB)
    for k, site in enumerate(SITES):
        np.save(tmp_path / f"{site}.npy", np.random.default_rng(k).random((10 * (k + 1), 3)))
    return f"{tmp_path / 'job.py'}:"


def scripts(agent: Agent) -> list[int]:
    """The processes of scripts of this site: they begin in a folder of the run's own, below the kit."""
    place, found = str(agent.kit.absolute()), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                own = b"client/start.py" in (entry / "cmdline").read_bytes()
                if own and str((entry / "cwd").readlink()).startswith(place):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def stalled(agent: Agent, number: int) -> bool:
    return bool(list(agent.kit.glob(f"state/runs/*/work/stalled-{number}")))


def test_a_script_in_a_strict_sandbox_is_killed_with_and_without_its_agent_and_the_model_is_the_simulations(
    script: str, tmp_path: Path
) -> None:
    job = load_reference(f"{script}job")
    assert isinstance(job, Job)
    data = paths({site: tmp_path / f"{site}.npy" for site in SITES})
    expected = codec.digest(simulate(job, data, seed=7).model)
    assert codec.digest(simulate(job, data, seed=7, workers=2).model) == expected
    folder = make_project(tmp_path / "office", SITES)
    toml = SITE_TOML.replace('heart = "shards.py:load"', 'rows = "./rows.npy"')
    for site in SITES:
        (folder / "kits" / site / "rows.npy").write_bytes((tmp_path / f"{site}.npy").read_bytes())
    with serving(folder), agents(folder / "kits", SITES, sandbox="strict", toml=toml) as sites:
        lea, victim = Caller.of(folder / "kits" / "lea"), sites["hungarian"]
        run = lea.submit(f"{script}stalling", seed=7, sites=SITES, min_sites=2)["run"]
        until(lambda: stalled(victim, 2), "the script is in the middle of round 2")
        for pid in (pid for pid in scripts(victim) if os.getsid(pid) == pid):
            os.kill(pid, signal.SIGKILL)
        until(lambda: stalled(victim, 3), "it was started again, did round 2, and is in the middle of round 3")
        victim.kill()
        until(lambda: not scripts(victim), "the script ends with its agent")
        victim.start()
        shown = lea.ended(run)
        assert shown["state"] == "completed", (shown, victim.log.read_text())
        assert hash_of(lea, run) == expected
        assert "trains hungarian 3" in next(victim.kit.glob(f"state/logs/{run}.log")).read_text()
        until(lambda: not any(scripts(site) for site in sites.values()), "no script is left when the run has ended")

        failed = lea.submit(f"{script}failing", seed=7, sites=SITES, min_sites=2)["run"]
        assert lea.ended(failed)["state"] == "completed"  # with the other site alone
        refused = json.loads(lea.file(failed, "metrics.jsonl").splitlines()[0])["refused"]
        assert [(each["site"], each["message"]) for each in refused] == [("hungarian", "KeyError: 'age'")]
        assert 'raise KeyError("age")' in next(victim.kit.glob(f"state/logs/{failed}.log")).read_text()
        lea.client.close()
