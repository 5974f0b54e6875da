"""The numbered tasks of a workflow: what it asked for, so that a resumed one is held to it, and answered from the record.

A workflow that checkpoints (Rounds) goes on from its checkpoint, and only the steps after it are compared. One that does not is
replayed from the start: each finished task is answered with the replies that were recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from hansa.core import codec, trees
from hansa.core.files import storage_error, write_atomic
from hansa.core.protocols import Replies
from hansa.core.task import Failure, Reply, Shareable, Task
from hansa.errors import ReplayError


class Step(msgspec.Struct, frozen=True):
    """One line of the journal: a task that was asked for, or, when `done`, one that has ended."""

    seq: int
    task: str
    round: int
    digest: str
    done: bool = False
    refused: list[tuple[int, str, str, str]] = []
    lost: list[tuple[int, str, str, str]] = []


class Journal:
    """The steps of one run. Without a folder nothing is written, and nothing can be replayed."""

    def __init__(self, folder: Path | None = None, sites: Sequence[str] = ()) -> None:
        self.folder, self.sites, self.seq, self.checkpointed = folder, sites, 0, False
        self._known: dict[int, Step] = {}
        self._digest = ""

    @staticmethod
    def open(folder: Path, sites: Sequence[str]) -> Journal:
        """The journal of a run folder, with the steps that were written; a torn last line is left out."""
        journal = Journal(folder, sites)
        path = folder / "journal.jsonl"
        try:
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        except OSError as error:
            raise storage_error(error, path) from error
        for line in lines:
            step = msgspec.json.decode(line, type=Step)
            journal._known[step.seq] = step  # its own constructor
        if path.exists():  # a torn line would run into the next one
            write_atomic(path, [line + b"\n" for line in lines])
        return journal

    def go_on(self, seq: int) -> None:
        """Continue after a checkpoint that was made when `seq` tasks had been asked for."""
        self.seq = seq

    def ask(self, task: Task, slots: Sequence[int]) -> Replies | None:
        """Number the next task. The recorded replies if it ended before a crash and the workflow is replayed, else None.

        Raises:
            ReplayError: the workflow asked for something else at this step before; names the step.
        """
        self.seq += 1
        if self.folder is None:
            return None
        self._digest = _digest(task, slots)
        before = self._known.pop(self.seq, None)
        if before is not None and before.digest != self._digest:
            raise ReplayError(
                f"the resumed workflow differs at step {self.seq}",
                task=task.name,
                round=task.round,
                expected=f"task {before.task!r} of round {before.round} ({before.digest[:12]})",
                got=f"task {task.name!r} of round {task.round} ({self._digest[:12]})",
                hint="a workflow takes time, randomness and results from the federation alone; was the job changed?",
            )
        if before is None:
            self._write(Step(self.seq, task.name, task.round, self._digest))
        elif before.done and not self.checkpointed:
            return _Recorded(self._folder(self.seq), before, self.sites)
        return None

    def keep(self, slot: int, reply: Shareable) -> None:
        """Record an admitted reply, unless the workflow checkpoints."""
        if self.folder is not None and not self.checkpointed:
            write_atomic(self._folder(self.seq) / f"{slot}.safetensors", codec.encode_parts(reply))

    def done(self, task: Task, refused: Sequence[Reply], lost: Sequence[Reply]) -> None:
        """Record that the task has ended."""
        if self.folder is not None and not self.checkpointed:
            self._write(Step(self.seq, task.name, task.round, self._digest, True, _lines(refused), _lines(lost)))

    def _folder(self, seq: int) -> Path:
        return (self.folder or Path()) / "journal" / str(seq)

    def _write(self, step: Step) -> None:
        path = (self.folder or Path()) / "journal.jsonl"
        try:
            with path.open("ab") as file:
                file.write(msgspec.json.encode(step) + b"\n")
        except OSError as error:
            raise storage_error(error, path) from error


class _Recorded:
    """The replies of a task that ended before a crash."""

    def __init__(self, folder: Path, step: Step, sites: Sequence[str]) -> None:
        self._folder, self._sites = folder, sites
        self.refused = [Reply(slot, site, Shareable(), Failure(code, text)) for slot, site, code, text in step.refused]
        self.lost = [Reply(slot, site, Shareable(), Failure(code, text)) for slot, site, code, text in step.lost]

    def __iter__(self) -> Iterator[Reply]:
        paths = sorted(self._folder.iterdir(), key=lambda path: int(path.stem)) if self._folder.is_dir() else []
        for path in paths:
            slot = int(path.stem)
            yield Reply(slot, self._sites[slot], codec.decode(path.read_bytes()))


def _lines(replies: Sequence[Reply]) -> list[tuple[int, str, str, str]]:
    return [(r.slot, r.site, r.failure.code, r.failure.message) for r in replies if r.failure is not None]


def _digest(task: Task, slots: Sequence[int]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{task.name}\n{task.round}\n{list(slots)}\n{sorted(task.shareable.headers.items())}\n".encode())
    for path, leaf in sorted(trees.leaves(task.shareable.body), key=lambda item: item[0]):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
