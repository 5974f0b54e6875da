"""What a person does, from Python and at the command line, with a real server over TLS; its sites are threads of the test."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import jobs
from tests.e2e.world import Caller, FakeSite, make_project, serving

import hansa as hs
from hansa import codec
from hansa.admin.client import Session, connect
from hansa.admin.record import verify
from hansa.errors import IdentityError, InputError, RefusedError, RunError, UnreachableError
from hansa.record.folder import RunFolder
from hansa.runtime.audit.chain import Broken, Verified
from hansa.simulation.engine import Result, simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
REFERENCE = f"{Path(jobs.__file__)}:job"
SEED = 3


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = make_project(tmp_path_factory.mktemp("people") / "fed", NAMES)
    with serving(folder), ExitStack() as stack:
        for name in NAMES:
            site = FakeSite(Caller.of(folder / "kits" / name), jobs.job, jobs.data)
            stack.callback(site.close)
            site.start()
        yield folder


@pytest.fixture(scope="module")
def simulated() -> Result:
    return simulate(jobs.job, jobs.data, seed=SEED)


@pytest.fixture
def lea(project: Path) -> Iterator[Session]:
    with connect(project / "kits" / "lea") as session:
        yield session


def hansa(project: Path, *arguments: str, person: str = "lea") -> tuple[int, str, str]:
    kit = ["--kit", str(project / "kits" / person)]
    done = subprocess.run(
        [sys.executable, "-m", "hansa.cli", *arguments, *kit], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_a_session_submits_watches_and_takes_home_the_model_of_the_simulation(
    lea: Session, simulated: Result, tmp_path: Path
) -> None:
    run = lea.submit(REFERENCE, sites=NAMES, seed=SEED)
    kinds = [event.kind for event in run.events()]
    assert kinds[0] == "run.submitted"
    assert kinds.count("round") == 3
    assert kinds[-1] == "run.ended"
    status = run.wait()
    assert (status.state, status.author, status.round) == ("completed", "lea", 3)
    result = run.result()
    assert result.model is not None
    assert result.best is not None
    assert codec.digest(result.model) == codec.digest(simulated.model)
    assert [record["global"] for record in result.metrics] == [record["global"] for record in simulated.metrics]
    folder = RunFolder.open(run.download(tmp_path / "home"))
    assert folder.info.state == "completed"
    assert codec.digest(hs.load_model(folder.path)) == codec.digest(simulated.model)
    with pytest.raises(InputError, match="not empty"):
        run.download(tmp_path / "home")


def test_events_are_lines_that_people_can_read(lea: Session) -> None:
    run = lea.submit(REFERENCE, sites=NAMES)
    lines = [str(event) for event in run.events()]
    assert "run.submitted" in lines[0]
    assert any("site.accepted" in line and "site=cleveland" in line for line in lines)
    assert any("round " in line and "auc=" in line for line in lines)


def test_a_run_is_found_by_the_beginning_of_its_name_and_cloned_with_another_seed(lea: Session) -> None:
    first = lea.submit(REFERENCE, sites=NAMES[:2], seed=5)
    assert lea.run(first.id[:-1]).id == first.id
    assert first.wait().state == "completed"
    again = lea.clone(first.id, seed=6)
    status = again.wait()
    assert (status.state, status.seed, status.sites, status.bundle) == ("completed", 6, NAMES[:2], first.status().bundle)
    with pytest.raises(InputError, match="several runs"):
        lea.run("2")
    with pytest.raises(InputError, match="no such run"):
        lea.run("nothing")


def test_a_run_is_aborted_and_deleted_and_its_result_is_an_error(lea: Session) -> None:
    run = lea.submit(REFERENCE, sites=NAMES[:2])
    run.wait()
    run.delete()
    assert run.id not in [each.run for each in lea.runs()]
    with pytest.raises(InputError, match="no such run"):
        run.status()
    lea_again = lea.submit(REFERENCE, sites=NAMES[:2])
    lea_again.abort("wrong data")
    assert lea_again.status().reason == "abort by lea: wrong data"
    with pytest.raises(RunError, match="aborted"):
        lea_again.result()


def test_another_persons_results_stay_theirs_and_the_refusal_is_on_record(project: Path, lea: Session, tmp_path: Path) -> None:
    run = lea.submit(REFERENCE, sites=NAMES[:2])
    run.wait()
    with connect(project / "kits" / "ada") as ada:
        with pytest.raises(RefusedError, match="may not do this"):
            ada.run(run.id).download(tmp_path / "stolen")
        assert not (tmp_path / "stolen").exists()
        assert any(event.data.get("decision") == "deny" and run.id in event.data["resource"] for event in ada.audit())
    with connect(project / "kits" / "max") as member, pytest.raises(RefusedError, match="may not do this"):
        member.submit(REFERENCE)


def test_a_site_is_disabled_and_enabled_by_who_may(project: Path, lea: Session) -> None:
    assert [site.site for site in lea.sites()] == NAMES
    with pytest.raises(RefusedError):
        lea.disable("hungarian")
    with connect(project / "kits" / "ada") as ada:
        assert ada.disable("hungarian", reason="new scanner").disabled == "by ada: new scanner"
        assert ada.enable("hungarian").disabled is None
        with pytest.raises(InputError, match="no such site"):
            ada.enable("hungary")


def test_who_watches_a_run_that_cannot_start_is_told_what_it_waits_for(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "fed", ["north", "south"])
    command = [sys.executable, "-m", "hansa.cli", "job", "submit", REFERENCE, "--kit", str(folder / "kits" / "lea"), "--wait"]
    with serving(folder), connect(folder / "kits" / "ada") as ada:
        ada.disable("south", reason="new scanner")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watching:
            assert watching.stderr is not None
            told = [next(line for line in watching.stderr if "waits for" in line), next(watching.stderr)]
            waits = ["north: it is not there", "south: it is disabled: by ada: new scanner"]
            assert told == [f"waits for {line}\n" for line in waits]
            [status] = ada.runs()
            assert (status.state, status.waits) == ("pending", waits)
            code, out, _ = hansa(folder, "job", "show", status.run)
            assert code == 0
            assert "".join(f"waits for  {line}\n" for line in waits) in out
            assert ada.run(status.run).abort().waits == []
            watching.communicate(timeout=30)
        assert watching.returncode == 1


def test_the_record_is_whole_and_heads_that_were_kept_show_a_later_change(project: Path, tmp_path: Path) -> None:
    kept = tmp_path / "heads.json"
    with connect(project / "kits" / "ada") as ada:
        found = verify(ada, kept)
        assert isinstance(found, Verified)
        assert found.events > 1
        assert isinstance(verify(ada, kept), Verified)
        content = json.loads(kept.read_text())
        head = next(head for head in content["heads"] if head["stream"] == "project")
        head["hash"] = "0" * 64
        kept.write_text(json.dumps(content))
        broken = verify(ada, kept)
        assert isinstance(broken, Broken)
        assert (broken.stream, broken.seq) == ("project", head["seq"])
        kept.write_text(json.dumps({**content, "project": "another"}))
        with pytest.raises(InputError, match="another project"):
            verify(ada, kept)


def test_the_command_line_submits_waits_and_prints_one_json_object(project: Path, simulated: Result, tmp_path: Path) -> None:
    code, out, errors = hansa(
        project, "job", "submit", REFERENCE, "--sites", ",".join(NAMES), "--seed", str(SEED), "--wait", "--json"
    )
    assert code == 0, errors
    said: dict[str, Any] = json.loads(out)
    assert said["status"] == "completed"
    assert "round 3/3" in errors
    code, out, _ = hansa(project, "job", "download", said["run"], "--out", str(tmp_path / "home"), "--json")
    assert code == 0
    assert json.loads(out)["model_sha256"] == codec.digest(simulated.model)
    assert hashlib.sha256((tmp_path / "home" / "model.safetensors").read_bytes()).hexdigest() == codec.digest(simulated.model)
    code, out, _ = hansa(project, "job", "show", said["run"], "--hash", "--plan")
    assert code == 0
    assert "code hash" in out
    assert "reads here data" in out
    code, out, _ = hansa(project, "job", "logs", said["run"])
    assert code == 0
    assert "run.ended" in out
    code, out, _ = hansa(project, "job", "list", "--json")
    assert said["run"] in [run["run"] for run in json.loads(out)["runs"]]
    code, out, _ = hansa(project, "job", "watch", said["run"], "--json")
    assert (code, json.loads(out)["status"]) == (0, "completed")


def test_the_command_line_shows_sites_and_the_record(project: Path) -> None:
    code, out, _ = hansa(project, "site", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == NAMES
    assert hansa(project, "site", "show", "cleveland", "--json")[0] == 0
    code, _, errors = hansa(project, "audit", "show")
    assert code == 3  # a lead has no right to it
    assert "audit.read" in errors
    assert hansa(project, "audit", "show", "--last", "5", person="aud")[1].count("\n") == 5
    code, out, _ = hansa(project, "audit", "verify", "--json", person="aud")
    assert (code, json.loads(out)["ok"]) == (0, True)


def test_plan_says_what_would_run_and_by_which_hashes_it_is_known() -> None:
    def planned(option: str) -> str:
        command = [sys.executable, "-m", "hansa.cli", "job", "plan", REFERENCE, option]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    said = json.loads(planned("--json"))
    assert (said["job"], said["data"], list(said["files"])) == ("hearts", "heart", ["jobs.py"])
    assert (len(said["code_hash"]), len(said["job_hash"])) == (64, 64)
    assert {name for each in said["computations"] for name in (stage["task"] for stage in each["stages"])} >= {"local_train"}
    told = planned("--types")
    assert said["plan"] in told
    assert "  work       (<own=<data={Dataset}@CLIENTS>" in told


def test_a_kit_of_a_site_and_a_server_that_is_gone_are_named(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a person's kit"):
        connect(project / "kits" / "cleveland")
    away = make_project(tmp_path / "fed", ["a"])
    with connect(away / "kits" / "lea") as session, pytest.raises(UnreachableError, match="nobody listens"):
        session.runs()
    began = time.monotonic()
    with connect(away / "kits" / "lea") as session, pytest.raises(UnreachableError, match="nobody listens"):
        session.submit(REFERENCE)
    assert time.monotonic() - began < 30  # the job is built first; then nobody waits for a server that was never there
    stranger = make_project(tmp_path / "other", ["a"])
    kit = away / "kits" / "lea"
    for name in ("certificate.pem", "key.pem"):
        (kit / name).write_bytes((stranger / "kits" / "lea" / name).read_bytes())
    url = connect(project / "kits" / "lea").kit.url
    assert url.startswith("https://127.0.0.1:")
    with connect(kit) as session, pytest.raises((UnreachableError, IdentityError)):
        session.runs()
