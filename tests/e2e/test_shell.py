"""`hansa shell` as a person types it: the session of the slides, line by line in a terminal, against a real federation."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.e2e.test_up import Terminal, hansa, up

from hansa.admin.client import connect
from hansa.compat.flare.fuel.hci.client.api_status import APIStatus
from hansa.compat.flare.fuel.hci.client.fl_admin_api import FLAdminAPI
from hansa.compat.flare.fuel.hci.client.fl_admin_api_constants import FLDetailKey
from hansa.compat.flare.fuel.hci.client.fl_admin_api_runner import FLAdminAPIRunner
from hansa.compat.flare.fuel.hci.client.fl_admin_api_spec import TargetType

APPS = Path(__file__).parents[2] / "examples" / "flare"
HELLO = "hello-numpy-sag"
DATA = "class D:\n    sites = ['site-1', 'site-2']\n    def load(self, slot):\n        return None\n\n\ndata = D()\n"


class Session:
    """A session at a terminal; what a line answers is what is shown until `Done`."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    def types(self, line: str) -> str:
        self.terminal.shown = ""
        self.terminal.press(line.encode() + b"\r")
        shown = self.terminal.until("Done [", within_s=30.0)
        self.terminal.shown = shown.rpartition("Done [")[2]
        self.terminal.until("\x1b[?25h", within_s=30.0)  # the prompt is there, and the cursor with it
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_the_session_of_the_slides_runs_an_app_and_a_program_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prompt_toolkit", reason="the extra `shell` is not installed")
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")  # nobody answers where the cursor is
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "rows.py").write_text(DATA)
    kit = tmp_path / "fed" / "kits" / "admin"
    with up(tmp_path / "fed", "--sites", "2", "--data", f"flare={tmp_path / 'rows.py'}:data"):
        terminal = Terminal(*hansa("shell", "--kit", str(kit), "--uploads", str(APPS)))
        try:
            _slides(Session(terminal), kit, tmp_path)
            terminal.press(b"bye\r")
            assert terminal.process.wait(timeout=10) == 0
        finally:
            terminal.close()
        remembered = tmp_path / "state" / "hansa" / "shell_history"
        assert "+start server" in remembered.read_text()
        assert remembered.stat().st_mode & 0o777 == 0o600
        _script(kit)
        _program(kit, tmp_path)


def _slides(session: Session, kit: Path, folder: Path) -> None:
    session.terminal.until('Type ? to list commands; type "? cmdName" to show usage of a command.')
    assert "deploy APP server | client [SITE ...] | all" in session.types("? deploy")
    shown = session.types("check_status server")
    assert "FL run number has not been set." in shown
    assert "training not started" in shown
    with connect(kit) as door:
        for site in door.sites():
            assert re.search(rf"\| {site.site} +\| {re.escape(site.key[:16])} +\| online +\|", shown), shown
            assert len(site.key) == 43  # SHA-256 in base64url
    assert "Please set a run number." in session.types("start server")
    assert "run number must be > 0." in session.types("set_run_number 0")
    assert "Set the FL run number to 7" in session.types("set_run_number 7")
    assert "does not exist. Please upload it first" in session.types(f"deploy {HELLO} server")
    assert "read and signed" in session.types("upload_fo\t hello\t")  # the keys of completion
    assert "server has been deployed." in session.types(f"deploy {HELLO} server")
    assert "instance site-2 : hello-numpy-sag deployed." in session.types(f"deploy {HELLO} client")
    run = re.search(r"run: (\S+) with site-1, site-2", session.types("start server"))
    assert run is not None
    assert "instance site-1 : training" in session.types("start client")
    with connect(kit) as door:
        ended = door.run(run[1]).wait()
        assert (ended.state, ended.label, ended.sites) == ("completed", "run_7", ["site-1", "site-2"])
    shown = session.types("check_status server")
    assert "training stopped (completed)" in shown
    assert "submitted models for current round: 2" in shown
    assert re.search(r"\| site-1 +\| \S+ +\| online +\| 3 +\| 3 +\|", shown), shown
    assert "status: training stopped (completed)" in session.types("check_status client site-1")
    assert "metrics.jsonl" in session.types("ls server")
    assert '"round":3' in session.types("tail server metrics.jsonl -n 1").replace(" ", "")
    saved = folder / "log of the run"
    assert "run.submitted" in session.types(f"cat server log.txt > '{saved}'")
    assert "state=completed" not in session.types(f"grep server run.ended log.txt >> '{saved}'")
    written = saved.read_text().splitlines()
    assert "run.ended" in written[-1]
    assert written[-1] in written[:-1]
    assert "a site's files are its own" in session.types("cat client site-1 site.toml")
    assert re.search(r"\d\d:\d\d:\d\d +site-1 ", session.types("tail client site-1 log.txt -n 1"))  # `up` lets log lines out
    assert "a person stops no hospital's agent" in session.types("shutdown client")
    assert "cross-site validation is a workflow" in session.types("validate all")
    assert "site-1: removed" in session.types("remove_client site-1")
    assert "removed" in session.types("check_status server")
    with connect(kit) as door:
        assert door.enable("site-1").disabled is None


def _script(kit: Path) -> None:
    """Lines from a pipe and from `-c`: the first that fails is the exit code."""
    typed = "# as it stood\nset_run_number 7\ncheck_status client\nshutdown server\necho never\n"
    done = subprocess.run(hansa("shell", "--kit", str(kit)), input=typed, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "instance:site-2 : client name: site-2" in done.stdout
    assert "never" not in done.stdout
    command = hansa("shell", "--kit", str(kit), "-c", "list_jobs", "-c", "cat server none.txt")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "run_7" in done.stdout
    assert "Please set a run number." in done.stderr


def _program(kit: Path, folder: Path) -> None:
    api = FLAdminAPI("127.0.0.1", 8003, client_cert=str(kit / "certificate.pem"), upload_dir=str(APPS), download_dir=str(folder))
    user = api.verbs.session.kit.name
    assert api.login(user)["status"] == APIStatus.SUCCESS
    assert api.login("somebody")["status"] == APIStatus.ERROR_AUTHORIZATION
    assert api.set_run_number(7)["status"] == APIStatus.SUCCESS
    told = api.check_status(TargetType.SERVER)
    assert told["status"] == APIStatus.SUCCESS
    assert told["details"][FLDetailKey.REGISTERED_CLIENTS] == 2
    assert told["details"][FLDetailKey.SERVER_ENGINE_STATUS] == "stopped"
    assert json.loads(api.cat_target(TargetType.SERVER, file="run.json")["raw"])["job"] == HELLO
    assert api.upload_app("nothing")["status"] == APIStatus.ERROR_SYNTAX
    assert api.check_status(TargetType.CLIENT, ["nobody"])["status"] == APIStatus.ERROR_SYNTAX
    assert api.shutdown(TargetType.ALL)["status"] == APIStatus.ERROR_AUTHORIZATION
    api.logout()
    runner = FLAdminAPIRunner("127.0.0.1", 8003, user, str(kit), poc=False)
    runner.api.verbs.uploads = APPS
    told = runner.run(8, HELLO, min_clients=2, timeout=60)
    assert told["status"] == APIStatus.SUCCESS
    assert told["details"]["state"] == "completed"
    runner.close()
