"""Several jobs and slow sites on a real server: who is waited for, who comes too late, and which job is next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.world import Caller, FakeSite, make_project, serving

from hansa.adapters.numpy import softmax
from hansa.core.job import Job
from hansa.data.federated import Rows, population
from hansa.learning.fedavg import fedavg
from hansa.runtime.protocol.messages import Assignment, Result

NAMES = ["cleveland", "hungarian", "switzerland", "long-beach"]  # slots as in the data
JOB = """
from hansa.adapters.numpy import softmax
from hansa.core.job import Job
from hansa.learning.fedavg import fedavg

job = Job({name!r}, fedavg(softmax(classes=2, features=3), rounds={rounds}, metrics=[], evaluate_sites="none"{policy}), data="rows")
"""

WORK = Job(
    "work", fedavg(softmax(classes=2, features=3), rounds=1, metrics=[], evaluate_sites="none"), data="rows"
)  # what sites do for all of them

DATA = population(
    len(NAMES), lambda slot: Rows(np.random.default_rng(slot).normal(size=(8, 3)).astype(np.float32), np.arange(8) % 2)
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = make_project(tmp_path_factory.mktemp("office") / "fed", NAMES)
    with serving(folder):
        yield folder


@pytest.fixture
def lea(project: Path) -> Iterator[Caller]:
    caller = Caller.of(project / "kits" / "lea")
    yield caller
    caller.client.close()


@pytest.fixture
def sites(project: Path) -> Iterator[list[FakeSite]]:
    """Sites of one core each, which are not at work yet."""
    with ExitStack() as stack:
        found = [FakeSite(Caller.of(project / "kits" / name), WORK, DATA, cores=1) for name in NAMES]
        for each in found:
            stack.callback(each.close)
            each.hello()
        yield found


def submit(lea: Caller, folder: Path, name: str, *, rounds: int = 1, policy: str = "", **options: Any) -> str:
    path = folder / f"{name}.py"
    path.write_text(JOB.format(name=name, rounds=rounds, policy=policy))
    run: str = lea.submit(f"{path}:job", sites=NAMES, **options)["run"]
    return run


def accept(site: FakeSite) -> None:
    """Say yes to the next offer."""
    after = 0
    while True:
        work = site.poll(after, hold_s=5.0)
        after = work.after
        for offer in work.offers:
            site.answer_offer(offer)
            return


def asked(site: FakeSite, seq: int) -> Assignment:
    """The task of that number."""
    after = 0
    while True:
        work = site.poll(after, hold_s=5.0)
        after = work.after
        for assignment in work.assignments:
            if assignment.seq == seq:
                return assignment


def record(events: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = next(event["record"] for event in events if event["kind"] == "round")
    return found


def test_the_first_of_more_sites_than_are_needed_fill_the_round_and_those_who_come_later_are_told_so(
    lea: Caller, sites: list[FakeSite], tmp_path: Path
) -> None:
    run = submit(lea, tmp_path, "more", rounds=2, policy=", cohort=2, over_select=1.0")
    slow = sites[2:]
    for site in sites:
        accept(site)
    late: list[tuple[FakeSite, Result]] = [(site, site.result(asked(site, 1))) for site in slow]  # while its body is there
    for site in sites[:2]:
        site.start()
    events = lea.wait(run, lambda event: event["kind"] == "round")
    assert [site for site, told in record(events)["sites"].items() if told] == NAMES[:2]
    outcomes = {site.send(result).outcome for site, result in late for _ in range(2)}
    assert outcomes <= {"late", "ended"}
    shown = lea.ended(run)
    assert (shown["state"], shown["round"]) == ("completed", 2)
    results = [event["slot"] for event in lea.get(f"/api/runs/{run}/events?after=0")["events"] if event["kind"] == "result"]
    assert set(results) == {0, 1}


def test_at_the_deadline_a_round_goes_on_with_its_quorum_and_names_who_was_lost(
    lea: Caller, sites: list[FakeSite], tmp_path: Path
) -> None:
    run = submit(lea, tmp_path, "soon", policy=", quorum=2, deadline_s=2.0")
    accept(sites[3])
    for site in sites[:3]:
        site.start()
    events = lea.wait(run, lambda event: event["kind"] == "round")
    assert record(events)["lost"] == NAMES[3:]
    assert lea.ended(run)["state"] == "completed"


def test_without_a_quorum_at_the_deadline_the_run_fails_and_says_so(lea: Caller, sites: list[FakeSite], tmp_path: Path) -> None:
    run = submit(lea, tmp_path, "all", policy=", quorum=4, deadline_s=1.0")
    accept(sites[3])
    for site in sites[:3]:
        site.start()
    shown = lea.ended(run)
    assert shown["state"] == "failed"
    assert "the deadline passed: 4 needed of 4 invited; 3 admitted" in shown["reason"]


def test_sites_of_one_core_do_one_run_after_the_other_the_more_urgent_first(
    lea: Caller, sites: list[FakeSite], tmp_path: Path
) -> None:
    first = submit(lea, tmp_path, "first")
    for site in sites:
        accept(site)
    held = [site.result(asked(site, 1)) for site in sites]
    patient = submit(lea, tmp_path, "patient")
    urgent = submit(lea, tmp_path, "urgent", priority=10)
    for site in sites:
        site.start()
    lea.wait(urgent, lambda event: event["kind"] == "site.accepted" and event["site"] == NAMES[3])
    assert {lea.get(f"/api/runs/{run}")["state"] for run in (patient, urgent)} == {"pending"}
    for site, result in zip(sites, held, strict=True):
        site.send(result)
    begun = {}
    for run in (first, patient, urgent):
        assert lea.ended(run)["state"] == "completed"
        events = lea.get(f"/api/runs/{run}/events?after=0")["events"]
        begun[run] = {event["kind"]: event["at"] for event in events if event["kind"] in ("run.started", "run.ended")}
    assert begun[first]["run.ended"] <= begun[urgent]["run.started"]
    assert begun[urgent]["run.ended"] <= begun[patient]["run.started"]
