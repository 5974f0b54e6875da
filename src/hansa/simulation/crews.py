"""Crews in this process: a plain loop over the sites, and vectorised clients."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hansa.core.executor import FunctionExecutor
from hansa.core.task import FLContext, Shareable, Signal, Task
from hansa.core.trees import Tree
from hansa.errors import ConfigError, RunError
from hansa.simulation.sites import Answer, Call, Sites, SlotMemory, failure_of

CHUNK = 256  # clients that are computed together: bounds the memory of stacked models


class Loop:
    """One site after another, in this process and thread: what a debugger steps through."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._task: Task | None = None
        self._kept: Mapping[int, Mapping[str, Tree]] = {}
        self._abort = Signal()

    def begin(self, task: Task, calls: Sequence[Call], kept: Mapping[int, Mapping[str, Tree]]) -> None:  # noqa: ARG002  nothing is done ahead
        """Take the task."""
        self._task, self._kept = task, kept

    def answer(self, call: Call) -> Answer:
        """Run the site's part now."""
        if self._task is None:
            raise RunError("no task has begun")
        return self._sites.serve(self._task, call.slot, self._kept.get(call.slot, {}), self._abort)

    def close(self) -> None:
        """Nothing is held."""


class Vectorised:
    """Many clients in one call, in chunks. A function without a batched form is an error, never a silent loop."""

    def __init__(self, sites: Sites) -> None:
        if not isinstance(sites.executor, FunctionExecutor):
            raise ConfigError("the vectorised engine runs computations, not a job's own executor", hint="use --engine loop or pool")
        self._sites, self._executor = sites, sites.executor
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
        """The answer of one call, computed together with those that come next."""
        if call not in self._ready:
            self._coming.pop(call, None)
            chunk = [call, *itertools.islice(self._coming, CHUNK - 1)]
            for each in chunk[1:]:
                del self._coming[each]
            self._ready.update(self._together(chunk))
        return self._ready.pop(call)

    def close(self) -> None:
        """Nothing is held."""

    def _together(self, calls: Sequence[Call]) -> dict[Call, Answer]:
        if self._task is None:
            raise RunError("no task has begun")
        memories = [SlotMemory(self._kept.get(call.slot, {})) for call in calls]
        contexts = [self._sites.context(self._task, call.slot, m) for call, m in zip(calls, memories, strict=True)]
        answers = zip(calls, memories, self._split(contexts), strict=True)
        return {call: replace(answer, puts=memory.puts) for call, memory, answer in answers}

    def _split(self, contexts: Sequence[FLContext]) -> list[Answer]:
        """The answers of clients computed together. If that raises, each half is tried by itself: one site's fault is its own."""
        if not contexts or self._task is None:
            return []
        try:
            replies = self._executor.execute_many(self._task.name, self._task.shareable, contexts, self._abort)
            return [Answer(self._sites.filtered(reply, ctx)) for reply, ctx in zip(replies, contexts, strict=True)]
        except ConfigError:  # the job cannot be vectorised: no site's fault
            raise
        except (Exception, SystemExit) as error:  # a site may raise anything, or exit; it becomes a Failure in the run's record
            if len(contexts) == 1:
                return [Answer(Shareable(), failure_of(error))]
            half = len(contexts) // 2
            return self._split(contexts[:half]) + self._split(contexts[half:])
