"""The replies of many clients in one call: each function that is written for it takes all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa.core.executor import FunctionExecutor, compute, reply_of
from hansa.core.graph import Apply, Broadcast, Node, Parameter, Select, pick
from hansa.core.task import FLContext, Shareable, Signal
from hansa.core.values import unpack
from hansa.errors import ConfigError


def require_batched(executor: FunctionExecutor, task_name: str) -> None:
    """Return if `execute_many` can run the task: each function has a batched form, or is written to be looped over.

    Raises:
        ConfigError: one has none; names it. It is never run client by client in silence.
    """
    for node in executor.stage(task_name).functions:
        if not node.fn.loops and node.fn.many is None:
            raise ConfigError(
                f"{node.fn.name} has no batched form, so the vectorised engine cannot run it",
                got=node.fn.about or node.fn.name,
                hint="use --engine loop or pool, or give the function a batched form: local_computation(fn, many=...)",
            )


def execute_many(
    executor: FunctionExecutor, task_name: str, shareable: Shareable, contexts: Sequence[FLContext], abort_signal: Signal
) -> list[Shareable]:
    """The replies of many clients, computed together where a function is written for it.

    Raises:
        ConfigError: as `require_batched`.
    """
    require_batched(executor, task_name)
    stage = executor.stage(task_name)
    columns: dict[int, list[Any]] = {}
    given = {id(node): unpack(shareable.body.get(label, {}), node.type) for label, node in stage.goes}
    for node in stage.order:
        columns[id(node)] = _column(node, columns, given, contexts, abort_signal)
    read = {id(node): columns[id(node)] for node in (*stage.fresh, *(node for _, node in stage.reads))}
    rows = [dict(zip(read, values, strict=True)) for values in zip(*read.values(), strict=True)]
    return [reply_of(stage, row) for row in rows]


def _column(
    node: Node, columns: Mapping[int, list[Any]], given: Mapping[int, Any], contexts: Sequence[FLContext], abort: Signal
) -> list[Any]:
    if isinstance(node, Broadcast):
        return [given[id(node)]] * len(contexts)
    if isinstance(node, Parameter):
        return [ctx.load(node.name) for ctx in contexts]
    if isinstance(node, Select):
        return [pick(value, node.key) for value in columns[id(node.source)]]
    if isinstance(node, Apply) and not node.fn.loops and node.fn.many is not None:
        names = [name for name, _ in node.fn.parameters]
        sources = {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}
        rows = [tuple(columns[id(sources[name])][i] for name in names if name in sources) for i in range(len(contexts))]
        return node.fn.many(rows, contexts, abort)
    return [compute(node, {key: column[i] for key, column in columns.items()}, ctx, abort) for i, ctx in enumerate(contexts)]
