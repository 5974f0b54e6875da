"""A task without progress is given up after its run's patience, and no other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hansa.runtime.jobs import link
from hansa.runtime.protocol.messages import Progress
from hansa.runtime.server.bells import Bells
from hansa.runtime.server.known import stream_of
from hansa.runtime.server.progress import IDLE_S, Progresses
from hansa.runtime.server.state import Book
from hansa.runtime.store.event import Entry, Event

SUBMITTED = {
    "run": "r1", "job": "digits", "author": "lea", "org": "north", "bundle": "b" * 64, "bundle_bytes": 9, "data": "rows",
    "job_hash": "h", "reference": "digits.py:job", "seed": 7, "sites": ["a", "b"], "min_sites": 2, "priority": 0,
}  # fmt: skip
OPEN = link.Open(seq=1, task="train", round=1, body="d" * 64, body_bytes=4, slots=[0, 1])


class World:
    def __init__(self, progress_s: float | None = 100.0) -> None:
        self.book, self.gone = Book(), list[tuple[str, str, int, str]]()
        for entry in (
            Entry("run.submitted", {**SUBMITTED, "progress_s": progress_s}),
            Entry("run.started", {}),
            Entry("task.opened", msgspec.to_builtins(OPEN)),
        ):
            self.happens(entry.kind, entry.data)
        self.now = 0.0
        self.progresses = Progresses(self.book, Bells(), lambda *told: self.gone.append(told), clock=lambda: self.now)
        self.progresses.look()

    def happens(self, kind: str, data: Any) -> None:
        number = self.book.last + 1
        self.book.apply(Event(number, stream_of("r1"), number, kind, 0.0, data, "", ""))

    def at(self, now: float) -> list[tuple[str, str, int, str]]:
        """What is given up then."""
        self.now = now
        self.gone.clear()
        self.progresses.look()
        return list(self.gone)


def test_what_was_never_heard_of_again_is_given_up_with_its_reason() -> None:
    world = World()
    assert world.at(99.0) == []
    assert world.at(101.0) == [("r1", "a", 1, "no progress for 100 s"), ("r1", "b", 1, "no progress for 100 s")]


@pytest.mark.parametrize("moves", [{"bytes": 5}, {"steps": 1}, {"fraction": 0.1}, {"waits": "works from 20:00"}])
def test_bytes_steps_and_waiting_at_the_site_are_progress_and_saying_the_same_again_is_not(moves: dict[str, Any]) -> None:
    world = World()
    said = Progress(run="r1", seq=1, task="train", round=1)
    world.progresses.heard("a", [said])
    world.progresses.heard("b", [said])
    world.now = 50.0
    world.progresses.heard("a", [msgspec.structs.replace(said, **moves)])
    world.progresses.heard("b", [said])
    assert [site for _, site, _, _ in world.at(101.0)] == ["b"]
    assert world.progresses.at("r1")["a"] == msgspec.structs.replace(said, **moves)


def test_what_is_answered_or_may_take_its_time_is_left_alone() -> None:
    world = World()
    world.happens("result", {"seq": 1, "slot": 0, "attempt": 1, "blob": "e" * 64, "blob_bytes": 3})
    assert [site for _, site, _, _ in world.at(101.0)] == ["b"]
    patient = World(None)
    assert patient.at(10_000.0) == []


def test_it_wakes_when_the_next_task_could_be_too_late() -> None:
    world = World(10.0)
    assert world.progresses.look() == 10.0
    world.now = 8.0
    assert world.progresses.look() == 2.0
    assert World().progresses.look() == IDLE_S
