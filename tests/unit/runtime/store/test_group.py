"""Group commit: one fsync for many, each task told of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hansa.errors import InputError, StorageError
from hansa.runtime.audit.chain import Verified, verify
from hansa.runtime.store.event import Commit, Committed
from hansa.runtime.store.events import Entry, SqliteEvents
from hansa.runtime.store.group import GroupCommit


@pytest.fixture
def events(tmp_path: Path) -> Iterator[SqliteEvents]:
    with contextlib.closing(SqliteEvents(tmp_path / "events.sqlite")) as opened:
        yield opened


class Slow(SqliteEvents):
    """A store whose disk answers when it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.ready, self.transactions = threading.Event(), 0

    def transact(self, commits: Sequence[Commit]) -> list[Committed]:
        self.transactions += 1
        assert self.ready.wait(10)
        return super().transact(commits)


def test_commits_that_gather_share_a_transaction_and_each_gets_its_own_events(tmp_path: Path) -> None:
    async def main(slow: Slow) -> list[Committed]:
        async with GroupCommit(slow) as group:
            tasks = [asyncio.create_task(group.commit({f"s{i % 3}": [Entry("n", {"number": i})]}, at=float(i))) for i in range(60)]
            await asyncio.sleep(0)
            slow.ready.set()
            return await asyncio.gather(*tasks)

    with contextlib.closing(Slow(tmp_path / "events.sqlite")) as slow:
        done = asyncio.run(main(slow))
        assert [done[i][f"s{i % 3}"][0].data["number"] for i in range(60)] == list(range(60))
        assert slow.transactions <= 3
        assert isinstance(verify(slow.all()), Verified)


def test_what_cannot_be_recorded_fails_alone(events: SqliteEvents) -> None:
    async def main() -> list[Committed | BaseException]:
        async with GroupCommit(events) as group:
            batches = [{"s": [Entry("a", {})]}, {"s": [Entry("b", {"x": float("nan")})]}, {"s": [Entry("c", {})]}]
            return await asyncio.gather(*(group.commit(batch, at=0.0) for batch in batches), return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert isinstance(second, InputError)
    assert not isinstance(first, BaseException)
    assert not isinstance(third, BaseException)
    assert [event.kind for event in events.all()] == ["a", "c"]


def test_a_cancelled_task_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def main(slow: Slow) -> Committed:
        async with GroupCommit(slow) as group:
            first, second = (asyncio.create_task(group.commit({"s": [Entry(kind, {})]}, at=0.0)) for kind in "ab")
            await asyncio.sleep(0)
            first.cancel()
            slow.ready.set()
            return await second

    with contextlib.closing(Slow(tmp_path / "events.sqlite")) as slow:
        assert asyncio.run(main(slow))["s"][0].kind == "b"
        assert [event.kind for event in slow.all()] == ["a", "b"]


def test_leaving_waits_for_what_is_under_way_and_takes_nothing_new(tmp_path: Path) -> None:
    async def main(slow: Slow) -> Committed:
        async with GroupCommit(slow) as group:
            last = asyncio.create_task(group.commit({"s": [Entry("a", {})]}, at=0.0))
            await asyncio.sleep(0)
            slow.ready.set()
        with pytest.raises(StorageError, match="closed"):
            await group.commit({"s": [Entry("b", {})]}, at=0.0)
        return await last

    with contextlib.closing(Slow(tmp_path / "events.sqlite")) as slow:
        assert asyncio.run(main(slow))["s"][0].seq == 1


def test_a_store_that_fails_tells_every_task(events: SqliteEvents) -> None:
    async def main() -> list[Committed | BaseException]:
        async with GroupCommit(events) as group:
            return await asyncio.gather(*(group.commit({"s": [Entry("a", {})]}, at=0.0) for _ in range(3)), return_exceptions=True)

    events.close()
    assert all(isinstance(each, StorageError) for each in asyncio.run(main()))
