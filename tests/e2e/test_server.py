"""A real server process, spoken to over TLS by sites that are threads of the test."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import msgspec
import pytest
from blake3 import blake3
from tests.e2e import jobs
from tests.e2e.world import CHUNK, Caller, FakeSite, Server, make_project, serving

from hansa.admin.client import connect
from hansa.provision.changes import revoke
from hansa.runtime.audit.chain import Verified, verify
from hansa.runtime.jobs.build import build
from hansa.runtime.protocol import messages
from hansa.runtime.protocol.messages import Ack
from hansa.runtime.server.quotas import BLOBS, EVENTS
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.event import Event
from hansa.simulation.engine import simulate

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
REFERENCE = f"{Path(jobs.__file__)}:job"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "fed", NAMES)


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    with serving(project) as server:
        yield server


@pytest.fixture
def lea(project: Path, server: Server) -> Iterator[Caller]:
    caller = Caller.of(project / "kits" / "lea")
    yield caller
    caller.client.close()


def site(project: Path, name: str, **options: Any) -> FakeSite:
    return FakeSite(Caller.of(project / "kits" / name), jobs.job, jobs.data, **options)


@pytest.fixture
def sites(project: Path, server: Server) -> Iterator[list[FakeSite]]:
    with ExitStack() as stack:
        found = [site(project, name, carries=number % 2 == 1) for number, name in enumerate(NAMES)]  # both versions are served
        for each in found:
            stack.callback(each.close)
            each.start()
        yield found


def expected(tmp_path: Path, seed: int) -> str:
    simulate(jobs.job, jobs.data, seed=seed, out=tmp_path / "simulated")
    return hashlib.sha256((tmp_path / "simulated" / "model.safetensors").read_bytes()).hexdigest()


def test_the_deployed_run_gives_the_model_of_the_simulated_one(lea: Caller, sites: list[FakeSite], tmp_path: Path) -> None:
    run = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
    shown = lea.ended(run)
    assert shown["state"] == "completed", shown
    assert hashlib.sha256(lea.file(run, "model.safetensors")).hexdigest() == expected(tmp_path, 3)


def test_a_job_whose_last_byte_had_come_before_the_server_was_killed_is_submitted(
    server: Server, project: Path, sites: list[FakeSite]
) -> None:
    with connect(project / "kits" / "lea") as session:
        bundle = session.bundle(REFERENCE)
        server.kill()
        blobs = FileBlobs(server.kit / "data" / "blobs", reserve_bytes=0)
        blobs.upload(blake3(bundle).hexdigest(), len(bundle), owner="lea").append(0, bundle)  # and never `finish`
        blobs.close()
        server.start()
        assert session.submit_bundle(bundle, sites=NAMES, seed=3).wait().state == "completed"


def test_a_server_killed_in_the_middle_of_a_round_goes_on_to_the_same_model(
    server: Server, lea: Caller, sites: list[FakeSite], tmp_path: Path
) -> None:
    run = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
    lea.wait(run, in_round(2))
    children = server.runs()
    server.kill()
    assert children
    wait_for_end(children)
    server.start()
    shown = lea.ended(run)
    assert (shown["state"], shown["round"]) == ("completed", 3), shown
    assert hashlib.sha256(lea.file(run, "model.safetensors")).hexdigest() == expected(tmp_path, 3)
    counted_once(lea, run)


def test_a_run_killed_in_the_middle_of_a_round_goes_on_to_the_same_model(
    server: Server, lea: Caller, sites: list[FakeSite], tmp_path: Path
) -> None:
    run = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
    lea.wait(run, in_round(2))
    for pid in server.runs():
        os.kill(pid, signal.SIGKILL)
    shown = lea.ended(run)
    assert (shown["state"], shown["round"]) == ("completed", 3), shown
    assert "run.crashed" in {event["kind"] for event in lea.get(f"/api/runs/{run}/events")["events"]}
    assert hashlib.sha256(lea.file(run, "model.safetensors")).hexdigest() == expected(tmp_path, 3)
    counted_once(lea, run)


def in_round(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["kind"] == "result" and event["step"] == 2 * number + 1


def counted_once(caller: Caller, run: str) -> None:
    events = caller.get(f"/api/runs/{run}/events")["events"]
    keys = [(event["step"], event["slot"], event["attempt"]) for event in events if event["kind"] == "result"]
    assert len(keys) == len(set(keys))


def wait_for_end(pids: list[int]) -> None:
    """Until the processes are gone: their parent, whose reaper is not us, was killed."""
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids):
        assert time.monotonic() < deadline, "an orphan is left"
        time.sleep(0.02)


def test_a_site_that_refuses_is_named_with_its_reason_and_the_others_go_on(project: Path, lea: Caller) -> None:
    with ExitStack() as stack:
        found = [site(project, name, refuses="not on Sundays" if name == "hungarian" else "") for name in NAMES]
        for each in found:
            stack.callback(each.close)
            each.hello()
        run = lea.submit(REFERENCE, sites=NAMES, min_sites=3, seed=3)["run"]
        for each in found:
            each.start()
        shown = lea.ended(run)
    assert shown["state"] == "completed", shown
    assert shown["refused"] == {"hungarian": "not on Sundays"}
    lines = [msgspec.json.decode(line) for line in lea.file(run, "metrics.jsonl").splitlines()]
    assert [{each["site"] for each in line["refused"]} for line in lines] == [{"hungarian"}] * 3


def test_a_run_that_too_many_sites_refuse_ends_as_refused(project: Path, lea: Caller) -> None:
    with ExitStack() as stack:
        for name in NAMES:
            each = site(project, name, refuses=f"{name} says no")
            stack.callback(each.close)
            each.start()
        shown = lea.ended(lea.submit(REFERENCE, sites=NAMES, min_sites=2)["run"])
    assert shown["state"] == "refused"
    assert shown["reason"].count("says no") >= 3  # whoever answered first: two are too few


def test_a_paused_run_goes_on_where_it_was_and_an_aborted_one_ends_at_its_sites(
    lea: Caller, sites: list[FakeSite], tmp_path: Path
) -> None:
    run = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
    lea.wait(run, in_round(2))
    paused = lea.ask("POST", f"/api/runs/{run}/pause", json={"reason": "lunch"})
    assert paused.json()["state"] == "paused"
    assert lea.ask("POST", f"/api/runs/{run}/resume").json()["state"] == "running"
    assert lea.ended(run)["state"] == "completed"
    assert hashlib.sha256(lea.file(run, "model.safetensors")).hexdigest() == expected(tmp_path, 3)
    assert lea.ask("POST", f"/api/runs/{run}/abort").status_code == 400
    second = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
    lea.wait(second, in_round(1))
    aborted = lea.ask("POST", f"/api/runs/{second}/abort", json={"reason": "wrong data"}).json()
    assert (aborted["state"], aborted["reason"]) == ("aborted", "abort by lea: wrong data")
    for each in sites:
        wait_until(partial(has_ended, each, second))
    assert lea.ask("DELETE", f"/api/runs/{second}").status_code == 204
    assert [each["run"] for each in lea.get("/api/runs")["runs"]] == [run]


def test_a_revoked_site_is_cut_within_ten_seconds_also_in_its_long_poll(project: Path, server: Server) -> None:
    caller = Caller.of(project / "kits" / "cleveland")
    caller.fetch_token()
    began = time.monotonic()
    Thread(target=revoke, args=(project,), kwargs={"name": "cleveland", "now": time.time()}).start()
    answer = caller.ask("GET", "/v1/work?after=0&hold_s=25")
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer.json()["code"]) == (403, "revoked")
    assert caller.ask("HEAD", f"/v1/blobs/{'0' * 64}").status_code == 403
    assert caller.fetch_token().json()["code"] == "revoked"
    caller.client.close()


def test_a_workflow_that_kills_its_own_process_fails_its_run_and_nobody_elses(
    lea: Caller, sites: list[FakeSite], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(POISON)
    poison = lea.submit(f"{bad}:job", sites=NAMES, priority=50)["run"]
    good = lea.submit(REFERENCE, sites=NAMES, seed=3)["run"]
    assert lea.ended(good)["state"] == "completed"
    shown = lea.ended(poison)
    assert shown["state"] == "failed"
    assert "ended with code 7, 3 times without a finished step" in shown["reason"]


POISON = """
import os, sys
import hansa as hs

def workflow(federation):
    os._exit(7)

job = hs.Job("poison", workflow, data="heart")
"""


def test_a_workflow_that_raises_fails_with_what_it_said(lea: Caller, sites: list[FakeSite], tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import hansa as hs\ndef workflow(federation):\n    raise ValueError('no such luck')\njob = hs.Job('bad', workflow)\n"
    )
    shown = lea.ended(lea.submit(f"{bad}:job", sites=NAMES)["run"])
    assert (shown["state"], shown["reason"]) == ("failed", "no such luck")


def test_what_a_role_may_not_do_is_refused_and_put_on_record(
    project: Path, server: Server, lea: Caller, sites: list[FakeSite]
) -> None:
    with ExitStack() as stack:
        people = {name: Caller.of(project / "kits" / name) for name in ("ada", "leo", "oda", "max", "aud")}
        for each in people.values():
            stack.callback(each.client.close)
        run = lea.ended(lea.submit(REFERENCE, sites=NAMES)["run"])["run"]
        for name in people:
            assert people[name].get(f"/api/runs/{run}")["author"] == "lea"
            assert people[name].ask("GET", f"/api/runs/{run}/files/model.safetensors").status_code == 403
        assert people["leo"].ask("DELETE", f"/api/runs/{run}").json()["code"] == "refused"
        assert people["oda"].ask("POST", "/api/sites/cleveland/disable").status_code == 403
        assert people["oda"].ask("POST", "/api/sites/hungarian/disable").json()["disabled"] == "by oda"
        assert people["ada"].ask("POST", "/api/sites/hungarian/enable").json()["disabled"] is None
        assert people["max"].ask("GET", "/api/audit").status_code == 403
        record = people["aud"].get("/api/audit?stream=project")
    events = [msgspec.convert(each, Event) for each in record["events"]]
    assert isinstance(verify(sorted(events, key=lambda event: event.id)), Verified)
    denied = [(each.data["actor"].split()[0], each.data["action"]) for each in events if each.data.get("decision") == "deny"]
    assert ("leo", "run.delete") in denied
    assert ("max", "audit.read") in denied


def test_uploads_go_on_where_they_stopped_and_wrong_bytes_are_named(server: Server, lea: Caller) -> None:
    content = os.urandom(CHUNK + 2000)
    digest = blake3(content).hexdigest()
    path, length = f"/v1/blobs/{digest}", {"Upload-Length": str(len(content))}
    first = lea.ask("PUT", path, content=content[:1000], headers={"Upload-Offset": "0", **length})
    assert (first.status_code, first.headers["upload-offset"]) == (204, "1000")
    wrong = lea.ask("PUT", path, content=content[:1000], headers={"Upload-Offset": "0", **length})
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["upload-offset"]) == (409, "offset", "1000")
    much = lea.ask("PUT", path, content=content[1000:] + b"x", headers={"Upload-Offset": "1000", **length})
    assert (much.status_code, much.json()["title"]) == (400, "more bytes than were announced")
    rest = int(lea.ask("HEAD", path).headers["upload-offset"])
    assert 1000 <= rest < len(content)
    whole = lea.ask("PUT", path, content=content[rest:], headers={"Upload-Offset": str(rest), **length})
    assert (whole.status_code, whole.headers["upload-offset"]) == (204, str(len(content)))
    assert lea.upload(content) == digest
    other = "0" * 64
    lied = lea.ask("PUT", f"/v1/blobs/{other}", content=b"abc", headers={"Upload-Offset": "0", "Upload-Length": "3"})
    assert (lied.status_code, lied.json()["code"]) == (422, "digest")
    for bad in ("..%2f..%2fkit.toml", "A" * 64, "1"):
        assert lea.ask("HEAD", f"/v1/blobs/{bad}").status_code in (400, 403, 404)
    assert lea.ask("PUT", path, content=b"", headers={"Upload-Offset": "-1", **length}).status_code == 400
    too_large = {"Upload-Offset": "0", "Upload-Length": str(1 << 40)}
    assert lea.ask("PUT", f"/v1/blobs/{'1' * 64}", content=b"a", headers=too_large).status_code == 400


def test_a_result_brings_its_blob_which_is_on_record_only_when_it_is_what_it_says(
    project: Path, server: Server, lea: Caller, tmp_path: Path
) -> None:
    """A task of version 2: its body comes with it, wrong results leave nothing, the right one counts once."""
    with ExitStack() as stack:
        one = site(project, "cleveland", carries=True)
        stack.callback(one.close)
        one.hello()
        newer = one.caller.ask("POST", "/v1/hello", content=msgspec.json.encode({"versions": [9, 8], "software": "later"}))
        assert (newer.status_code, newer.json()["code"]) == (400, "version"), newer.text
        run = lea.submit(REFERENCE, sites=["cleveland"], seed=3, min_sites=1)["run"]
        offered = one.poll(0, hold_s=10.0)
        assert offered.inside == [offered.offers[0].bundle]
        one.answer_offer(offered.offers[0])
        work = one.poll(offered.after, hold_s=20.0)
        result = one.result(work.assignments[0])
        own, blob = messages.encode(result), one.blobs[result.blob or ""]

        def sent(content: bytes, size: int | str = len(own)) -> httpx.Response:
            return one.caller.ask("POST", "/v1/results", content=content, headers={messages.OWN: str(size)})

        other = bytes([blob[0] ^ 1]) + blob[1:]
        faults: list[tuple[bytes, int | str, int]] = [
            (own + other, len(own), 422),
            (own + blob[:-1], len(own), 400),
            (own + blob + b"x", len(own), 400),
        ]
        faults += [(own + blob, len(own + blob) + 1, 400), (own + blob, "-1", 400), (own + blob, 0, 400)]
        for content, size, status in faults:
            assert sent(content, size).status_code == status, (size, status)
        endless = one.caller.ask("POST", "/v1/results", content=own + b" " * (3 << 20))  # without the header: no stream
        assert endless.status_code == 413, endless.text
        huge = msgspec.structs.replace(result, blob_bytes=messages.INSIDE + 1)
        assert sent(messages.encode(huge) + bytes(messages.INSIDE + 1), len(messages.encode(huge))).json()["code"] == "input"
        assert not any(event["kind"] == "result" for event in lea.get(f"/api/runs/{run}/events?hold_s=0")["events"])
        assert one.caller.ask("HEAD", f"/v1/blobs/{result.blob}").headers["upload-offset"] == "0"
        outcomes = [messages.decode(sent(own + blob).content, Ack).outcome for _ in range(2)]
        assert outcomes == ["accepted", "accepted"]
        lea.wait(run, lambda event: event["kind"] == "task.closed")
        results = [event for event in lea.get(f"/api/runs/{run}/events?hold_s=0")["events"] if event["kind"] == "result"]
        assert [(each["step"], each["blob"]) for each in results[:1]] == [(1, result.blob)]
        lea.ask("POST", f"/api/runs/{run}/abort")


def test_what_a_site_leaves_at_the_server_and_causes_there_is_refused_by_name_beyond_its_quota(
    project: Path, server: Server, lea: Caller
) -> None:
    with ExitStack() as stack:
        one, other = site(project, "cleveland"), site(project, "hungarian")
        for each in (one, other):
            stack.callback(each.close)
        blobs = [number.to_bytes(2, "big") for number in range(BLOBS + 1)]
        for content in blobs[:BLOBS]:
            one.caller.upload(content)
        digest = blake3(blobs[BLOBS]).hexdigest()
        headers = {"Upload-Offset": "0", "Upload-Length": "2"}
        refused = one.caller.ask("PUT", f"/v1/blobs/{digest}", content=blobs[BLOBS], headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "quota")
        assert "at most 64" in refused.json()["detail"]
        assert "ten minutes" in refused.json()["hint"]
        assert other.caller.upload(blobs[BLOBS]) == digest  # it is nobody else's
        assert one.caller.upload(blobs[0])  # and what is there is there
        said = [
            one.caller.ask("POST", "/v1/hello", json={"versions": [1], "software": str(number)}) for number in range(EVENTS + 2)
        ]
        assert [answer.status_code for answer in said[:EVENTS]] == [200] * EVENTS
        assert (said[-1].status_code, said[-1].json()["code"]) == (403, "quota")
        assert other.hello().site == "hungarian"


def test_files_are_served_in_ranges(lea: Caller, sites: list[FakeSite]) -> None:
    run = lea.ended(lea.submit(REFERENCE, sites=NAMES)["run"])["run"]
    files = {each["path"]: each["bytes"] for each in lea.get(f"/api/runs/{run}/files")["files"]}
    assert {"run.json", "metrics.jsonl", "model.safetensors", "best.safetensors", "report.html"} <= set(files)
    part = lea.ask("GET", f"/api/runs/{run}/files/run.json", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, lea.file(run, "run.json")[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{files['run.json']}"
    assert lea.ask("GET", f"/api/runs/{run}/files/..%2f..%2fevents.sqlite").status_code == 404
    assert lea.ask("GET", f"/api/runs/{run}/files/run.json", headers={"Range": "bytes=99999999-"}).status_code == 400
    plan = lea.get(f"/api/runs/{run}/plan")
    assert "local_train" in plan["plan"]


def test_a_site_reads_only_blobs_that_are_for_it(project: Path, server: Server, lea: Caller) -> None:
    secret = lea.upload(b"nobody else's")
    caller = Caller.of(project / "kits" / "cleveland")
    assert caller.ask("GET", f"/v1/blobs/{secret}").json()["code"] == "missing_blob"
    assert caller.ask("GET", "/api/runs").status_code == 403
    assert lea.ask("GET", "/v1/work").status_code == 403
    caller.client.close()


def test_the_same_request_again_is_the_same_run(lea: Caller, server: Server) -> None:
    first = lea.submit(REFERENCE, sites=NAMES, request="abc")
    assert lea.submit(REFERENCE, sites=NAMES, request="abc")["run"] == first["run"]
    assert lea.submit(REFERENCE, sites=NAMES, request="abd")["run"] != first["run"]
    bundle = first["bundle"]
    with ThreadPoolExecutor(4) as pool:  # sent again before the first was answered
        same = {"bundle": bundle, "sites": NAMES, "request": "abe"}
        answers = list(pool.map(lambda _: lea.ask("POST", "/api/runs", json=same).json()["run"], range(4)))
    assert len(set(answers)) == 1


def test_another_authors_bundle_and_an_unsigned_one_are_refused(project: Path, server: Server, lea: Caller) -> None:
    leo = Caller.of(project / "kits" / "leo")
    taken = lea.submit(REFERENCE, sites=NAMES)["bundle"]
    assert leo.ask("POST", "/api/runs", json={"bundle": taken}).json()["title"] == "the bundle is another author's"
    unsigned = leo.upload(build(REFERENCE))
    assert leo.ask("POST", "/api/runs", json={"bundle": unsigned}).json()["code"] == "unsigned"
    garbage = leo.upload(b"PK not a zip at all, but long enough to hold a last record")
    assert leo.ask("POST", "/api/runs", json={"bundle": garbage}).status_code == 400
    assert leo.ask("POST", "/api/runs", json={"bundle": "0" * 64}).json()["code"] == "not_found"
    assert leo.ask("POST", "/api/runs", json={"bundle": unsigned, "role": "project_admin"}).json()["code"] == "malformed"
    leo.client.close()


def test_a_second_server_says_what_is_in_its_way(project: Path, server: Server) -> None:
    command = [sys.executable, "-m", "hansa.cli", "server", "start", str(project / "kits" / "server")]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 2
    assert "the port is in use" in second.stderr
    text = (project / "kits" / "server" / "kit.toml").read_text()
    (project / "kits" / "server" / "kit.toml").write_text(text.replace("[server]", "[server] # mine"))
    tampered = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (tampered.returncode, "kit.toml" in tampered.stderr) == (3, True)
    site_kit = subprocess.run(
        [*command[:-1], str(project / "kits" / "lea")], capture_output=True, text=True, timeout=30, check=False
    )
    assert (site_kit.returncode, "not a server's kit" in site_kit.stderr) == (2, True)


def test_a_client_without_a_certificate_does_not_get_in(project: Path, server: Server) -> None:
    caller = Caller.of(project / "kits" / "lea", certificate=False)
    with pytest.raises(httpx.TransportError, match=r"(?i)certificate.required"):
        caller.client.get("/health")
    caller.client.close()


def has_ended(each: FakeSite, run: str) -> bool:
    return run in {ended.run for ended in each.ended}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
