"""Requests to single simulated sites, any number under way, on the virtual clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hansa.core import trees
from hansa.core.protocols import Arrived
from hansa.core.task import Failure, Reply, Shareable, Task
from hansa.errors import ConfigError, RunError
from hansa.simulation.clock import Agenda
from hansa.simulation.faults import Fate, fate
from hansa.simulation.sites import Call, read_only

if TYPE_CHECKING:
    from hansa.simulation.federation import SimulatedFederation

_DROPPED = Failure("lost", "the site dropped out")


class SimulatedExchange:
    """An `Exchange` of simulated sites: a site does its work when what came of it is taken, one request after the other.

    A site takes as long over each as the federation's faults say, in virtual time; of two that come at one time, the one that was
    sent first comes first.
    """

    def __init__(self, federation: SimulatedFederation) -> None:
        self._f = federation
        self._agenda: Agenda[tuple[int, int]] = Agenda(federation.clock)  # number, slot
        self._sent: dict[int, tuple[Task, Fate]] = {}
        self._busy: dict[int, float] = {}  # slot -> when it will be done with what it was asked
        self._last = 0

    def now(self) -> float:
        """Virtual seconds."""
        return self._f.clock.now()

    def send(self, task: Task, slot: int) -> int:
        """Ask one site; the number of the request. A site does one thing after the other.

        Raises:
            ConfigError: there is no such slot.
        """
        if not 0 <= slot < len(self._f.sites):
            raise ConfigError("there is no such slot", task=task.name, got=slot, expected=f"0 to {len(self._f.sites) - 1}")
        self._last += 1
        given = self._f.outgoing(task.shareable)
        sent = replace(task, seq=self._last, shareable=replace(given, body=read_only(given.body)))
        what = fate(self._f.faults, seed=self._f.seed, round=task.round, slot=slot, attempt=self._last, task=task.name)
        done = max(self.now(), self._busy.get(slot, 0.0)) + what.duration_s
        self._sent[self._last], self._busy[slot] = (sent, what), done
        self._agenda.enter(done, (self._last, slot))
        self._f.traffic["bytes_down"] += trees.nbytes(given.body)
        return self._last

    def next(self, until: float | None = None) -> Arrived | None:
        """What comes next; None at `until`, if nothing came before it.

        Raises:
            RunError: neither is there a time to wait for, nor anything under way.
        """
        while len(self._agenda):
            at = self._agenda.pending()[0][0]
            if until is not None and at > until:
                break
            number, slot = self._agenda.take()
            if number in self._sent:
                return Arrived(number, self._reply(*self._sent.pop(number), slot), self.now())
        if until is None:
            raise RunError("nothing is under way, so that nothing will ever come", hint="send something, or wait until a time")
        self._f.clock.advance_to(max(until, self.now()))
        return None

    def drop(self, number: int) -> None:
        """Forget a request: its site does not do it."""
        self._sent.pop(number, None)

    def _reply(self, task: Task, what: Fate, slot: int) -> Reply:
        site = self._f.sites[slot]
        if what.dropped:
            return Reply(slot, site, Shareable(), _DROPPED)
        call = Call(slot, 1)
        self._f.crew.begin(task, [call], self._f.memory)
        answer = self._f.crew.answer(call)
        if answer.tracked:
            at = {"site": site, "kind": "metric", "task": task.name, "round": task.round}
            self._f.on_tracked([at | told._asdict() for told in answer.tracked])
        if answer.failure is not None:
            reply = Reply(slot, site, Shareable(), answer.failure)
            self._f.on_failure(reply, task)
            return reply
        kept = {name: read_only(trees.copy(tree)) for name, tree in answer.puts.items()}
        self._f.memory.setdefault(slot, {}).update(kept)
        self._f.traffic["bytes_up"] += trees.nbytes(answer.reply.body)
        given = answer.reply
        return Reply(slot, site, Shareable(read_only(given.body), given.metrics, given.headers))
