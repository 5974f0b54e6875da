"""One round of a computation over a federation: each stage becomes a task, its replies are reduced as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa.core.computation import Computation
from hansa.core.executor import compute
from hansa.core.graph import Node, Parameter, Reduce, inputs, member_of, walk
from hansa.core.plan import Stage, plan
from hansa.core.protocols import Federation, Replies
from hansa.core.reduce import Reducer, as_tree, reducer
from hansa.core.round import Policy, begin
from hansa.core.task import Expect, Failure, FLContext, Reply, Shareable, Signal, Task
from hansa.core.trees import Spec
from hansa.core.types import CLIENTS, TensorType
from hansa.core.values import conform, pack
from hansa.errors import QuorumError, TraceError, UpdateError


@dataclass(frozen=True)
class Round:
    """What one round gave: the computation's result, and who took part."""

    result: Any
    admitted: tuple[int, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: tuple[Reply, ...] = ()
    lost: tuple[Reply, ...] = ()


class Unmet(QuorumError):
    """The federation's QuorumError; `refused` are the replies that came and could not be used."""

    def __init__(self, error: QuorumError, refused: Sequence[Reply]) -> None:
        super().__init__(error.message)
        self.__dict__.update(error.__dict__)
        self.refused = tuple(refused)


def run(
    computation: Computation,
    federation: Federation,
    *state: Any,
    round: int = 0,  # noqa: A002  DESIGN's word
    slots: Sequence[int] | None = None,
    policy: Policy | None = None,
) -> Round:
    """One round: the server's arguments are `state`, the clients' are their own data.

    `slots` are the sites that are asked (None: all). Later stages ask the sites that the stage before admitted. A reply that
    passed the gate and that the stage's one aggregator cannot add is refused too: an aggregator that raises has added nothing.

    Raises:
        Unmet: too few sites gave a usable reply.
        UpdateError: as many as the quorum cannot be added, or one that another reduction has taken in; names the site.
        TraceError: the state does not fit the computation's parameters.
    """
    asked = tuple(range(len(federation.sites)) if slots is None else slots)
    rules = policy or Policy()
    given = [p for p in computation.parameters if p.placement is not CLIENTS]
    if len(state) != len(given):
        raise TraceError(f"{computation.name} takes {len(given)} server values", got=len(state))
    ctx = FLContext(site="server", slot=-1, round=round, seed=federation.seed, population=len(federation.sites))
    values: dict[int, Any] = {id(p): conform(value, p.type, path=p.name) for p, value in zip(given, state, strict=True)}
    metrics: dict[str, dict[str, float]] = {}
    refused: list[Reply] = []
    lost: list[Reply] = []
    made = plan(computation)
    for stage in made.stages:
        task = _task(stage, values, ctx, made.secure)
        replies = federation.task(task, asked, rules)
        release = getattr(replies, "release", None)
        reducers = [reducer(reduce, stage, _start(reduce, values, ctx), release) for reduce in stage.reductions]
        admitted: list[int] = []
        wrong: UpdateError | None = None
        try:
            for reply, taken in _each(replies, reducers):
                try:
                    for each in () if taken else reducers:
                        each.add(reply.shareable)
                except UpdateError as error:
                    wrong = error
                    refused.append(_refused(error, reply, task, alone=[r.kind for r in stage.reductions] == ["using"]))
                    replies.drop(refused[-1])
                    continue
                admitted.append(reply.slot)
                if reply.shareable.metrics:
                    metrics.setdefault(reply.site, {}).update(reply.shareable.metrics)
        except QuorumError as error:
            raise Unmet(error, replies.refused) from error
        if wrong is not None and len(admitted) < begin(ctx.round, asked, rules).needed:
            raise wrong
        values.update({id(reduce): each.finish() for reduce, each in zip(stage.reductions, reducers, strict=True)})
        refused += replies.refused
        lost += replies.lost
        asked = tuple(admitted)
    return Round(server_value(computation.result, values, ctx), asked, metrics, tuple(refused), tuple(lost))


def _each(replies: Replies, reducers: Sequence[Reducer]) -> Iterator[tuple[Reply, bool]]:
    """Each reply, and whether the stage's one reducer has it already, with the block of replies that it came in."""
    for given in getattr(replies, "together", replies.__iter__)():
        if isinstance(given, Reply):
            yield given, False
        else:
            taken = len(reducers) == 1 and reducers[0].add_block(given)
            yield from ((given.reply(i, body=not taken), taken) for i in range(len(given.slots)))
        del given  # or a block's memory would outlive it, until the next one is computed


def _refused(error: UpdateError, reply: Reply, task: Task, *, alone: bool) -> Reply:
    """The reply as refused; raises the error, with the site's name, unless its reduction is the only one."""
    error.site, error.round, error.task = reply.site, task.round, task.name
    if not alone:
        raise error
    return Reply(reply.slot, reply.site, Shareable(), Failure(error.code, str(error), error.path))


def _task(stage: Stage, values: dict[int, Any], ctx: FLContext, secure: tuple[str, ...]) -> Task:
    body = {label: pack(server_value(node.source, values, ctx), path=label) for label, node in stage.goes}
    expects = []
    for reduce in stage.reductions:
        if reduce.kind == "using":
            like = _start(reduce, values, ctx)
            weight = None if reduce.weight is None else stage.labels[id(reduce.weight)]
            alone = isinstance(member_of(reduce.value.type), TensorType)  # it travels without a tree around it
            spec = None if like is None else Spec.of({"": like["value"]} if alone else like)
            expects.append(Expect(stage.labels[id(reduce.value)], spec, weight, reduce.weight_cap))
    return Task(stage.task, Shareable(body), ctx.round, expect=tuple(expects), secure=secure)


def _start(reduce: Reduce, values: dict[int, Any], ctx: FLContext) -> Any:
    """What the reduction begins with: the value itself for a function that takes it, else packed."""
    value = None if reduce.start is None else server_value(reduce.start, values, ctx)
    if value is None or reduce.kind == "aggregate":
        return value
    return as_tree(pack(value)) if reduce.kind == "using" else pack(value)


def server_value(node: Node, values: dict[int, Any], ctx: FLContext) -> Any:
    """The value of a node at the server; computes what it needs and remembers it."""
    for inner in walk(node):
        if id(inner) not in values and inner.placement is not CLIENTS and not isinstance(inner, Reduce | Parameter):
            sources = [n for n in inputs(inner) if n.placement is not CLIENTS]
            if all(id(n) in values for n in sources):
                values[id(inner)] = compute(inner, values, ctx, Signal())
    return values[id(node)]
