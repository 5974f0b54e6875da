"""The deployed federation, as a run's process sees it: the round engine on committed events, replies read from blobs.

The engine is fed with nothing but what the server has committed, at the times that it wrote down. A restarted run asks again, is
told the same, and so decides the same. Bodies of replies stay on disk: one is mapped when the gate looks at it, and when it is
added.
"""

from __future__ import annotations

import mmap
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast
from weakref import WeakSet

import msgspec
import numpy as np

from hansa import codec
from hansa.core import gate, trees
from hansa.core.protocols import Replies
from hansa.core.round import (
    Abandon,
    Assign,
    Close,
    Command,
    Discard,
    Event,
    Lost,
    Opened,
    Policy,
    Refused,
    Replied,
    State,
    Ticked,
    begin,
    step,
)
from hansa.core.task import Aborted, Failure, Reply, Shareable, Task
from hansa.core.trees import Tree
from hansa.errors import ConfigError, QuorumError, RefusedError, ReplayError, RunError, StorageError, UpdateError
from hansa.files import Buffer
from hansa.runtime.jobs import link
from hansa.runtime.jobs.link import Came, Link, Start, Step, Verdict
from hansa.runtime.server.exchange import DeployedExchange
from hansa.runtime.store.blob import Blob, Blobs

Saved = tuple[int, Tree, Mapping[str, Any]]

FOLD_BYTES: Final = 64 << 20
_NOTES = "federation"  # what the federation adds to a checkpoint's notes
_LATE = Failure("late", "the round ended before the reply came")
_LOST = Failure("lost", "the site dropped out")


@dataclass(frozen=True)
class RunBlobs:
    """What a run's process may do with blobs: open those of the server whose digest it was told, and hand over its own."""

    given: Path
    own: Blobs

    def path(self, digest: str) -> Path:
        """Where the blob is."""
        own = self.own.path(digest)
        return own if own.exists() else self.given / own.name

    def put(self, parts: Iterable[Buffer]) -> Blob:
        """Make a blob for the server to take over."""
        return self.own.put(parts)


@dataclass
class DeployedFederation:
    """Real sites, reached through the server. Everything a workflow takes from outside comes through here.

    on_report, on_checkpoint: where records and states go, made durable before they return. on_failure: is told of each refusal.
    saved: the checkpoint to go on from. fold_bytes: updates that are larger are added when the round has ended, all together.
    outgoing: what is done to task data before it leaves.
    """

    start: Start
    link: Link
    blobs: RunBlobs
    on_report: Callable[[dict[str, Any]], dict[str, Any]]
    on_checkpoint: Callable[[int, Tree, Mapping[str, Any]], None]
    on_failure: Callable[[Reply, Task], None] = lambda *_: None
    saved: Saved | None = None
    fold_bytes: int = FOLD_BYTES
    outgoing: Callable[[Shareable], Shareable] = lambda given: given
    seq: int = 0
    last: int = 0  # the highest step that the server knows of
    traffic: dict[str, int] = field(default_factory=lambda: {"bytes_up": 0, "bytes_down": 0})
    underway: object = None
    _since: float = field(default_factory=time.perf_counter)

    @property
    def sites(self) -> Sequence[str]:
        """The run's sites by slot."""
        return self.start.sites

    @property
    def seed(self) -> int:
        """The seed of all random streams."""
        return self.start.seed

    def task(self, task: Task, slots: Sequence[int], policy: Policy) -> Replies:
        """The admitted replies of the sites in slot order, read when the step has ended. They can be taken once.

        Raises:
            ConfigError: a slot is none of the run's. RefusedError: the plan promises a secure protocol, and there is none.
            QuorumError: while iterating: too few sites gave a usable reply.
            ReplayError: while iterating: a resumed workflow asks for something else than it had asked for.
        """
        if task.secure:  # never plain in silence
            hint = "it is exact in simulation; without a secure protocol use the intrinsic without `secure`, if the sites agree"
            raise RefusedError(f"this federation has no secure protocol for {', '.join(task.secure)}", task=task.name, hint=hint)
        asked = tuple(operator.index(slot) for slot in slots)
        for slot in (min(asked, default=0), max(asked, default=0)):
            if not 0 <= slot < len(self.sites):
                raise ConfigError("there is no such slot", task=task.name, got=slot, expected=f"0 to {len(self.sites) - 1}")
        self.seq += 1
        return _Asked(self, replace(task, shareable=self.outgoing(task.shareable)), asked, policy, self.seq)

    def exchange(self) -> DeployedExchange:
        """Requests to single sites, each a step of its own. Without checkpoints their blobs are kept until the run ends."""
        return DeployedExchange(self)

    def open(
        self,
        task: Task,
        slots: Sequence[int],
        seq: int,
        deadline_s: float | None = None,
        *,
        meanwhile: Callable[[Came], None] = lambda _: None,
    ) -> Step:
        """Tell the server of a step, and hear what it knows of it. `meanwhile` is told what is committed of others.

        Raises:
            ReplayError: before a crash the workflow had asked for something else at this step.
        """
        blob = self.blobs.put(codec.encode_parts(task.shareable))
        self.link.send(
            link.Open(
                seq=seq,
                task=task.name,
                round=task.round,
                body=blob.digest,
                body_bytes=blob.size,
                slots=list(slots),
                deadline_s=deadline_s,
            )
        )
        while not isinstance(opened := self.receive(), Step) or opened.seq != seq:
            if isinstance(opened, Came):
                meanwhile(opened)
        self.last = max(self.last, opened.last)
        if opened.differs is not None:
            raise ReplayError(
                f"the resumed workflow differs at step {seq}",
                task=task.name,
                round=task.round,
                expected=opened.differs,
                got=f"task {task.name!r} of round {task.round}, body {blob.digest[:12]}",
                hint="a workflow takes time, randomness and results from the federation alone; was the job changed?",
            )
        return opened

    def checkpoint(self, round: int, state: Tree, notes: Mapping[str, Any]) -> None:  # noqa: A002  the protocol's word
        """Make the state after a round durable; the sites keep their own memories."""
        if _NOTES in notes:
            raise ConfigError("this name is the federation's own", path=_NOTES, round=round, hint="call it something else")
        self.on_checkpoint(round, state, {**_plain(notes), _NOTES: {"seq": self.seq, "clock": 0.0, **self.traffic}})
        self.link.send(link.Saved(round=round, seq=self.seq))

    def restore(self) -> Saved | None:
        """The checkpoint to go on from."""
        if self.saved is None:
            return None
        number, tree, notes = self.saved
        own = notes[_NOTES]
        self.seq = own["seq"]
        self.traffic = {name: own[name] for name in self.traffic}
        return number, tree, {name: note for name, note in notes.items() if name != _NOTES}

    def report(self, record: Mapping[str, Any]) -> None:
        """Record a finished round, with its traffic and the seconds it took."""
        now = time.perf_counter()
        done = self.on_report({**_plain(record), **self.traffic, "seconds": round(now - self._since, 6)})
        self._since, self.traffic = now, {"bytes_up": 0, "bytes_down": 0}
        self.link.send(link.Report(record=done))

    def end(self) -> None:
        """Hold the workflow to what it had asked for: it has returned.

        Raises:
            ReplayError: before the crash it had asked for more.
        """
        if self.last > self.seq:
            raise ReplayError(
                f"the resumed workflow differs at step {self.seq + 1}", expected=f"{self.last} steps", got="the workflow's end"
            )

    def receive(self, timeout_s: float | None = None) -> Step | Came | None:
        """The server's next message; None when there was none in time.

        Raises:
            Aborted: the run is to end. ServerGone: the server has ended.
        """
        message = self.link.receive(timeout_s)
        if isinstance(message, link.Stop):
            raise Aborted(message.reason, run=self.start.run)
        return cast("Step | Came | None", message)

    def read(self, digest: str, maps: WeakSet[mmap.mmap] | None = None) -> Shareable:
        """The reply in a blob, its arrays read from the disk when they are used. `maps` takes in what they lie in.

        Raises:
            SpecError: it is no message. StorageError: it is gone.
        """
        content = _mapped(self.blobs.path(digest))
        if maps is not None and isinstance(content, mmap.mmap):
            maps.add(content)
        return codec.decode(memoryview(content))


class _Asked:
    """One step: drives the round engine with what the server has committed."""

    def __init__(self, federation: DeployedFederation, task: Task, slots: tuple[int, ...], policy: Policy, seq: int) -> None:
        self._f, self._task, self._slots, self._policy, self._seq = federation, task, slots, policy, seq
        self.refused: list[Reply] = []
        self.lost: list[Reply] = []
        self._blobs: dict[tuple[int, int], str] = {}  # (slot, attempt) -> the digest of a reply that came
        self._counted: dict[int, int] = {}  # slot -> the attempt that counts
        self._down = trees.nbytes(task.shareable.body)
        self._up = self._asked = 0
        self._outcome: link.Close | None = None
        self._maps: WeakSet[mmap.mmap] = WeakSet()

    @property
    def release(self) -> Callable[[], None] | None:
        """Gives back the memory that reading large replies took; None where they are small."""
        size = sum(part.spec.nbytes for part in self._task.expect if part.spec is not None)
        return self._released if size > self._f.fold_bytes else None

    def _released(self) -> None:
        for content in self._maps:
            content.madvise(mmap.MADV_DONTNEED)

    def __iter__(self) -> Iterator[Reply]:
        if self._outcome is not None or self._f.underway is self:
            raise RunError("the replies of a task can be taken once", task=self._task.name, hint="keep them in a list")
        self._f.underway = self
        opened = self._open()
        outcome = opened.closed or self._drive(opened)
        if opened.closed is not None:
            self.refused = [self._failed(each) for each in outcome.refused]
            self.lost = [self._failed(each) for each in outcome.lost]
        self._outcome = outcome
        self._f.traffic["bytes_up"] += outcome.bytes_up
        self._f.traffic["bytes_down"] += outcome.bytes_down
        if outcome.abandoned is not None:
            raise QuorumError(outcome.abandoned, round=self._task.round, task=self._task.name, hint=outcome.hint)
        self._blobs |= {(came.slot, came.attempt): came.blob for came in opened.came if came.blob is not None}
        for each in outcome.admitted:
            yield Reply(each.slot, self._f.sites[each.slot], self._f.read(self._blobs[each.slot, each.attempt], self._maps))

    def drop(self, reply: Reply) -> None:
        """Tell the server of an admitted reply that could not be added: its site is to forget what it remembers with it."""
        self._f.link.send(link.Drop(seq=self._seq, dropped=[Verdict(reply.slot, 0, reply.failure)]))

    def _open(self) -> Step:
        return self._f.open(self._task, self._slots, self._seq, self._policy.deadline_s)

    def _drive(self, opened: Step) -> link.Close:
        """Run the engine until the round has ended."""
        state, commands = step(begin(self._task.round, self._slots, self._policy), Opened(opened.opened_at))
        ahead = opened.now - time.monotonic()  # the server's clock over ours
        outcome = self._obey(state, commands)
        waiting = list(opened.came)
        while outcome is None:
            came = waiting.pop(0) if waiting else self._next(state, ahead)
            event = Ticked(state.deadline or 0.0) if came is None else self._event(came)
            state, commands = step(state, event)
            self._count(event, commands)
            outcome = self._obey(state, commands)
        self._f.link.send(outcome)
        return outcome

    def _next(self, state: State, ahead: float) -> Came | None:
        """The next committed answer; None at the deadline."""
        while True:
            left = None if state.deadline is None else state.deadline - ahead - time.monotonic()
            message = self._f.receive(left)
            if message is None:
                return None
            if isinstance(message, Came) and message.seq == self._seq:
                return message

    def _event(self, came: Came) -> Event:
        """What a committed answer is to the engine: looked at by the gate, from the disk."""
        if came.lost:
            return Lost(came.slot, came.attempt, came.at)
        failure = came.failure or self._objection(came)
        if failure is not None:
            return Refused(came.slot, came.attempt, failure, came.at)
        return Replied(came.slot, came.attempt, came.at)

    def _objection(self, came: Came) -> Failure | None:
        """Why a reply cannot be added; None if it can."""
        try:
            reply = self._f.read(str(came.blob))
            self._up += trees.nbytes(reply.body)
            gate.admit(reply, self._task.expect)
        except UpdateError as error:
            return Failure(error.code, str(error), error.path)
        self._blobs[came.slot, came.attempt] = str(came.blob)
        return None

    def _count(self, event: Event, commands: Sequence[Command]) -> None:
        """Remember which attempt counts, and a site that was refused or lost for good."""
        if any(isinstance(command, Discard | Assign) for command in commands):
            return
        if isinstance(event, Replied):
            self._counted[event.slot] = event.attempt
        elif isinstance(event, Refused):
            self.refused.append(self._failed(Verdict(event.slot, event.attempt, event.failure)))
            self._f.on_failure(self.refused[-1], self._task)
        elif isinstance(event, Lost):
            self.lost.append(self._failed(Verdict(event.slot, event.attempt, _LOST)))

    def _obey(self, state: State, commands: Sequence[Command]) -> link.Close | None:
        """Do what the engine says; how the step ended, if it has. The deadline stands in the state; a close cancels what is out."""
        outcome = None
        again = [(each.slot, each.attempt) for each in commands if isinstance(each, Assign)]
        self._asked += len(again)
        if repeated := [pair for pair in again if pair[1] > 1]:
            self._f.link.send(link.Assign(seq=self._seq, again=repeated))
        for command in commands:
            match command:
                case Close(admitted):
                    outcome = self._ended(state, [Verdict(slot, self._counted[slot]) for slot in admitted])
                case Abandon(reason):
                    outcome = self._ended(state, [], abandoned=reason, hint=self._why())
        return outcome

    def _ended(self, state: State, admitted: list[Verdict], *, abandoned: str | None = None, hint: str | None = None) -> link.Close:
        self.refused.sort(key=lambda reply: reply.slot)
        late = [self._failed(Verdict(slot, 0, _LATE)) for slot in state.late]
        self.lost = sorted(self.lost, key=lambda reply: reply.slot) + late
        return link.Close(
            seq=self._seq,
            admitted=admitted,
            refused=[Verdict(reply.slot, 0, reply.failure) for reply in self.refused],
            lost=[Verdict(reply.slot, 0, reply.failure) for reply in self.lost],
            abandoned=abandoned,
            hint=hint,
            bytes_up=self._up,
            bytes_down=self._down * self._asked,
        )

    def _failed(self, verdict: Verdict) -> Reply:
        return Reply(verdict.slot, self._f.sites[verdict.slot], Shareable(), verdict.failure)

    def _why(self) -> str | None:
        """The first refusal, and where the site's traceback is if its policy let it out."""
        first = next(iter(self.refused), None)
        if first is None or first.failure is None:
            return None
        where = "; its traceback: hansa job logs RUN" if first.failure.trace else ""
        return f"site {first.site!r}: {first.failure.message}{where}"


def _mapped(path: Path) -> bytes | mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file cannot be mapped
        return b""
    except OSError as error:
        raise StorageError("a reply is gone from the disk", path=str(path), got=str(error)) from error


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that JSON can hold."""
    return cast(dict[str, Any], msgspec.to_builtins(record, enc_hook=_number))


def _number(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 and value.dtype.kind in "biuf":
        return value.item()
    raise ConfigError("not for a record", got=type(value).__name__, expected="numbers, text, lists and mappings")
