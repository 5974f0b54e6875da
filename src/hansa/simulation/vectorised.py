"""The replies of many clients in one call: each function that is written for it takes all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from hansa.core import trees
from hansa.core.executor import FunctionExecutor, compute, reply_of
from hansa.core.graph import Apply, Broadcast, Node, Parameter, Select, pick
from hansa.core.plan import Stage
from hansa.core.task import Block, FLContext, Shareable, Signal
from hansa.core.trees import Spec
from hansa.core.values import pack, unpack
from hansa.errors import ConfigError, SpecError
from hansa.stacked import Stacked


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
) -> Sequence[Shareable]:
    """The replies of many clients, computed together where a function is written for it: Columns, where all of it is.

    Raises:
        ConfigError: as `require_batched`.
    """
    require_batched(executor, task_name)
    stage = executor.stage(task_name)
    columns: dict[int, Sequence[Any]] = {}
    given = {id(node): unpack(shareable.body.get(label, {}), node.type) for label, node in stage.goes}
    for node in stage.order:
        columns[id(node)] = _column(node, columns, given, contexts, abort_signal)
    read = {id(node): columns[id(node)] for node in (*stage.fresh, *(node for _, node in stage.reads))}
    if all(isinstance(column, Stacked) for column in read.values()):
        return _columns(stage, read, len(contexts))
    rows = [dict(zip(read, values, strict=True)) for values in zip(*read.values(), strict=True)]
    return [reply_of(stage, row) for row in rows]


class Columns(Sequence[Shareable]):
    """The replies of many clients as columns: `body` has each array stacked, `metrics` are one client's each."""

    def __init__(self, body: dict[str, Any], metrics: Sequence[Mapping[str, float]]) -> None:
        self.body, self.metrics = body, metrics

    @staticmethod
    def of(replies: Sequence[Shareable]) -> Columns | None:
        """The replies, their arrays copied; None where they are not alike."""
        flat = [trees.flatten(reply.body) for reply in replies]
        spec = Spec.of(flat[0])
        try:
            for each in flat[1:]:
                spec.check(each)
        except SpecError:
            return None
        body = {path: np.empty((len(flat), *leaf.shape), leaf.dtype) for path, leaf in spec.items}
        for i, each in enumerate(flat):
            for path, leaf in each.items():
                body[path][i] = leaf
        return Columns(trees.unflatten(body), [reply.metrics for reply in replies])

    def __len__(self) -> int:
        return len(self.metrics)

    def __getitem__(self, i: Any) -> Any:
        block = Block(range(len(self)), [""] * len(self), self.body, self.metrics)
        return [block.reply(k).shareable for k in range(len(self))[i]] if isinstance(i, slice) else block.reply(i).shareable


def _columns(stage: Stage, read: Mapping[int, Sequence[Any]], count: int) -> Columns:
    wholes = {key: cast(Stacked, column).whole for key, column in read.items()}
    body = {label: pack(wholes[id(node)], path=label) for label, node in stage.reads}
    if wrong := next((path for path, leaf in trees.leaves(body) if np.shape(leaf)[:1] != (count,)), None):
        raise ConfigError("a batched form gave columns of another length", path=wrong, expected=f"{count} clients")
    said = [getattr(wholes[id(node)], "metrics", {}) for node in stage.fresh]
    names = [name for each in said for name in each]
    values = zip(*(column.tolist() for each in said for column in each.values()), strict=True)
    return Columns(body, [dict(zip(names, row, strict=True)) for row in values] if names else [{}] * count)


def _column(
    node: Node, columns: Mapping[int, Sequence[Any]], given: Mapping[int, Any], contexts: Sequence[FLContext], abort: Signal
) -> Sequence[Any]:
    if isinstance(node, Broadcast):
        return [given[id(node)]] * len(contexts)
    if isinstance(node, Parameter):
        return [ctx.load(node.name) for ctx in contexts]
    if isinstance(node, Select):
        source = columns[id(node.source)]
        if isinstance(source, Stacked):
            return Stacked(pick(source.whole, node.key), len(source))
        return [pick(value, node.key) for value in source]
    if isinstance(node, Apply) and not node.fn.loops and node.fn.many is not None:
        names = [name for name, _ in node.fn.parameters]
        sources = {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}
        rows = [tuple(columns[id(sources[name])][i] for name in names if name in sources) for i in range(len(contexts))]
        return node.fn.many(rows, contexts, abort)
    return [compute(node, {key: column[i] for key, column in columns.items()}, ctx, abort) for i, ctx in enumerate(contexts)]
