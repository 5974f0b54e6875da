"""A Job is what is submitted: a workflow, the label of its data, and what a site needs to run it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hansa import registry
from hansa.core.computation import Computation, Polymorphic
from hansa.core.executor import Executor, FunctionExecutor
from hansa.core.plan import Plan, plan
from hansa.core.protocols import Filter
from hansa.core.round import is_real
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.workflow import Workflow
from hansa.errors import ConfigError

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run asks of each site: cores and GPUs that are its alone while it goes on, and memory in MB (0: what the site gives).

    With several cores a learner's threads add up numbers in another order from run to run: one core gives one seed's bits.
    """

    cores: int = 1
    gpus: int = 0
    memory_mb: int = 0


@dataclass(frozen=True)
class Job:
    """What is submitted.

    workflow: a workflow, or a computation whose value it is (see `hansa.learning.once`).
    data: the label of the data set that each site maps to its own. filters: run at the site on each reply before it leaves; where
    one has `on_task`, that runs at the server on what goes out.
    executor: serves tasks of a workflow that asks for them by name. requires: distributions a site must have. include: further
    files of the bundle. seed: of all random streams; a runner's argument wins. progress_s: a deployed site that makes no
    progress at a task for so long (no bytes, no `abort_signal.check()`, no `fl_ctx.track()`, no line) is given up; None: never.
    environment: the label of a virtual environment that each site maps to its own; "": the one that its agent runs in.
    """

    name: str
    workflow: Workflow | Computation
    data: str = "data"
    filters: Sequence[Filter] = field(default=(), kw_only=True)
    executor: Executor | None = field(default=None, kw_only=True)
    requires: Sequence[str] = field(default=(), kw_only=True)
    include: Sequence[str] = field(default=(), kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    progress_s: float | None = field(default=300.0, kw_only=True)
    environment: str = field(default="", kw_only=True)
    resources: Resources = field(default=Resources(), kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.workflow, Computation | Polymorphic):
            made = cast(Callable[[object], Workflow], registry.find("workflows", "computation"))(self.workflow)
            object.__setattr__(self, "workflow", made)
        for path, holds, what in (
            ("name", _text(self.name) and _NAME.match(self.name), "a job name: letters, digits, . _ - (at most 63)"),
            ("workflow", callable(self.workflow), "a workflow, which is called with a federation"),
            ("data", _text(self.data), "the label of a data set"),
            ("filters", _several(callable, self.filters), "a list of filters"),
            ("executor", self.executor is None or hasattr(self.executor, "execute"), "an Executor"),
            ("requires", _several(_text, self.requires), "a list of distributions"),
            ("include", _several(_text, self.include), "a list of files"),
            ("progress_s", self.progress_s is None or (is_real(self.progress_s) and self.progress_s >= 1), "seconds, at least 1"),
            ("environment", isinstance(self.environment, str), "the label of an environment"),
            ("resources", _whole(self.resources), "Resources: whole numbers, at least 1 core"),
        ):
            if not holds:
                raise ConfigError(f"not {what}", path=path, got=repr(getattr(self, path)))
        leaving = {label for made in self.plans for stage in made.stages for label, _ in stage.reads} if self.filters else set()
        for i, each in enumerate(self.filters):  # one that never finds its tree would look like one that works
            first = str(getattr(each, "path", "")).partition("/")[0]
            if leaving and self.executor is None and first and first not in leaving:
                expected = f"{', '.join(sorted(leaving))}; or '' for all of a reply"
                raise ConfigError("nothing that leaves a site is named so", path=f"filters[{i}].path", got=first, expected=expected)

    @property
    def computations(self) -> Sequence[Computation]:
        """The workflow's federated computations."""
        return tuple(getattr(self.workflow, "computations", ()))

    @property
    def plans(self) -> list[Plan]:
        """The plan of each computation."""
        return [plan(computation) for computation in self.computations]

    @property
    def workers(self) -> list[object]:
        """What works at the sites: the learners of the workflow and of its steps, and the job's own executor.

        One that is made of files names them (`files`): they travel with the job. One that starts processes ends them (`close`).
        """
        flows = (self.workflow, *getattr(self.workflow, "steps", ()))
        found = [*(getattr(flow, "learner", None) for flow in flows), self.executor]
        return [each for each in found if each is not None]

    @property
    def document(self) -> Any:
        """What will run where and what leaves, as the document that its author signs: see `hansa.document`."""
        return cast(Callable[[Job], Any], registry.find("documents", "plan"))(self)

    def describe(self) -> str:
        """The document as people read it."""
        return str(self.document)

    @property
    def hash(self) -> str:
        """The document's SHA-256."""
        return str(self.document.hash)

    def check(self, session: Any) -> Any:
        """How the data of a federation's sites fit this job, by the types that they publish: see `Session.check`."""
        return session.check(self)

    def outgoing(self, shareable: Shareable) -> Shareable:
        """Task data as it leaves the server: after `on_task` of those filters that have it."""
        for each in self.filters:
            if (step := getattr(each, "on_task", None)) is not None:
                shareable = step(shareable)
        return shareable

    def serve(self) -> Executor:
        """The executor of a site: the job's own tasks by name, those of its computations otherwise."""
        functions = FunctionExecutor(self.computations)
        return functions if self.executor is None else Router(functions, self.executor)


def _whole(given: object) -> bool:
    counts = (given.cores - 1, given.gpus, given.memory_mb) if isinstance(given, Resources) else (-1,)
    return all(isinstance(each, int) and each >= 0 for each in counts)


def _text(given: object) -> bool:
    return isinstance(given, str) and given != ""


def _several(what: Callable[[object], bool], given: object) -> bool:
    return isinstance(given, list | tuple) and all(map(what, given))


class Router(Executor):
    """Tasks of computations go to their functions, all others to the job's own executor."""

    def __init__(self, functions: FunctionExecutor, other: Executor) -> None:
        self._functions, self._other = functions, other

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The reply of whoever serves the task."""
        chosen = self._functions if task_name in self._functions.tasks else self._other
        return chosen.execute(task_name, shareable, fl_ctx, abort_signal)
