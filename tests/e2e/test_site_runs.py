"""Real agents, workers and a real server: a run from end to end, and what is killed in the middle of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import jobs
from tests.e2e.agents import SHARDS, SITE_TOML, Agent, agents
from tests.e2e.world import Caller, Server, make_project, serving

from hansa import codec
from hansa.core.job import Job
from hansa.provision.changes import revoke
from hansa.references import load_reference
from hansa.simulation.engine import simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
SLOW = """
import time
from pathlib import Path
""" + SHARDS.replace(
    "    return DATA",
    "    Path(__file__).with_name('reading').touch()\n    time.sleep(1.5)  # data that takes a while to read\n    return DATA",
)
JOB = f"{Path(jobs.__file__)}:job"


@pytest.fixture(scope="module")
def expected() -> str:
    """The SHA-256 of the model that the simulation trains."""
    return codec.digest(simulate(jobs.job, {"heart": jobs.data}, seed=7).model)


def hash_of(caller: Caller, run: str) -> str:
    return hashlib.sha256(caller.file(run, "model.safetensors")).hexdigest()


@pytest.mark.parametrize("sandbox", ["basic", "strict", "off"])
def test_a_run_over_real_sites_gives_the_bits_of_the_simulation(tmp_path: Path, expected: str, sandbox: str) -> None:
    folder = make_project(tmp_path / "office", NAMES)
    with serving(folder), agents(folder / "kits", NAMES, sandbox=sandbox) as sites:
        lea = Caller.of(folder / "kits" / "lea")
        run = lea.submit(JOB, seed=7, sites=NAMES, min_sites=len(NAMES))["run"]
        shown = lea.ended(run)
        assert shown["state"] == "completed", (shown, sites[NAMES[0]].log.read_text())
        assert hash_of(lea, run) == expected
        lea.client.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "office", NAMES)


@contextmanager
def submitted(folder: Path, reference: str = JOB, **how: Any) -> Iterator[tuple[Caller, str, dict[str, Agent], Server]]:
    """A run that has just been submitted to a server and four agents."""
    with serving(folder) as server, agents(folder / "kits", NAMES, **how) as sites:
        lea = Caller.of(folder / "kits" / "lea")
        try:
            yield lea, lea.submit(reference, seed=7, sites=NAMES, min_sites=len(NAMES))["run"], sites, server
        finally:
            lea.client.close()


def results_of(caller: Caller, run: str) -> list[tuple[int, int]]:
    """(step, slot) of every result that was counted."""
    events = caller.get(f"/api/runs/{run}/events?after=0")["events"]
    return [(event["step"], event["slot"]) for event in events if event["kind"] == "result"]


def until(seen: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for something that only the outside can see."""
    deadline = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def unsent(agent: Agent) -> int:
    """How many results of tasks stand in the agent's outbox that no server has acknowledged."""
    with closing(sqlite3.connect(f"file:{agent.kit}/state/outbox.sqlite?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM results WHERE sent = 0 AND seq > 0").fetchone()[0])


def test_an_agent_that_is_killed_between_its_outbox_and_the_servers_answer_sends_the_result_once_more(
    project: Path, expected: str
) -> None:
    with submitted(project, shards=SLOW) as (lea, run, sites, server):
        victim = sites[NAMES[1]]
        until((victim.kit / "reading").exists, "the worker is at its first task")
        server.kill()
        until(lambda: unsent(victim) == 1, "the result is in the outbox")
        victim.kill()
        until(lambda: not victim.workers(), "the workers end with their agent")
        server.start()
        lea.token = ""
        victim.start()
        assert lea.ended(run)["state"] == "completed"
        counted = results_of(lea, run)
        assert len(counted) == len(set(counted))
        assert hash_of(lea, run) == expected
        assert "worker.died" not in victim.log.read_text()


def test_a_worker_that_is_killed_in_the_middle_is_started_again_and_the_bits_are_equal(project: Path, expected: str) -> None:
    with submitted(project, shards=SLOW) as (lea, run, sites, _):
        victim = sites[NAMES[2]]
        lea.wait(run, lambda event: event["kind"] == "task.started" and event["site"] == NAMES[2])
        for died in (1, 2):
            until(lambda: bool(leaders(victim)), "a worker")
            os.kill(leaders(victim)[0], signal.SIGKILL)
            until(lambda died=died: victim.log.read_text().count("worker.died") == died, "its death is seen")  # type: ignore[misc]
        assert lea.ended(run)["state"] == "completed"
        assert hash_of(lea, run) == expected
        until(lambda: not any(site.workers() for site in sites.values()), "no worker is left when the run has ended")
        until(lambda: not list((victim.kit / "state" / "runs").iterdir()), "nor a file of it")
        models = victim.kit / "state" / "models" / run
        assert sorted(path.name for path in models.iterdir()) == ["best.safetensors", "final.safetensors"]
        assert hashlib.sha256((models / "final.safetensors").read_bytes()).hexdigest() == expected


def leaders(agent: Agent) -> list[int]:
    """The workers themselves, without what they have left to watch over them."""
    return [pid for pid in agent.workers() if os.getpgid(pid) == pid]


def test_a_server_that_is_killed_is_found_again_by_the_agents(project: Path, expected: str) -> None:
    toml = SITE_TOML + 'models = "trained"\n'
    with submitted(project, toml=toml) as (lea, run, sites, server):
        lea.wait(run, lambda event: event["kind"] == "task.closed")
        server.kill()
        server.start()
        lea.token = ""
        assert lea.ended(run)["state"] == "completed"
        counted = results_of(lea, run)
        assert len(counted) == len(set(counted))
        assert hash_of(lea, run) == expected
        site = sites[NAMES[0]]
        model = site.kit / "trained" / run / "final.safetensors"
        until(model.exists, "the models come where the site wants them")
        site.stop()
        shutil.rmtree(model.parent)
        (site.kit / "state" / "seen.json").unlink()  # a site that has not heard of the run's end
        server.kill()
        server.start()
        site.start()
        until(model.exists, "a server that was started again tells it still")
        assert hashlib.sha256(model.read_bytes()).hexdigest() == expected


def test_a_revoked_site_ends_by_itself_within_ten_seconds(project: Path) -> None:
    with serving(project), agents(project / "kits", NAMES[:1]) as sites:
        agent = sites[NAMES[0]]
        revoke(project, name=NAMES[0], now=time.time())
        begun = time.monotonic()
        assert agent.ended() == 3
        assert time.monotonic() - begun < 10.0
        assert "was revoked" in agent.log.read_text()


def test_a_site_without_settings_or_with_wrong_ones_is_closed(project: Path) -> None:
    kit = project / "kits" / NAMES[0]
    (kit / "site.toml").unlink(missing_ok=True)
    agent = Agent(kit).start(ready=False)
    assert agent.ended() == 2
    (kit / "site.toml").write_text('[policy]\nauthor = "any"\n')
    agent.start(ready=False)
    assert agent.ended() == 2
    assert "authors" in agent.log.read_text().splitlines()[-1]


def test_two_agents_of_one_site_do_not_share_a_folder(project: Path) -> None:
    with serving(project), agents(project / "kits", NAMES[:1]) as sites:
        second = Agent(sites[NAMES[0]].kit).start(ready=False)
        assert second.ended() == 5
        assert "another process uses this store" in second.log.read_text()


def test_of_two_agents_with_one_identity_the_older_one_is_told_and_nothing_is_lost(
    project: Path, expected: str, tmp_path: Path
) -> None:
    with submitted(project, shards=SLOW) as (lea, run, sites, _):
        older = sites[NAMES[1]]
        until((older.kit / "reading").exists, "the worker is at its first task")
        copy = Agent(shutil.copytree(older.kit, tmp_path / "copy", ignore=shutil.ignore_patterns("agent.log")))
        copy.start()
        begun = time.monotonic()
        try:
            assert older.ended() == 3
            assert time.monotonic() - begun < 5.0
            assert "another agent with this site's identity has started" in older.log.read_text()
            assert lea.ended(run)["state"] == "completed"
        finally:
            copy.stop()
        counted = results_of(lea, run)
        assert len(counted) == len(set(counted))
        assert hash_of(lea, run) == expected
        aud = Caller.of(project / "kits" / "aud")
        kinds = [event["kind"] for event in aud.get("/api/audit?stream=project")["events"]]
        aud.client.close()
    assert "site.two_agents" in kinds


def test_a_site_refuses_what_its_policy_does_not_name_and_the_author_reads_why(project: Path) -> None:
    toml = SITE_TOML.replace('authors = "any"', 'authors = ["max"]')
    with submitted(project, toml=toml) as (lea, run, _, _server):
        shown = lea.ended(run)
    assert shown["state"] == "refused"
    assert all("this site runs no jobs of lea (north)" in reason for reason in shown["refused"].values())


def test_a_server_that_was_restored_from_an_older_copy_stops_the_agent_with_instructions(project: Path) -> None:
    data = project / "kits" / "server" / "data"
    with serving(project) as server, agents(project / "kits", NAMES[:1]) as sites:
        agent = sites[NAMES[0]]
        server.stop()
        shutil.copytree(data, project / "copy")
        for _ in range(2):
            server.start()
            server.stop()
        server.start()
        until(lambda: agent.log.read_text().count("site.ready") >= 2, "the agent greets the new start")
        server.stop()
        shutil.rmtree(data)
        shutil.copytree(project / "copy", data)
        server.start()
        assert agent.ended() == 5
        assert "restored from an older copy" in agent.log.read_text()


SCAFFOLD = """
from dataclasses import replace

import numpy as np

from hansa.adapters.numpy import logistic
from hansa.core import trees
from hansa.core.job import Job
from hansa.data import datasets
from hansa.learning.scaffold import scaffold


class Spoil:
    # In round 2 the second site sends what the gate refuses, with a new control variate in its memory.

    def __call__(self, shareable, ctx):
        if (ctx.round, ctx.slot) != (2, 1) or "delta" not in shareable.body:
            return shareable
        return replace(shareable, body={**shareable.body, "delta": trees.map(lambda leaf: leaf * np.nan, shareable.body["delta"])})

    def __repr__(self):
        return "Spoil"


learner = logistic(lr=0.1, epochs=1, batch=32, l2=1e-3).bound_to(datasets.heart(), classes=2)
job = Job("controls", scaffold(learner, rounds=4, standardise=True), data="heart", filters=[Spoil()])
"""


def test_what_sites_remember_survives_their_agents_and_gives_the_bits_of_the_simulation(project: Path, tmp_path: Path) -> None:
    """Each site's control variate is a memory: read by the next round's task, kept with its reply if that counts."""
    (tmp_path / "controls.py").write_text(SCAFFOLD)
    job = load_reference(f"{tmp_path}/controls.py:job")
    assert isinstance(job, Job)
    simulated = codec.digest(simulate(job, {"heart": jobs.data}, seed=7).model)
    with submitted(project, f"{tmp_path}/controls.py:job") as (lea, run, sites, _):
        lea.wait(run, lambda event: event["kind"] == "round")
        victim = sites[NAMES[3]]
        victim.kill()
        victim.start()
        assert lea.ended(run)["state"] == "completed"
        assert hash_of(lea, run) == simulated
        assert "result.not_counted" in sites[NAMES[1]].log.read_text()
