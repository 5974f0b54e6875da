"""The simulated federation: the round engine on a virtual clock, with a crew to do the sites' work."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec
import numpy as np

from hansa.core import gate, trees
from hansa.core.protocols import Replies
from hansa.core.rng import generator
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
from hansa.core.task import Block, Expect, Failure, Reply, Shareable, Task
from hansa.core.trees import Tree
from hansa.errors import ConfigError, QuorumError, RunError, UpdateError
from hansa.simulation.clock import Agenda, VirtualClock
from hansa.simulation.exchange import SimulatedExchange
from hansa.simulation.faults import Fate, Faults, Kind, fate, spoil
from hansa.simulation.journal import Journal, Recorded
from hansa.simulation.sites import Answer, Call, Crew, read_only

Keep = Callable[[int, str, int, Shareable], None]
Saved = tuple[int, Tree, Mapping[str, Any]]

_MEMORY, _NOTES = "memory", "federation"  # what the federation adds to a checkpoint's state and to its notes


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
    on_failure: Callable[[Reply, Task], None] = lambda *_: None
    on_tracked: Callable[[list[dict[str, Any]]], None] = lambda _: None
    outgoing: Callable[[Shareable], Shareable] = lambda given: given
    keep: Keep | None = None
    saved: Saved | None = None
    memory: dict[int, dict[str, Tree]] = field(default_factory=dict)
    clock: VirtualClock = field(default_factory=VirtualClock)
    traffic: dict[str, int] = field(default_factory=lambda: {"bytes_up": 0, "bytes_down": 0})
    underway: object = None
    _since: float = field(default_factory=time.perf_counter)

    def task(self, task: Task, slots: Sequence[int], policy: Policy) -> Replies:
        """The admitted replies of the sites in slot order, as they come where nothing makes one site slower than another.

        The sites work while the replies are taken: once, and before the next task's are.

        Raises:
            ConfigError: a slot is none of the job's. QuorumError: while iterating: too few sites gave a usable reply.
        """
        asked = tuple(operator.index(slot) for slot in slots)
        for slot in (min(asked, default=0), max(asked, default=0)):
            if not 0 <= slot < len(self.sites):
                raise ConfigError("there is no such slot", task=task.name, got=slot, expected=f"0 to {len(self.sites) - 1}")
        recorded = self.journal.ask(task, asked)
        if recorded is not None:
            return self._recalled(recorded)
        given = self.outgoing(task.shareable)
        sent = replace(task, shareable=replace(given, body=read_only(given.body)))
        return _Asked(self, sent, asked, policy, self.journal.seq)

    def exchange(self) -> SimulatedExchange:
        """Requests to single sites. They are not kept in the journal: a resumed workflow asks all of them again.

        Raises:
            ConfigError: replies should be spoiled or kept, which those of rounds alone are.
        """
        if self.faults.bad or self.keep is not None:
            path = "faults.bad" if self.faults.bad else "keep_updates"
            raise ConfigError("replies to single requests are neither spoiled nor kept", path=path, hint="leave it out")
        return SimulatedExchange(self)

    def checkpoint(self, round: int, state: Tree, notes: Mapping[str, Any]) -> None:  # noqa: A002  the protocol's word
        """Make the state after a round durable, with the sites' memories.

        Raises:
            ConfigError: the state or the notes use a name that is the federation's own. RunError: the workflow never asked for a
                checkpoint to go on from, so it could not be resumed.
        """
        if not self.journal.checkpointed:
            raise RunError("a workflow that checkpoints begins with `federation.restore()`", round=round)
        if taken := [name for name, where in ((_MEMORY, state), (_NOTES, notes)) if name in where]:
            raise ConfigError("this name is the federation's own", path=taken[0], round=round, hint="call it something else")
        if self.on_checkpoint is not None:
            memory = {str(slot): dict(kept) for slot, kept in sorted(self.memory.items()) if kept}
            tree = {**state, _MEMORY: memory} if memory else state
            own = {"seq": self.journal.seq, "clock": self.clock.now(), **self.traffic}
            self.on_checkpoint(round, tree, {**_plain(notes), _NOTES: own})

    def restore(self) -> Saved | None:
        """The checkpoint to go on from; asking for it says that the workflow checkpoints, so replies need not be recorded."""
        self.journal.checkpointed = True
        if self.saved is None:
            return None
        number, tree, notes = self.saved
        kept: Any = tree.get(_MEMORY, {})
        self.memory.update({int(slot): read_only(names) for slot, names in kept.items()})
        own = notes[_NOTES]
        self.journal.go_on(own["seq"])
        self.clock.advance_to(own["clock"])
        self.traffic = {name: own[name] for name in self.traffic}
        state = {name: part for name, part in tree.items() if name != _MEMORY}
        return number, state, {name: note for name, note in notes.items() if name != _NOTES}

    def report(self, record: Mapping[str, Any]) -> None:
        """Record a finished round, with its traffic and the seconds it took.

        Raises:
            ConfigError: the record holds something else than numbers, text, lists and mappings.
        """
        now = time.perf_counter()
        self.on_report({**_plain(record), **self.traffic, "seconds": round(now - self._since, 6)})
        self._since, self.traffic = now, {"bytes_up": 0, "bytes_down": 0}

    def _recalled(self, recorded: Recorded) -> Replies:
        """A task that ended before a crash, with what it left behind: memories, time, traffic."""
        for slot, puts in recorded.memories():
            self.memory.setdefault(slot, {}).update(read_only(puts))
        self.clock.advance_to(recorded.step.clock)
        self.traffic = {name: total + recorded.step.traffic.get(name, 0) for name, total in self.traffic.items()}
        return recorded


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that JSON can hold."""
    return cast(dict[str, Any], msgspec.to_builtins(record, enc_hook=_number))


def _number(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 and value.dtype.kind in "biuf":
        return value.item()
    raise ConfigError("not for a record", got=type(value).__name__, expected="numbers, text, lists and mappings")


class _Asked:
    """One task under way: drives the round engine with what befalls each site."""

    def __init__(self, federation: SimulatedFederation, task: Task, slots: tuple[int, ...], policy: Policy, seq: int) -> None:
        self._f, self._task, self._slots, self._policy, self._seq = federation, task, slots, policy, seq
        self.refused: list[Reply] = []
        self.lost: list[Reply] = []
        self._puts: dict[int, Mapping[str, Tree]] = {}  # kept when the task has ended, of those that count
        self._dropped: list[int] = []
        self._agenda: Agenda[tuple[Call, Fate] | None] = Agenda(federation.clock)
        self._down = trees.nbytes(task.shareable.body)
        self._traffic = {"bytes_up": 0, "bytes_down": 0}
        self._answered = 0
        self._taken = False
        # What has a spec is an update; the sums of an evaluation pass the gate too, and only have to be finite.
        self._updates = any(part.spec is not None for part in task.expect)
        faults = federation.faults
        # With equal durations and no second attempts replies come in slot order, and none need be held back.
        self._in_order = policy.attempts == 1 and not (faults.spread or faults.straggle)
        self._drawn: dict[int, int] = {}

    def __iter__(self) -> Iterator[Reply]:
        return cast(Iterator[Reply], self._replies(blocks=False))

    def together(self) -> Iterator[Reply | Block]:
        """The replies, many as one block where the crew computes them so and no one of them is to be looked at by itself."""
        f = self._f
        plain = f.keep is None and not (f.faults.dropout or f.faults.bad or f.journal.keeps(self._seq))
        return self._replies(blocks=plain and hasattr(f.crew, "together"))

    def _replies(self, *, blocks: bool) -> Iterator[Reply | Block]:
        self._take()
        state = begin(self._task.round, self._slots, self._policy)
        if state.target < len(self._slots):
            self._draw_lots()
        state, commands = step(state, Opened(self._f.clock.now()))
        self._obey(sorted(commands, key=self._lot) if self._drawn else commands)
        self._f.crew.begin(self._task, self._calls(state.deadline), self._f.memory)
        held: list[Reply] = []
        while state.phase == "open":
            if blocks and self._in_order and (block := self._block(state.deadline)) is not None:
                for slot in block.slots:
                    self._agenda.take()
                    state, commands = step(state, Replied(slot, 1, self._f.clock.now()))
                yield block
                del block
                continue
            blocks = False  # a site is at fault: the sites of this task are answered one by one
            event, answer = self._next()
            state, commands = step(state, event)
            reply = self._counted(event, answer, commands)
            if reply is not None and self._in_order:
                yield reply
            elif reply is not None:
                held.append(reply)
            self._obey(commands)
        self.refused.sort(key=_slot)
        self.lost = sorted(self.lost, key=_slot) + [self._failed(slot, _LATE) for slot in state.late]
        ended = self._f.clock.now()
        yield from sorted(held, key=_slot)
        self._remember()
        journal, who = self._f.journal, (state.admitted, self.refused, self.lost)
        journal.done(self._seq, *who, dropped=self._dropped, clock=ended, traffic=self._traffic)

    def _block(self, deadline: float | None) -> Block | None:
        """The next replies that are computed together, if all of them pass the gate."""
        if not (coming := self._calls(deadline)):
            return None
        found = self._f.crew.together(coming[0])  # type: ignore[attr-defined]  # `together` has seen that there is one
        if found is None:
            return None
        slots = [call.slot for call in found[0]]
        block = Block(slots, [self._f.sites[slot] for slot in slots], read_only(found[1].body), found[1].metrics)
        if not gate.admits_all(block, self._task.expect):
            return None
        self._answered += len(slots)
        if self._updates:
            self._f.on_answer(self._answered, len(self._slots))
        self._moved("bytes_up", trees.nbytes(block.body))
        return block

    def drop(self, reply: Reply) -> None:
        """An admitted reply could not be added: its site forgets what it put into its memory with it."""
        self._puts.pop(reply.slot, None)
        self._dropped.append(reply.slot)

    def _remember(self) -> None:
        """Keep what the sites have put into their memories with the replies that count."""
        for slot, puts in sorted(self._puts.items()):
            kept = {name: read_only(trees.copy(tree)) for name, tree in puts.items()}
            self._f.memory.setdefault(slot, {}).update(kept)

    def _draw_lots(self) -> None:
        """Where the first to answer fill the cohort, of those that answer at one time the lot decides, and not the lower slot."""
        rng = generator(self._f.seed, round=self._task.round, purpose=f"ties/{self._task.name}")
        self._drawn = dict(zip(self._slots, rng.permutation(len(self._slots)).tolist(), strict=True))
        self._in_order = False

    def _lot(self, command: Command) -> int:
        return self._drawn[command.slot] if isinstance(command, Assign) else len(self._drawn)

    def _take(self) -> None:
        if self._taken:
            raise RunError("the replies of a task can be taken once", task=self._task.name, hint="keep them in a list")
        self._taken, self._f.underway = True, self

    def _calls(self, deadline: float | None) -> list[Call]:
        """The calls whose answers will be asked for if all goes well, in that order."""
        coming = self._agenda.pending()
        return [item[0] for at, item in coming if item and not item[1].dropped and (deadline is None or at < deadline)]

    def _next(self) -> tuple[Event, Answer | None]:
        """What happens next, with the site's answer where there is one."""
        if self._f.underway is not self:
            raise RunError("the next task began before all replies of this one were taken", task=self._task.name)
        coming = self._agenda.take()
        now = self._f.clock.now()
        if coming is None:
            return Ticked(now), None
        (slot, attempt), what = coming
        if what.dropped:
            return Lost(slot, attempt, now), None
        answer = self._answer(Call(slot, attempt), what.spoil)
        failure = answer.failure or _objection(answer.reply, self._task.expect)
        return (Replied(slot, attempt, now) if failure is None else Refused(slot, attempt, failure, now)), answer

    def _answer(self, call: Call, spoiled: Kind | None) -> Answer:
        answer = self._f.crew.answer(call)
        if answer.tracked:
            at = {"site": self._f.sites[call.slot], "kind": "metric", "task": self._task.name, "round": self._task.round}
            self._f.on_tracked([at | told._asdict() for told in answer.tracked])
        self._answered += 1
        if self._updates:  # training: what else a round asks for is quick, and would move the bar back
            self._f.on_answer(self._answered, len(self._slots))
        if answer.failure is not None:
            return answer
        if spoiled is not None and self._updates:
            answer = msgspec.structs.replace(answer, reply=spoil(answer.reply, spoiled, expect=self._task.expect))
        self._moved("bytes_up", trees.nbytes(answer.reply.body))
        if self._f.keep is not None:
            self._f.keep(self._task.round, self._task.name, call.slot, answer.reply)
        return answer

    def _counted(self, event: Event, answer: Answer | None, commands: Sequence[Command]) -> Reply | None:
        """The reply, if it was admitted. A site that was refused or lost for good is remembered."""
        if commands and any(
            isinstance(command, Discard | Assign) for command in commands
        ):  # it came too late, or the site is asked again
            return None
        if isinstance(event, Replied) and answer is not None:
            return self._admitted(event.slot, answer)
        if isinstance(event, Refused):
            self.refused.append(self._failed(event.slot, event.failure))
            self._f.on_failure(self.refused[-1], self._task)
        elif isinstance(event, Lost):
            self.lost.append(self._failed(event.slot, _DROPPED))
        return None

    def _admitted(self, slot: int, answer: Answer) -> Reply:
        if answer.puts:
            self._puts[slot] = answer.puts
        self._f.journal.keep(self._seq, slot, answer.reply, answer.puts)
        # Views, as a replayed reply has them: in this process a reply may be the site's own array.
        sent = answer.reply
        return Reply(slot, self._f.sites[slot], Shareable(read_only(sent.body), sent.metrics, sent.headers))

    def _failed(self, slot: int, failure: Failure) -> Reply:
        return Reply(slot, self._f.sites[slot], Shareable(), failure)

    def _obey(self, commands: Sequence[Command]) -> None:
        now = self._f.clock.now()
        for command in commands:
            match command:
                case Assign(slot, attempt):
                    key = {"seed": self._f.seed, "round": self._task.round, "slot": slot, "attempt": attempt}
                    what = fate(self._f.faults, task=self._task.name, **key)
                    self._agenda.enter(now + what.duration_s, (Call(slot, attempt), what))
                    self._moved("bytes_down", self._down)
                case SetTimer(at):
                    self._agenda.enter(at, None)
                case Abandon(reason):
                    raise QuorumError(reason, round=self._task.round, task=self._task.name, hint=self._why())

    def _moved(self, way: str, size: int) -> None:
        self._f.traffic[way] += size
        self._traffic[way] += size

    def _why(self) -> str | None:
        """The first refusal."""
        first = next(iter(self.refused), None)
        return None if first is None or first.failure is None else f"site {first.site!r}: {first.failure.message}"


_LATE = Failure("late", "the round ended before the reply came")
_DROPPED = Failure("lost", "the site dropped out")


def _objection(reply: Shareable, expects: Sequence[Expect]) -> Failure | None:
    """Why a reply cannot be added; None if it can."""
    try:
        gate.admit(reply, expects)
    except UpdateError as error:
        return Failure(error.code, str(error), error.path)
    return None


def _slot(reply: Reply) -> int:
    return reply.slot
