"""The numbered tasks of a workflow: what it asked for, so that a resumed one is held to it, and answered from the record.

A workflow that checkpoints (Rounds) goes on from its checkpoint, and only the steps after it are compared. One that does not is
replayed from the start: each finished task is answered with the replies that were recorded, and leaves behind what it had left.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from hansa import codec, tensors
from hansa.core import trees
from hansa.core.task import Failure, Reply, Shareable, Task
from hansa.core.trees import Tree
from hansa.errors import ReplayError, StorageError
from hansa.files import storage_error, write_atomic


class Step(msgspec.Struct, frozen=True):
    """One line of the journal: a task that was asked for, or, when `done`, one that has ended.

    digest: of all that was asked, `outline` of all but the body. admitted: the slots whose replies count. refused, lost: slot,
    site and why. dropped: slots that were admitted and could not be added; what they put into their memories is not kept. clock:
    the virtual time at its end. traffic: the bytes that it moved.
    """

    seq: int
    task: str
    round: int
    digest: str
    outline: str
    done: bool = False
    admitted: list[int] = []
    refused: list[tuple[int, str, Failure]] = []
    lost: list[tuple[int, str, Failure]] = []
    dropped: list[int] = []
    clock: float = 0.0
    traffic: dict[str, int] = {}


class Journal:
    """The steps of one run. Without a folder nothing is written, and nothing can be replayed.

    `exact` holds a workflow to the bits that it asked with. A run that is not deterministic is held to the tasks and slots alone.
    """

    def __init__(
        self, folder: Path | None = None, sites: Sequence[str] = (), known: Mapping[int, Step] | None = None, *, exact: bool = True
    ) -> None:
        self.folder, self.sites, self.seq, self.checkpointed, self.exact = folder, sites, 0, False, exact
        self._known = dict(known or {})
        self._asked: dict[int, Step] = {}

    @staticmethod
    def open(folder: Path, sites: Sequence[str], *, exact: bool = True) -> Journal:
        """The journal of a run folder, with the steps that were written; a torn last line is left out.

        Raises:
            StorageError: it cannot be read, or another line is not a step; names it.
        """
        path = folder / "journal.jsonl"
        try:
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        except OSError as error:
            raise storage_error(error, path) from error
        known: dict[int, Step] = {}
        for number, line in enumerate(lines, start=1):
            try:
                step = msgspec.json.decode(line, type=Step)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise StorageError(f"a line is not a step: {error}", path=f"{path}:{number}") from error
            known[step.seq] = step
        if lines:  # a torn line would run into the next one
            write_atomic(path, [line + b"\n" for line in lines])
        return Journal(folder, sites, known, exact=exact)

    def go_on(self, seq: int) -> None:
        """Continue after a checkpoint that was made when `seq` tasks had been asked for."""
        self.seq = seq

    def ask(self, task: Task, slots: Sequence[int]) -> Recorded | None:
        """Number the next task. What is on record if it ended before a crash and the workflow is replayed, else None.

        Raises:
            ReplayError: the workflow asked for something else at this step before; names the step.
        """
        self.seq += 1
        if self.folder is None:
            return None
        step = Step(self.seq, task.name, task.round, *_digests(task, slots))
        before = self._known.pop(self.seq, None)
        same = before is not None and before.digest == step.digest
        if before is not None and not same and (self.exact or before.outline != step.outline):
            raise _differs(self.seq, before, f"task {task.name!r} of round {task.round} ({step.digest[:12]})")
        if before is not None and before.done and not self.checkpointed:
            return Recorded(self._folder(self.seq), before, self.sites)
        if not same:
            self._write(step)
        if not self.checkpointed:
            self._clear(self._folder(self.seq))
            self._asked[self.seq] = step
        return None

    def keeps(self, seq: int) -> bool:
        """Whether the replies of this task are recorded."""
        return seq in self._asked

    def keep(self, seq: int, slot: int, reply: Shareable, puts: Mapping[str, Tree]) -> None:
        """Record an admitted reply and what its site put into its memory, unless the workflow checkpoints."""
        if seq in self._asked:
            if puts:
                tensors.save_tree(self._folder(seq) / "memory" / f"{slot}.safetensors", puts, {})
            write_atomic(self._folder(seq) / f"{slot}.safetensors", codec.encode_parts(reply))

    def done(
        self,
        seq: int,
        admitted: Sequence[int],
        refused: Sequence[Reply],
        lost: Sequence[Reply],
        *,
        dropped: Sequence[int] = (),
        clock: float,
        traffic: Mapping[str, int],
    ) -> None:
        """Record that the task has ended."""
        step = self._asked.pop(seq, None)
        if step is not None:
            who = {"admitted": sorted(admitted), "refused": _lines(refused), "lost": _lines(lost), "dropped": sorted(dropped)}
            self._write(msgspec.structs.replace(step, done=True, **who, clock=clock, traffic=dict(traffic)))

    def end(self) -> None:
        """Hold the workflow to the record once more: it has returned.

        Raises:
            ReplayError: before the crash it had asked for more; names the first step that is missing.
        """
        missing = min((seq for seq in self._known if seq > self.seq), default=None)
        if missing is not None:
            raise _differs(missing, self._known[missing], "the workflow's end")

    def _folder(self, seq: int) -> Path:
        return cast(Path, self.folder) / "journal" / str(seq)

    def _clear(self, folder: Path) -> None:
        """Remove what an attempt before a crash had left: its replies are asked for again, and others may come."""
        try:
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            raise storage_error(error, folder) from error

    def _write(self, step: Step) -> None:
        path = cast(Path, self.folder) / "journal.jsonl"
        try:
            with path.open("ab") as file:
                file.write(msgspec.json.encode(step) + b"\n")
        except OSError as error:
            raise storage_error(error, path) from error


class Recorded:
    """The replies of a task that ended before a crash."""

    def __init__(self, folder: Path, step: Step, sites: Sequence[str]) -> None:
        self._folder, self._sites, self.step = folder, sites, step
        self.refused = [Reply(slot, site, Shareable(), failure) for slot, site, failure in step.refused]
        self.lost = [Reply(slot, site, Shareable(), failure) for slot, site, failure in step.lost]

    def __iter__(self) -> Iterator[Reply]:
        for slot in self.step.admitted:
            path = self._folder / f"{slot}.safetensors"
            try:
                data = path.read_bytes()
            except OSError as error:
                raise storage_error(error, path) from error
            yield Reply(slot, self._sites[slot], codec.decode(data))

    def drop(self, reply: Reply) -> None:
        """It could not be added: as on record."""

    def memories(self) -> Iterator[tuple[int, Tree]]:
        """What each site had put into its memory."""
        for slot in sorted(set(self.step.admitted) - set(self.step.dropped)):
            path = self._folder / "memory" / f"{slot}.safetensors"
            if path.exists():  # not every site puts something there
                yield slot, tensors.load_tree(path, sealed=True)[0]


def _differs(seq: int, before: Step, got: str) -> ReplayError:
    return ReplayError(
        f"the resumed workflow differs at step {seq}",
        task=before.task,
        round=before.round,
        expected=f"task {before.task!r} of round {before.round} ({before.digest[:12]})",
        got=got,
        hint="a workflow takes time, randomness and results from the federation alone; was the job changed?",
    )


def _lines(replies: Sequence[Reply]) -> list[tuple[int, str, Failure]]:
    return [(r.slot, r.site, r.failure) for r in replies if r.failure is not None]


def _digests(task: Task, slots: Sequence[int]) -> tuple[str, str]:
    """Of all that is asked, and of all but the body."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{task.name}\n{task.round}\n{list(slots)}\n{sorted(task.shareable.headers.items())}\n".encode())
    outline = digest.hexdigest()
    for path, leaf in sorted(trees.leaves(task.shareable.body), key=lambda item: item[0]):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest(), outline
