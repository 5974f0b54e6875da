"""The simulated federation: the round engine on a virtual clock, with a crew to do the sites' work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa.core import gate, trees
from hansa.core.protocols import Replies
from hansa.core.round import (
    Abandon,
    Assign,
    Command,
    Discard,
    Event,
    Lost,
    Opened,
    Policy,
    Refused,
    Replied,
    SetTimer,
    Ticked,
    begin,
    step,
)
from hansa.core.task import Failure, Reply, Shareable, Task
from hansa.core.trees import Tree
from hansa.errors import QuorumError, UpdateError
from hansa.simulation.clock import Agenda, VirtualClock
from hansa.simulation.faults import Fate, Faults, fate, spoil
from hansa.simulation.journal import Journal
from hansa.simulation.sites import Answer, Call, Crew

Keep = Callable[[int, str, int, Shareable], None]
Saved = tuple[int, Tree, Mapping[str, Any]]


@dataclass
class SimulatedFederation:
    """Sites that are simulated. Everything a workflow takes from outside comes through here.

    memory: what each site keeps, by slot and name; part of every checkpoint. on_report, on_checkpoint: where records and states go.
    saved: the checkpoint to go on from.
    """

    sites: Sequence[str]
    seed: int
    crew: Crew
    faults: Faults = field(default_factory=Faults)
    journal: Journal = field(default_factory=Journal)
    on_report: Callable[[dict[str, Any]], None] = lambda _: None
    on_checkpoint: Callable[[int, Tree, Mapping[str, Any]], None] | None = None
    on_answer: Callable[[int, int], None] = lambda *_: None
    on_failure: Callable[[Reply, int], None] = lambda *_: None
    keep: Keep | None = None
    saved: Saved | None = None
    memory: dict[int, dict[str, Tree]] = field(default_factory=dict)
    clock: VirtualClock = field(default_factory=VirtualClock)
    traffic: dict[str, int] = field(default_factory=lambda: {"bytes_up": 0, "bytes_down": 0})
    _since: float = field(default_factory=time.perf_counter)

    def task(self, task: Task, slots: Sequence[int], policy: Policy) -> Replies:
        """The admitted replies of the sites in slot order, as they come where nothing makes one site slower than another.

        Raises:
            QuorumError: while iterating: too few sites gave a usable reply.
        """
        recorded = self.journal.ask(task, slots)
        return _Asked(self, task, tuple(slots), policy) if recorded is None else recorded

    def checkpoint(self, round: int, state: Tree, notes: Mapping[str, Any]) -> None:  # noqa: A002  the protocol's word
        """Make the state after a round durable, with the sites' memories."""
        if self.on_checkpoint is not None:
            memory = {str(slot): dict(kept) for slot, kept in sorted(self.memory.items()) if kept}
            tree = {**state, "memory": memory} if memory else state
            self.on_checkpoint(round, tree, {**notes, "seq": self.journal.seq, "clock": self.clock.now()})

    def restore(self) -> Saved | None:
        """The checkpoint to go on from; asking for it says that the workflow checkpoints, so replies need not be recorded."""
        self.journal.checkpointed = True
        if self.saved is None:
            return None
        number, tree, notes = self.saved
        kept: Any = tree.get("memory", {})
        self.memory.update({int(slot): dict(names) for slot, names in kept.items()})
        self.journal.go_on(int(notes.get("seq", 0)))
        self.clock.advance_to(float(notes.get("clock", 0.0)))
        return number, {name: part for name, part in tree.items() if name != "memory"}, notes

    def report(self, record: Mapping[str, Any]) -> None:
        """Record a finished round, with its traffic and the seconds it took."""
        now = time.perf_counter()
        self.on_report({**record, **self.traffic, "seconds": round_s(now - self._since)})
        self._since, self.traffic = now, {"bytes_up": 0, "bytes_down": 0}


def round_s(seconds: float) -> float:
    """Seconds to the microsecond."""
    return round(seconds, 6)


class _Asked:
    """One task under way: drives the round engine with what befalls each site."""

    def __init__(self, federation: SimulatedFederation, task: Task, slots: tuple[int, ...], policy: Policy) -> None:
        self._f, self._task, self._slots, self._policy = federation, task, slots, policy
        self.refused: list[Reply] = []
        self.lost: list[Reply] = []
        self._agenda: Agenda[tuple[Call, Fate] | None] = Agenda(federation.clock)
        self._down = trees.nbytes(task.shareable.body)
        faults = federation.faults
        # With equal durations and no second attempts replies come in slot order, and none need be held back.
        self._in_order = policy.attempts == 1 and not (faults.spread or faults.straggle)

    def __iter__(self) -> Iterator[Reply]:
        state = begin(self._task.round, self._slots, self._policy)
        state, commands = step(state, Opened(self._f.clock.now()))
        self._assign(commands)
        self._f.crew.begin(self._task, self._calls(state.deadline), self._f.memory)
        held: dict[int, Reply] = {}
        self._check(commands)
        while state.phase == "open":
            coming = self._agenda.take()
            now = self._f.clock.now()
            if coming is None:
                state, commands = step(state, Ticked(now))
            else:
                (slot, attempt), what = coming
                answer = None if what.dropped else self._answer(coming[0], what.spoil)
                event = self._event(slot, attempt, now, answer)
                state, commands = step(state, event)
                wanted = not any(isinstance(c, Discard) for c in commands)
                if isinstance(event, Replied) and answer is not None and wanted:
                    reply = self._admitted(slot, answer)
                    if self._in_order:
                        yield reply
                    else:
                        held[slot] = reply
                elif wanted and not any(isinstance(c, Assign) for c in commands):
                    self._missed(event)
            self._assign(commands)
            self._check(commands)
        self.refused.sort(key=lambda reply: reply.slot)
        self.lost.sort(key=lambda reply: reply.slot)
        self.lost += [self._reply(s, Failure("late", "the round ended before the reply came")) for s in state.late]
        self._f.journal.done(self._task, self.refused, self.lost)
        for slot in sorted(held):
            yield held[slot]

    def _assign(self, commands: Sequence[Command]) -> None:
        now = self._f.clock.now()
        for command in commands:
            if isinstance(command, Assign):
                what = fate(self._f.faults, seed=self._f.seed, round=self._task.round, slot=command.slot, attempt=command.attempt)
                self._agenda.enter(now + what.duration_s, (Call(command.slot, command.attempt), what))
                self._f.traffic["bytes_down"] += self._down
            elif isinstance(command, SetTimer):
                self._agenda.enter(command.at, None)

    def _calls(self, deadline: float | None) -> list[Call]:
        """The calls whose answers will be asked for if all goes well, in that order."""
        coming = self._agenda.pending()
        return [item[0] for at, item in coming if item and not item[1].dropped and (deadline is None or at < deadline)]

    def _answer(self, call: Call, spoiled: Any) -> Answer:
        answer = self._f.crew.answer(call)
        self._f.on_answer(1, len(self._slots))
        if spoiled is not None and answer.failure is None and self._task.expect:
            answer = Answer(spoil(answer.reply, spoiled, expect=self._task.expect), None, answer.puts)
        self._f.traffic["bytes_up"] += trees.nbytes(answer.reply.body) if answer.failure is None else 0
        if self._f.keep is not None and answer.failure is None:
            self._f.keep(self._task.round, self._task.name, call.slot, answer.reply)
        return answer

    def _event(self, slot: int, attempt: int, now: float, answer: Answer | None) -> Replied | Refused | Lost:
        if answer is None:
            return Lost(slot, attempt, now)
        if answer.failure is not None:
            return Refused(slot, attempt, answer.failure, now)
        try:
            gate.admit(answer.reply, self._task.expect)
        except UpdateError as error:
            return Refused(slot, attempt, Failure(error.code, error.message, error.path), now)
        return Replied(slot, attempt, now)

    def _admitted(self, slot: int, answer: Answer) -> Reply:
        if answer.puts:
            self._f.memory.setdefault(slot, {}).update({name: trees.copy(tree) for name, tree in answer.puts.items()})
        self._f.journal.keep(slot, answer.reply)
        return Reply(slot, self._f.sites[slot], answer.reply)

    def _missed(self, event: Event) -> None:
        if isinstance(event, Refused):
            reply = self._reply(event.slot, event.failure)
            self.refused.append(reply)
            self._f.on_failure(reply, self._task.round)
        elif isinstance(event, Lost):
            self.lost.append(self._reply(event.slot, Failure("lost", "the site dropped out")))

    def _reply(self, slot: int, failure: Failure) -> Reply:
        return Reply(slot, self._f.sites[slot], Shareable(), failure)

    def _check(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, Abandon):
                first = next((r for r in self.refused if r.failure), None)
                why = f"site {first.site!r}: {first.failure.trace or first.failure.message}" if first and first.failure else None
                raise QuorumError(command.reason, round=self._task.round, task=self._task.name, hint=why)
