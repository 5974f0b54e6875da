"""Approval by hand, by a person of the site: code waits, is read as a diff, is let in or refused; the author sees why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.agents import SITE_TOML, agents
from tests.e2e.world import make_project, serving

from hansa.admin.client import connect

NAME = "cleveland"
JOB = """
import numpy as np

import hansa as hs
from hansa.core.round import Policy
from hansa.core.task import Shareable, Task


class Counts(hs.Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        return Shareable({"n": np.array([1.0])})


def ask(federation):
    federation.report({"round": 1, "global": {"n": float(len(list(federation.task(Task("count", round=1), [0], Policy()))))}})


job = hs.Job("counts", ask, data="heart", executor=Counts())
"""


def hansa(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "hansa.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_code_waits_for_a_person_who_reads_what_is_new_and_lets_it_in_or_refuses_it(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "office", [NAME])
    kit, job = folder / "kits" / NAME, tmp_path / "counts.py"
    toml = SITE_TOML.replace('code = "any"', 'approval = "by_hand"')
    with serving(folder), agents(folder / "kits", [NAME], toml=toml), connect(folder / "kits" / "lea") as lea:
        for change, verdict in (("", "approve"), ("# 4711\\n", "reject")):
            job.write_text(JOB + change)
            run = lea.submit(f"{job}:job", sites=[NAME])
            waiting: list[dict[str, str]] = []
            while not waiting:  # each look is a process
                waiting = json.loads(hansa("site", "approvals", str(kit), "--json")[1])["waiting"]
            assert [(each["job"], each["author"], each["run"]) for each in waiting] == [("counts", "lea", run.id)]
            if verdict == "approve":
                assert hansa("site", "approve", str(kit))[0] != 0  # nobody has said yes
                code, _, shown = hansa("site", "approve", str(kit), "--yes")
                assert (code, "+class Counts(hs.Executor):" in shown) == (0, True)
                assert run.wait().state == "completed"
            else:
                code, _, _ = hansa("site", "reject", str(kit), waiting[0]["code"], "--reason", "what is 4711?")
                assert code == 0
                assert run.wait().state == "refused"
                assert "what is 4711?" in run.status().refused[NAME]
        assert lea.submit(f"{job}:job", sites=[NAME]).wait().state == "refused"  # what was said once holds
