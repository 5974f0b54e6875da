"""The rules of the inbox on real stores: each answer by its rule, each result counted once, the fold equal to what was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hansa.core.task import Failure
from hansa.errors import InputError
from hansa.runtime.jobs import link
from hansa.runtime.jobs.link import Came
from hansa.runtime.protocol.messages import Assignment, Result
from hansa.runtime.server.inbox import Clock, Inbox
from hansa.runtime.server.known import Run, stream_of
from hansa.runtime.server.state import KEPT, Book
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.event import Entry
from hansa.runtime.store.events import SqliteEvents
from hansa.runtime.store.group import GroupCommit

pytestmark = pytest.mark.anyio
SUBMITTED = {
    "run": "r1", "job": "digits", "author": "lea", "org": "north", "bundle": "b" * 64, "bundle_bytes": 9, "data": "rows",
    "job_hash": "h", "reference": "digits.py:job", "seed": 7, "sites": ["a", "b", "c"], "min_sites": 2, "priority": 0,
}  # fmt: skip
OPEN = link.Open(seq=1, task="train", round=1, body="d" * 64, body_bytes=4, slots=[0, 1, 2])


class World:
    def __init__(self, folder: Path) -> None:
        self.events = SqliteEvents(folder / "events.sqlite")
        self.blobs = FileBlobs(folder / "blobs", reserve_bytes=0)
        self.came: list[Came] = []
        self.gone: set[str] = set()

    @contextlib.asynccontextmanager
    async def inbox(self) -> AsyncIterator[Inbox]:
        async with GroupCommit(self.events) as group:
            inbox = Inbox(self.folded(), group, self.blobs, Clock())
            inbox.on_came = lambda _, came: self.came.append(came)
            yield inbox
            await inbox.close()

    def folded(self) -> Book:
        book = Book()
        for event in self.events.all():
            book.apply(event)
        return book

    def absent(self, run: Run, site: str) -> Entry | None:
        return Entry("task.lost", {"reason": "not there"}) if site in self.gone else None

    async def begun(self, inbox: Inbox) -> Run:
        """A run that three sites have accepted, and its first step."""
        start = [Entry("run.submitted", SUBMITTED), Entry("run.offered", {})]
        await inbox.commit({stream_of("r1"): start})
        for slot, site in enumerate("abc"):
            assert (await inbox.answer(site, Result("r1", 0, 1, slot))).outcome == "accepted"
        run = inbox.book.runs["r1"]
        await inbox.commit({stream_of("r1"): [Entry("run.started", {})]})
        await inbox.open(run, OPEN, self.absent)
        return run

    def result(self, slot: int, *, content: bytes = b"reply", seq: int = 1, attempt: int = 1) -> Result:
        blob = self.blobs.put([content])
        return Result("r1", seq, attempt, slot, blob=blob.digest, blob_bytes=blob.size)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def always() -> None:
    """Everybody may poll."""


def plain(book: Book) -> Any:
    """The book as data."""
    return msgspec.to_builtins({"runs": book.runs, "sites": book.sites, "epoch": book.epoch, "last": book.last})


async def test_a_result_is_committed_counted_once_and_a_repeat_gets_the_same_answer(world: World) -> None:
    async with world.inbox() as inbox:
        await world.begun(inbox)
        result = world.result(0)
        answers = await asyncio.gather(*(inbox.answer("a", result) for _ in range(5)))
        assert {ack.outcome for ack in answers} == {"accepted"}
        assert [came.slot for came in world.came] == [0]
        assert len([event for event in world.events.read("run/r1") if event.kind == "result"]) == 1


@pytest.mark.parametrize(
    ("site", "change", "outcome"),
    [
        ("a", {}, "duplicate"),  # other bytes for what was counted
        ("b", {"slot": 1, "attempt": 2}, "foreign"),  # an attempt that was never given out
        ("b", {"slot": 1, "attempt": 0}, "foreign"),
        ("b", {"slot": 0}, "foreign"),  # another site's slot
        ("x", {"slot": 1}, "foreign"),
        ("b", {"slot": 1, "seq": 9}, "foreign"),  # a step that never was
        ("b", {"slot": 1, "run": "r2"}, "foreign"),
    ],
)
async def test_what_does_not_count_is_answered_by_its_rule_and_changes_nothing(
    world: World, site: str, change: dict[str, Any], outcome: str
) -> None:
    async with world.inbox() as inbox:
        await world.begun(inbox)
        await inbox.answer("a", world.result(0))
        before = plain(inbox.book)
        changed = msgspec.structs.replace(world.result(0, content=b"other"), **change)
        assert (await inbox.answer(site, changed)).outcome == outcome
        assert plain(inbox.book) == before


async def test_a_lower_attempt_is_stale_and_the_new_one_counts(world: World) -> None:
    async with world.inbox() as inbox:
        run = await world.begun(inbox)
        for _ in range(3):  # whoever looks again before it is on record gives nothing up twice
            inbox.lose("a", "silent")
        assert (await inbox.answer("a", world.result(0))).outcome == "late"
        assert [event.kind for event in world.events.read("run/r1")].count("task.lost") == 1
        await inbox.again(run, link.Assign(seq=1, again=[(0, 2)]), world.absent)
        assert (await inbox.answer("a", world.result(0))).outcome == "stale"
        assert (await inbox.answer("a", world.result(0, attempt=2))).outcome == "accepted"
        assert [(came.slot, came.attempt, came.lost) for came in world.came] == [(0, 1, True), (0, 2, False)]


async def test_after_a_step_has_closed_what_comes_is_late_and_after_the_run_it_has_ended(world: World) -> None:
    async with world.inbox() as inbox:
        await world.begun(inbox)
        await inbox.answer("a", world.result(0))
        await inbox.commit({stream_of("r1"): [Entry("task.closed", msgspec.to_builtins(link.Close(seq=1)))]})
        assert (await inbox.answer("b", world.result(1))).outcome == "late"
        assert (await inbox.answer("a", world.result(0))).outcome == "accepted"
        work = await inbox.poll("b", 0, 0.0, always)
        assert [(ended.run, ended.seq) for ended in work.ended] == [("r1", 1)]
        await inbox.commit({stream_of("r1"): [Entry("run.ended", {"state": "completed", "reason": ""})]})
        assert (await inbox.answer("b", world.result(1))).outcome == "ended"


async def test_what_is_being_committed_while_the_run_ends_changes_nothing_and_the_server_can_start_again(world: World) -> None:
    async with world.inbox() as inbox:
        await world.begun(inbox)
        ended = Entry("run.ended", {"state": "aborted", "reason": "by hand"})
        closed = Entry("task.closed", msgspec.to_builtins(link.Close(seq=1)))
        aborting = inbox.begin({stream_of("r1"): [ended]})
        answering = asyncio.create_task(inbox.answer("a", world.result(0)))  # judged while the run goes on
        closing = inbox.begin({stream_of("r1"): [closed, Entry("run.ended", {"state": "failed", "reason": "too late"})]})
        await asyncio.gather(aborting, answering, closing)
        assert [event.kind for event in world.events.read("run/r1")][-4:] == ["run.ended", "task.closed", "run.ended", "result"]
        assert (inbox.book.runs["r1"].state, inbox.book.runs["r1"].reason) == ("aborted", "by hand")
        assert plain(world.folded()) == plain(inbox.book)


@pytest.mark.parametrize("first", ["run.ended", "task.closed", "task.lost"])
async def test_a_result_that_was_being_committed_when_the_step_ended_changes_nothing_and_its_site_is_told(
    world: World, first: str
) -> None:
    entries = {
        "run.ended": {"state": "aborted", "reason": "wrong data"},
        "task.closed": msgspec.to_builtins(link.Close(seq=1)),
        "task.lost": {"seq": 1, "slot": 0, "attempt": 1, "reason": "silent"},
    }
    async with world.inbox() as inbox:
        await world.begun(inbox)
        ending = inbox.begin({stream_of("r1"): [Entry(first, entries[first])]})  # on its way; nothing has changed yet
        assert (await inbox.answer("a", world.result(0))).outcome == "accepted"
        await ending
        step = inbox.book.runs["r1"].steps.get(1)
        assert (step.came if step else []) == ([] if first != "task.lost" else world.came)
        assert [came.lost for came in world.came] == ([True] if first == "task.lost" else [])
        work = await inbox.poll("a", 0, 0.0, always)
        if first == "run.ended":
            assert [(ended.run, ended.reason) for ended in work.ended] == [("r1", "wrong data")]
        else:
            assert [(each.run, each.seq, each.attempt) for each in work.not_counted] == [("r1", 1, 1)]
        inbox.book.site("a").items.clear()  # what was said once is forgotten; the fold says it again
        folded = world.folded()
        folded.site("a").items.clear()
        assert plain(folded) == plain(inbox.book)


async def test_a_step_that_was_being_opened_when_the_run_ended_is_not_open_and_nobody_is_asked(world: World) -> None:
    async with world.inbox() as inbox:
        run = await world.begun(inbox)
        ending = inbox.begin({stream_of("r1"): [Entry("run.ended", {"state": "aborted", "reason": "wrong data"})]})
        with pytest.raises(InputError, match="the run has ended"):
            await inbox.open(run, msgspec.structs.replace(OPEN, seq=2, round=2), world.absent)
        await ending
        assert (await inbox.poll("b", 0, 0.0, always)).assignments == []
        assert plain(world.folded()) == plain(inbox.book)


async def test_a_site_whose_acknowledged_result_did_not_count_is_told_once_and_before_its_next_task(world: World) -> None:
    async with world.inbox() as inbox:
        run = await world.begun(inbox)
        for slot, site in enumerate("abc"):
            await inbox.answer(site, world.result(slot, content=site.encode()))
        refused = link.Verdict(1, 0, Failure("not_finite", "an entry is nan"))
        closed = link.Close(seq=1, admitted=[link.Verdict(0, 1), link.Verdict(2, 1)], refused=[refused])
        await inbox.commit({stream_of("r1"): [Entry("task.closed", msgspec.to_builtins(closed))]})
        drop = link.Drop(seq=1, dropped=[link.Verdict(2, 0, Failure("update", "above the bound"))])  # by the aggregator, later
        await inbox.commit({stream_of("r1"): [Entry("task.dropped", msgspec.to_builtins(drop))]})
        await inbox.open(run, msgspec.structs.replace(OPEN, seq=2, round=2), world.absent)
        assert (await inbox.poll("a", 0, 0.0, always)).not_counted == []
        for site, slot, reason in (("b", 1, "an entry is nan"), ("c", 2, "above the bound")):
            work = await inbox.poll(site, 0, 0.0, always)
            assert [(each.seq, each.attempt, each.slot, each.reason) for each in work.not_counted] == [(1, 1, slot, reason)]
            assert [each.seq for each in work.assignments] == [2]
            assert (await inbox.poll(site, work.after, 0.0, always)).not_counted == []
        assert {site for site in "abc" if site in run.contributed} == {"a", "c"}


async def test_a_result_whose_answer_was_lost_is_known_however_far_its_step_lies_behind(world: World) -> None:
    async with world.inbox() as inbox:
        await world.begun(inbox)
        counted = world.result(0)
        await inbox.answer("a", counted)
        closed = link.Close(seq=1, admitted=[link.Verdict(0, 1)])
        passed = [Entry("task.closed", msgspec.to_builtins(closed)), Entry("checkpoint", {"seq": 1 + KEPT, "round": 1 + KEPT})]
        await inbox.commit({stream_of("r1"): passed})
        assert (await inbox.answer("a", counted)).outcome == "accepted"
        assert (await inbox.answer("a", world.result(0, content=b"other"))).outcome == "late"
        assert (await inbox.answer("b", world.result(1))).outcome == "late"
        assert plain(world.folded()) == plain(inbox.book)


async def test_a_result_whose_blob_is_not_here_is_refused_and_can_come_again(world: World) -> None:
    async with world.inbox() as inbox:
        await world.begun(inbox)
        with pytest.raises(InputError, match="blob is not here"):
            await inbox.answer("a", Result("r1", 1, 1, 0, blob="e" * 64, blob_bytes=3))
        assert (await inbox.answer("a", world.result(0))).outcome == "accepted"


async def test_a_poll_is_answered_when_there_is_something_and_lists_what_is_unfinished_from_the_start(world: World) -> None:
    async with world.inbox() as inbox:
        waiting = asyncio.create_task(inbox.poll("a", 0, 20.0, always))
        await asyncio.sleep(0)
        await inbox.commit({stream_of("r1"): [Entry("run.submitted", SUBMITTED), Entry("run.offered", {})]})
        offer = (await waiting).offers[0]
        assert (offer.run, offer.slot, offer.author) == ("r1", 0, "lea")
        await inbox.answer("a", Result("r1", 0, 1, 0))
        assert (await inbox.poll("a", 0, 0.0, always)).offers == []
        await inbox.open(inbox.book.runs["r1"], OPEN, world.absent)
        first = await inbox.poll("a", 0, 0.0, always)
        assert await inbox.poll("a", first.after, 0.0, always) == msgspec.structs.replace(first, assignments=[])
        assert (await inbox.poll("a", 0, 0.0, always)).assignments == first.assignments
        wanted = Assignment(
            run="r1", seq=1, attempt=1, slot=0, task="train", round=1, body="d" * 64, body_bytes=4, bundle="b" * 64, seed=7,
            population=3, job="digits", data="rows",
        )  # fmt: skip
        assert first.assignments == [wanted]


async def test_a_poll_of_a_site_that_may_not_go_on_is_cut_when_the_bells_ring(world: World) -> None:
    allowed = True

    async def may() -> None:
        if not allowed:
            raise InputError("revoked")

    async with world.inbox() as inbox:
        waiting = asyncio.create_task(inbox.poll("a", 0, 20.0, may))
        await asyncio.sleep(0)
        allowed = False
        inbox.bells.ring_all()
        with pytest.raises(InputError, match="revoked"):
            await waiting


async def test_a_site_that_is_not_there_is_not_asked_and_the_run_hears_of_it_with_the_step(world: World) -> None:
    world.gone = {"c"}
    async with world.inbox() as inbox:
        run = await world.begun(inbox)
        step = await inbox.open(run, OPEN, world.absent)
        assert [(came.slot, came.lost) for came in step.came] == [(2, True)]
        assert (await inbox.poll("c", 0, 0.0, always)).assignments == []


async def test_a_restarted_run_is_answered_with_what_was_committed_in_order_and_a_changed_one_is_told_so(world: World) -> None:
    async with world.inbox() as inbox:
        run = await world.begun(inbox)
        for slot in (2, 0):
            await inbox.answer("abc"[slot], world.result(slot))
        again = await inbox.open(run, OPEN, world.absent)
        assert [came.slot for came in again.came] == [2, 0]
        assert again.differs is None
        other = msgspec.structs.replace(OPEN, body="f" * 64)
        assert "task 'train' of round 1" in str((await inbox.open(run, other, world.absent)).differs)


async def test_the_fold_of_the_events_is_what_the_server_knew(world: World) -> None:
    async with world.inbox() as inbox:
        run = await world.begun(inbox)
        await inbox.answer("a", world.result(0))
        await inbox.answer("b", Result("r1", 1, 1, 1, code="client", message="boom", trace="Traceback"))
        inbox.lose("c", "silent")
        await inbox.close()
        await inbox.commit({stream_of("r1"): [Entry("task.closed", msgspec.to_builtins(link.Close(seq=1)))]})
        await inbox.commit({stream_of("r1"): [Entry("checkpoint", {"seq": 1, "round": 1})]})
        await inbox.open(run, msgspec.structs.replace(OPEN, seq=2, round=2), world.absent)
        assert plain(world.folded()) == plain(inbox.book)


async def test_what_a_step_held_is_spent_when_two_checkpoints_lie_before_it_and_nothing_else_needs_it(world: World) -> None:
    async with world.inbox() as inbox:
        run = await world.begun(inbox)
        shared, own = world.result(1, content=b"sent again"), world.result(0, content=b"once")
        for site, result in (("a", own), ("b", shared)):
            await inbox.answer(site, result)
        await inbox.open(run, msgspec.structs.replace(OPEN, seq=2, round=2, body="e" * 64), world.absent)
        await inbox.answer("b", msgspec.structs.replace(shared, seq=2))
        await inbox.commit({stream_of("r1"): [Entry("checkpoint", {"seq": 1, "round": 1})]})
        assert inbox.book.spent_blobs(run) == set()  # the last checkpoint may be damaged
        await inbox.commit({stream_of("r1"): [Entry("checkpoint", {"seq": 2, "round": 2})]})
        assert inbox.book.spent_blobs(run) == {OPEN.body, own.blob}
        assert shared.blob in set(inbox.book.wanted_blobs())
        assert plain(world.folded()) == plain(inbox.book)
