"""Executors serve tasks at a site: one message in, one message out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, final

from hansa.core.computation import Computation
from hansa.core.graph import Apply, Broadcast, Constant, Node, Parameter, Record, Select, pick
from hansa.core.plan import Stage, plan
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.types import StructType
from hansa.core.values import pack, restore, unpack
from hansa.errors import ConfigError, RunError


class Executor(ABC):
    """Serves tasks by name. Subclass it for task-oriented work; a computation gets a FunctionExecutor by itself."""

    @abstractmethod
    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The site's reply to a task. What it raises becomes a Failure in the run's record, with the traceback."""


@final
class FunctionExecutor(Executor):
    """Serves the client stages of computations: the task's name leads to the functions that the plan lists."""

    def __init__(self, computations: Iterable[Computation]) -> None:
        self._stages: dict[str, Stage] = {}
        for computation in computations:
            for stage in plan(computation).stages:
                if self._stages.setdefault(stage.task, stage) is not stage:
                    raise ConfigError("two stages of a job have one task name", task=stage.task, hint="rename one of the functions")

    @property
    def tasks(self) -> list[str]:
        """The names served."""
        return list(self._stages)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Run the stage's functions on the site's data and return what the stage reads."""
        stage = self.stage(task_name)
        return reply_of(stage, client_values(stage, shareable.body, fl_ctx, abort_signal))

    def stage(self, task_name: str) -> Stage:
        """The stage that a task stands for.

        Raises:
            RunError: there is none of this name.
        """
        stage = self._stages.get(task_name)
        if stage is None:
            raise RunError("no function serves this task", task=task_name, expected=self.tasks)
        return stage


def client_values(stage: Stage, body: Mapping[str, Any], ctx: FLContext, abort: Signal) -> dict[int, Any]:
    """The value of each node of a stage at one client, by node identity."""
    values: dict[int, Any] = {id(node): unpack(body.get(label, {}), node.type) for label, node in stage.goes}
    for node in stage.order:
        if id(node) not in values:
            values[id(node)] = ctx.load(node.name) if isinstance(node, Parameter) else compute(node, values, ctx, abort)
    return values


def compute(node: Node, values: Mapping[int, Any], ctx: FLContext, abort: Signal) -> Any:
    """The value of one node from those of its inputs."""
    match node:
        case Apply():
            given = {name: values[id(item)] for name, item in node.kwargs}
            given |= {"ctx": ctx} if "ctx" in node.fn.wants else {}
            given |= {"abort": abort} if "abort" in node.fn.wants else {}
            return node.fn.fn(*[values[id(item)] for item in node.args], **given)
        case Select():
            return pick(values[id(node.source)], node.key)
        case Constant():
            return node.value
        case Broadcast():  # at the server: an unplaced value put there
            return values[id(node.source)]
        case Record():
            kind = getattr(node.type, "member", node.type)
            items = [values[id(item)] for _, item in node.items]
            return restore(items, kind) if isinstance(kind, StructType) else tuple(items)
    raise RunError(f"{type(node).__name__} cannot be computed at {ctx.site or 'this place'}")


def reply_of(stage: Stage, values: Mapping[int, Any]) -> Shareable:
    """What leaves a client: the stage's reads, and the metrics that its functions report."""
    metrics: dict[str, float] = {}
    for node in stage.fresh:
        reported = getattr(values[id(node)], "metrics", None)
        if type(reported) is dict or isinstance(reported, Mapping):
            metrics.update({str(name): float(value) for name, value in reported.items()})
    return Shareable({label: pack(values[id(node)], path=label) for label, node in stage.reads}, metrics)
