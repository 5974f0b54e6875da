"""Requests to single real sites, any number under way: each is a step of its own, taken in the order of the commits.

Time is the server's, from the first request on: 0 before it. A restarted workflow that asks for the same gets the same, in the same
order. A result that was committed before a time that had been waited for, and came to this process after it, is taken the other way
round then; if the workflow asks for something else because of that, it stops and names the step.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from hansa.core import gate, trees
from hansa.core.protocols import Arrived
from hansa.core.task import Failure, Reply, Shareable, Task
from hansa.errors import ConfigError, RefusedError, RunError, UpdateError
from hansa.runtime.jobs import link
from hansa.runtime.jobs.link import Came, Verdict

if TYPE_CHECKING:
    from hansa.runtime.server.federation import DeployedFederation

_LOST = Failure("lost", "the site dropped out")
_DROPPED = Failure("late", "the request was dropped before the reply came")


class DeployedExchange:
    """An `Exchange` of real sites."""

    def __init__(self, federation: DeployedFederation) -> None:
        self._f = federation
        self._sent: dict[int, tuple[Task, int]] = {}  # seq -> task, slot
        self._closed: set[int] = set()  # steps of which the end is on record
        self._came: list[tuple[float, int, int]] = []  # at, seq, attempt: a heap
        self._what: dict[tuple[int, int], Came] = {}
        self._base: float | None = None  # the server's time of the first request
        self._ahead = 0.0  # the server's clock over ours
        self._now = 0.0

    def now(self) -> float:
        """Seconds from the first request to what was taken last."""
        return self._now

    def send(self, task: Task, slot: int) -> int:
        """Ask one site; the number of the request.

        Raises:
            ConfigError: there is no such slot. RefusedError: the task promises a secure protocol, and there is none.
            ReplayError: a resumed workflow asks for something else than it had asked for.
        """
        f = self._f
        if task.secure:
            raise RefusedError(f"this federation has no secure protocol for {', '.join(task.secure)}", task=task.name)
        if not 0 <= slot < len(f.sites):
            raise ConfigError("there is no such slot", task=task.name, got=slot, expected=f"0 to {len(f.sites) - 1}")
        f.seq += 1
        sent = replace(task, seq=f.seq, shareable=f.outgoing(task.shareable))
        opened = f.open(sent, (slot,), f.seq, meanwhile=self._note)
        if self._base is None:
            self._base = opened.opened_at
        self._ahead = opened.now - time.monotonic()
        self._sent[f.seq] = sent, slot
        if opened.closed is not None:
            self._closed.add(f.seq)
        for came in opened.came:
            self._note(came)
        f.traffic["bytes_down"] += trees.nbytes(sent.shareable.body)
        return f.seq

    def next(self, until: float | None = None) -> Arrived | None:
        """What comes next; None at `until`, if nothing came before it.

        Raises:
            RunError: neither is there a time to wait for, nor anything under way. Aborted: the run is to end.
        """
        if until is None and not self._sent:
            raise RunError("nothing is under way, so that nothing will ever come", hint="send something, or wait until a time")
        while (came := self._first(until)) is None:
            left = None
            if until is not None:
                left = self._began() + until - self._ahead - time.monotonic()
                if left <= 0:
                    self._now = max(self._now, until)
                    return None
            message = self._f.receive(left)
            if isinstance(message, Came):
                self._note(message)
        return self._taken(came)

    def drop(self, number: int) -> None:
        """Give a request up; its site is told to stop."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            self._close(number, lost=[Verdict(sent[1], 0, _DROPPED)])

    def _began(self) -> float:
        """The server's time of the first request; its present time, if there is none yet."""
        if self._base is None:
            self._base = time.time()
            self._ahead = self._base - time.monotonic()
        return self._base

    def _note(self, came: Came) -> None:
        """Keep what was committed, once."""
        key = came.seq, came.attempt
        if key not in self._what:
            self._what[key] = came
            heapq.heappush(self._came, (came.at, *key))

    def _first(self, until: float | None) -> Came | None:
        """What was committed first of what is under way, if that was before `until`."""
        while self._came:
            at, seq, attempt = self._came[0]
            if seq in self._sent and until is not None and at - self._began() > until:
                return None
            heapq.heappop(self._came)
            if seq in self._sent:
                return self._what[seq, attempt]
        return None

    def _taken(self, came: Came) -> Arrived:
        task, slot = self._sent.pop(came.seq)
        self._now = max(self._now, came.at - self._began())
        failure = _LOST if came.lost else came.failure
        given = Shareable()
        if failure is None:
            try:
                given = self._f.read(str(came.blob))
                gate.admit(given, task.expect)
            except UpdateError as error:
                failure = Failure(error.code, str(error), error.path)
        size = trees.nbytes(given.body)
        self._f.traffic["bytes_up"] += size
        if failure is None:
            self._close(came.seq, admitted=[Verdict(slot, came.attempt)], bytes_up=size)
            return Arrived(came.seq, Reply(slot, self._f.sites[slot], given), self._now)
        verdict = [Verdict(slot, came.attempt, failure)]
        self._close(came.seq, **({"lost": verdict} if came.lost else {"refused": verdict}))
        reply = Reply(slot, self._f.sites[slot], Shareable(), failure)
        self._f.on_failure(reply, task)
        return Arrived(came.seq, reply, self._now)

    def _close(self, seq: int, **how: object) -> None:
        """Put the end of a step on record, once."""
        if seq not in self._closed:
            self._closed.add(seq)
            self._f.link.send(link.Close(seq=seq, **how))  # type: ignore[arg-type]  # the fields of Close
