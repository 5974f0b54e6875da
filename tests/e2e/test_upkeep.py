"""What an operator does with a server's data: a backup that is restored, and a disk that is nearly full."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e import jobs
from tests.e2e.agents import agents
from tests.e2e.world import Caller, free_port, make_project, serving

from hansa.provision.project import ServerSection

NAMES = ["north", "south"]
REFERENCE = f"{Path(jobs.__file__)}:job"


def test_a_server_that_was_stopped_copied_and_restored_goes_on_with_its_job(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "fed", NAMES)
    data, copy = folder / "kits" / "server" / "data", tmp_path / "copy"
    lea = Caller.of(folder / "kits" / "lea")
    with serving(folder) as server, agents(folder / "kits", NAMES):
        run = lea.submit(REFERENCE)["run"]
        lea.wait(run, lambda event: event["kind"] == "round")
        server.stop()
        shutil.copytree(data, copy)
        shutil.rmtree(data)  # the disk is lost
        shutil.copytree(copy, data)
        server.start()
        lea.token = ""
        shown = lea.ended(run)
        assert (shown["state"], shown["round"]) == ("completed", 3)
        again = lea.submit(REFERENCE, seed=shown["seed"])["run"]  # undisturbed
        assert lea.ended(again)["state"] == "completed"
        assert lea.file(run, "model.safetensors") == lea.file(again, "model.safetensors")
        assert {event["kind"] for event in lea.get(f"/api/runs/{run}/events")["events"]} >= {"run.submitted", "run.ended"}
        verified = hansa("audit", "verify", "--kit", folder / "kits" / "ada", "--json")
        assert verified.returncode == 0, verified.stdout
    lea.client.close()


def hansa(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hansa.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_server_with_too_little_free_disk_takes_no_new_work_and_shows_what_there_is(tmp_path: Path) -> None:
    section = ServerSection(host="127.0.0.1", port=free_port(), listen="127.0.0.1", low_water=1.0)  # no disk is as empty as that
    folder = make_project(tmp_path / "fed", NAMES, server=section)
    kit = folder / "kits" / "lea"
    with serving(folder):
        refused = hansa("job", "submit", REFERENCE, "--kit", kit, "--json")
        assert refused.returncode == 5, refused.stderr
        assert "disk is nearly full" in json.loads(refused.stdout)["message"]
        listed = hansa("job", "list", "--kit", kit, "--json")
        assert (listed.returncode, json.loads(listed.stdout)) == (0, {"runs": []})
        checked = hansa("preflight", folder / "kits" / "server", "--json")
        disk = next(check for check in json.loads(checked.stdout)["checks"] if check["name"] == "disk")
        assert (disk["ok"], "to stay free" in disk["detail"]) == (False, True)
