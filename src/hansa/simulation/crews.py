"""Crews in this process: a plain loop over the sites, and vectorised clients."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hansa.core import trees
from hansa.core.executor import FunctionExecutor
from hansa.core.half import restored
from hansa.core.task import Shareable, Signal, Task
from hansa.core.trees import Tree
from hansa.errors import ConfigError, RunError
from hansa.simulation.sites import Answer, Call, Sites, SlotMemory, Tracks, failure_of, require_tree
from hansa.simulation.vectorised import Columns, execute_many, require_batched

CHUNK = 256  # clients that are computed together: bounds the memory of stacked models
_STACKED = 16  # replies of a loop that are stacked
_SMALL = 1 << 18  # bytes of one of them at most: what is larger is not worth the copy
_AHEAD_S = 0.02  # for so long sites work before their replies are looked at: people watch how a round goes on


class Loop:
    """One site after another, in this process and thread: what a debugger steps through."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._task: Task | None = None
        self._kept: Mapping[int, Mapping[str, Tree]] = {}
        self._coming: dict[Call, None] = {}
        self._ready: dict[Call, Answer] = {}
        self._abort = Signal()

    def begin(self, task: Task, calls: Sequence[Call], kept: Mapping[int, Mapping[str, Tree]]) -> None:
        """Take the task and the order of its calls."""
        self._task, self._kept = task, kept
        self._coming, self._ready = dict.fromkeys(calls), {}

    def answer(self, call: Call) -> Answer:
        """Run the site's part, unless it has been."""
        return self._ready.pop(call) if call in self._ready else self._serve(call)

    def together(self, call: Call) -> tuple[Sequence[Call], Columns] | None:
        """As Vectorised's, of sites that are done in no time: what a reply costs besides is then paid for several at once."""
        self._coming.pop(call, None)
        calls, answers, end = [call, *itertools.islice(self._coming, _STACKED - 1)], list[Answer](), time.perf_counter() + _AHEAD_S
        for each in calls:
            answers.append(answer := self._serve(each))
            self._coming.pop(each, None)
            plain = answer.failure is None and not (
                answer.puts or answer.tracked or answer.reply.headers or self._sites.job.filters
            )
            if not plain or trees.nbytes(answer.reply.body) > _SMALL or time.perf_counter() > end:
                break
        done = calls[: len(answers)]
        columns = Columns.of([answer.reply for answer in answers]) if plain and len(answers) > 1 else None
        self._ready = dict(zip(done, answers, strict=True))
        return None if columns is None else (done, columns)

    def _serve(self, call: Call) -> Answer:
        if self._task is None:
            raise RunError("no task has begun")
        return self._sites.serve(self._task, call.slot, self._kept.get(call.slot, {}), self._abort)

    def close(self) -> None:
        """End what the sites have started."""
        self._sites.close()


class Vectorised:
    """Many clients in one call, in chunks. A function without a batched form is an error, never a silent loop."""

    def __init__(self, sites: Sites) -> None:
        if not isinstance(sites.executor, FunctionExecutor):
            raise ConfigError("the vectorised engine runs computations, not a job's own executor", hint="use --engine loop or pool")
        self._sites, self._executor = sites, sites.executor
        self._task: Task | None = None
        self._kept: Mapping[int, Mapping[str, Tree]] = {}
        self._coming: dict[Call, None] = {}
        self._places: dict[Call, int] = {}  # of the calls in the chunk that was computed last
        self._answers: Sequence[Answer] = ()
        self._abort = Signal()

    def begin(self, task: Task, calls: Sequence[Call], kept: Mapping[int, Mapping[str, Tree]]) -> None:
        """Take the task and the order of its calls.

        Raises:
            ConfigError: a function of the task has no batched form.
        """
        require_batched(self._executor, task.name)
        self._task, self._kept = task, kept
        self._coming, self._places, self._answers = dict.fromkeys(calls), {}, ()

    def answer(self, call: Call) -> Answer:
        """The answer of one call, computed together with those that come next."""
        if call not in self._places:
            self._compute(call)
        return self._answers[self._places.pop(call)]

    def together(self, call: Call) -> tuple[Sequence[Call], Columns] | None:
        """The replies of the next calls, from `call` on, as columns; None where one of them is to be looked at by itself.

        `answer` gives them one by one as well.
        """
        self._compute(call)
        return (tuple(self._places), self._answers.columns) if isinstance(self._answers, _Answers) else None

    def close(self) -> None:
        """Nothing is held."""

    def _compute(self, call: Call) -> None:
        if self._task is None:
            raise RunError("no task has begun")
        self._answers = ()  # the last chunk's memory
        self._coming.pop(call, None)
        chunk = [call, *itertools.islice(self._coming, CHUNK - 1)]
        for each in chunk[1:]:
            del self._coming[each]
        self._answers = self._split(self._task, chunk)
        self._places = {each: i for i, each in enumerate(chunk)}

    def _split(self, task: Task, calls: Sequence[Call]) -> Sequence[Answer]:
        """The answers of clients computed together. If that raises, each half is tried by itself: one site's fault is its own.

        Raises:
            ConfigError: the batched form refuses what each client can do by itself: the job cannot be vectorised.
        """
        # New with each try: what an abandoned one put into the memories is not what these clients had kept.
        memories, tracks = [SlotMemory(self._kept.get(call.slot, {})) for call in calls], [Tracks() for _ in calls]
        given = zip(calls, memories, tracks, strict=True)
        contexts = [self._sites.context(task, call.slot, memory, told) for call, memory, told in given]
        try:
            replies = execute_many(self._executor, task.name, restored(task.shareable), contexts, self._abort)
            if isinstance(replies, Columns) and not (self._sites.job.filters or any(m.puts for m in memories) or any(tracks)):
                require_tree(replies.body)
                return _Answers(replies)
            each = zip(replies, contexts, memories, tracks, strict=True)
            return [Answer(self._sites.filtered(reply, ctx), puts=m.puts, tracked=tuple(told)) for reply, ctx, m, told in each]
        except (Exception, SystemExit) as error:  # a site may raise anything, or exit; it becomes a Failure in the run's record
            if len(calls) > 1:
                half = len(calls) // 2
                answers = [*self._split(task, calls[:half]), *self._split(task, calls[half:])]
            else:
                answers = [Answer(Shareable(), failure_of(error))]
            if isinstance(error, ConfigError) and self._nobody_fails(task, calls, answers):
                raise
            return answers

    def _nobody_fails(self, task: Task, calls: Sequence[Call], answers: Sequence[Answer]) -> bool:
        """Whether these clients can do the task without their neighbours, so that only doing it together was refused."""
        if len(calls) > 1:
            return all(answer.failure is None for answer in answers)
        return self._sites.serve(task, calls[0].slot, self._kept.get(calls[0].slot, {}), self._abort).failure is None


class _Answers(Sequence[Answer]):
    """Answers of clients of which nobody failed, kept anything or was filtered."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, i: Any) -> Any:
        return [Answer(reply) for reply in self.columns[i]] if isinstance(i, slice) else Answer(self.columns[i])
