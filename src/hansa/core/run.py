"""One round of a computation over a federation: each stage becomes a task, its replies are reduced as they come."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa.core import trees
from hansa.core.computation import Computation
from hansa.core.executor import FunctionExecutor, compute
from hansa.core.graph import Node, Parameter, Record, Reduce, inputs, walk
from hansa.core.plan import Stage, plan
from hansa.core.protocols import Federation, Replies
from hansa.core.reduce import as_tree, reducer
from hansa.core.round import Policy, begin
from hansa.core.task import Expect, Failure, FLContext, Reply, Shareable, Signal, Task
from hansa.core.trees import Spec
from hansa.core.types import CLIENTS, SERVER, FederatedType, SequenceType
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
    given = [p for p in computation.parameters if p.placement is SERVER]
    if len(state) != len(given):
        raise TraceError(f"{computation.name} takes {len(given)} server values", got=len(state))
    ctx = FLContext(site="server", slot=-1, round=round, seed=federation.seed, population=len(federation.sites))
    values: dict[int, Any] = {id(p): conform(value, p.type, path=p.name) for p, value in zip(given, state, strict=True)}
    metrics: dict[str, dict[str, float]] = {}
    refused: list[Reply] = []
    lost: list[Reply] = []
    for stage in plan(computation).stages:
        task = _task(stage, values, ctx)
        replies = federation.task(task, asked, rules)
        release = getattr(replies, "release", None)
        reducers = [reducer(reduce, stage, _like(reduce, values, ctx), release) for reduce in stage.reductions]
        admitted: list[int] = []
        wrong: UpdateError | None = None
        try:
            for reply in replies:
                try:
                    for each in reducers:
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


def _refused(error: UpdateError, reply: Reply, task: Task, *, alone: bool) -> Reply:
    """The reply as refused; raises the error, with the site's name, unless its reduction is the only one."""
    error.site, error.round, error.task = reply.site, task.round, task.name
    if not alone:
        raise error
    return Reply(reply.slot, reply.site, Shareable(), Failure(error.code, str(error), error.path))


def _task(stage: Stage, values: dict[int, Any], ctx: FLContext) -> Task:
    body = {label: pack(server_value(node.source, values, ctx), path=label) for label, node in stage.goes}
    expects = []
    for reduce in stage.reductions:
        if reduce.kind == "using":
            like = _like(reduce, values, ctx)
            weight = None if reduce.weight is None else stage.labels[id(reduce.weight)]
            spec = None if like is None else Spec.of(like)
            expects.append(Expect(stage.labels[id(reduce.value)], spec, weight, reduce.weight_cap))
    return Task(stage.task, Shareable(body), ctx.round, expect=tuple(expects))


def _like(reduce: Reduce, values: dict[int, Any], ctx: FLContext) -> trees.Tree | None:
    return None if reduce.like is None else as_tree(pack(server_value(reduce.like, values, ctx)))


def server_value(node: Node, values: dict[int, Any], ctx: FLContext) -> Any:
    """The value of a node at the server; computes what it needs and remembers it."""
    for inner in walk(node):
        if id(inner) not in values and inner.placement is not CLIENTS and not isinstance(inner, Reduce | Parameter):
            sources = [n for n in inputs(inner) if n.placement is not CLIENTS]
            if all(id(n) in values for n in sources):
                values[id(inner)] = compute(inner, values, ctx, Signal())
    return values[id(node)]


def call(computation: Computation, given: Mapping[str, Any]) -> Any:
    """The result on values at hand: client arguments are sequences, one entry a client. Errors of functions pass through."""
    client = [p for p in computation.parameters if p.placement is CLIENTS]
    columns = {p.name: _cohort(given[p.name], p) for p in client}
    sizes = {len(column) for column in columns.values()}
    if len(sizes) > 1:
        raise TraceError("the client arguments have different lengths", got={name: len(c) for name, c in columns.items()})
    collected = copy.copy(computation)
    collected.result = _collected(computation.result)
    state = [given[p.name] for p in computation.parameters if p.placement is SERVER]
    hand = _AtHand(FunctionExecutor([collected]), columns, max(sizes, default=0))
    return run(collected, hand, *state, policy=Policy(quorum=1.0)).result  # nobody is left out in silence


def _cohort(column: Any, parameter: Parameter) -> list[Any]:
    if parameter.type.all_equal if isinstance(parameter.type, FederatedType) else False:
        return [conform(column, parameter.type, path=parameter.name)]
    if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
        raise TraceError("a client argument is a sequence with one entry a client", path=parameter.name, got=type(column).__name__)
    return [conform(item, parameter.type, path=f"{parameter.name}[{i}]") for i, item in enumerate(column)]


def _collected(node: Node) -> Node:
    """The result with each client value as the list of what the clients hold."""
    if isinstance(node, Record) and node.placement is None:
        return Record(tuple((name, _collected(item)) for name, item in node.items), node.type, None)
    if node.placement is not CLIENTS:
        return node
    member = node.type.member if isinstance(node.type, FederatedType) else node.type
    return Reduce("collect", node, FederatedType(SequenceType(member), SERVER))


class _AtHand:
    """A federation of values at hand, for calling a computation directly."""

    seed = 0

    def __init__(self, executor: FunctionExecutor, columns: Mapping[str, list[Any]], clients: int) -> None:
        self._executor, self._columns = executor, columns
        self.sites = [f"client {i}" for i in range(clients)]

    def task(self, task: Task, slots: Sequence[int], policy: Policy) -> Replies:  # noqa: ARG002  there is nobody to wait for
        return _Given(self._reply(task, slot) for slot in slots)

    def _reply(self, task: Task, slot: int) -> Reply:
        ctx = FLContext(site=self.sites[slot], slot=slot, load=lambda name: self._columns[name][slot])
        return Reply(slot, ctx.site, self._executor.execute(task.name, task.shareable, ctx, Signal()))

    def checkpoint(self, round: int, state: trees.Tree, notes: Mapping[str, Any]) -> None:  # noqa: A002  the protocol's word
        """Keep nothing: a direct call is over when it returns."""

    def restore(self) -> None:
        """Nothing to go on from."""

    def report(self, record: Mapping[str, Any]) -> None:
        """Nobody listens."""


@dataclass
class _Given:
    replies: Iterator[Reply]
    refused: Sequence[Reply] = ()
    lost: Sequence[Reply] = ()

    def __iter__(self) -> Iterator[Reply]:
        return self.replies

    def drop(self, reply: Reply) -> None:
        """Nobody remembers anything."""
