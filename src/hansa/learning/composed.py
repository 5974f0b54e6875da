"""Composed aggregators in learning: their state in the server's, their measurements in the round's metrics, all behind the gate."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from hansa import registry
from hansa.aggregation.sums import Sum
from hansa.core import trees
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import (
    Apply,
    Broadcast,
    Constant,
    LocalFunction,
    Node,
    Record,
    Reduce,
    Select,
    Value,
    as_node,
    member_of,
    select,
    substitute,
    walk,
)
from hansa.core.intrinsics import federated_map, federated_zip
from hansa.core.protocols import Dataset
from hansa.core.reduce import as_tree
from hansa.core.trees import Tree
from hansa.core.types import CLIENTS, SERVER, TREE, FederatedType, ObjectType, StructType, TensorType, Type
from hansa.core.values import pack, unpack
from hansa.errors import ConfigError, TraceError
from hansa.learning.state import AggregatingState, LearningProcessOutput, State
from hansa.templates import AggregationProcess, UnweightedAggregationFactory, WeightedAggregationFactory
from hansa.templates.iterative import called, parameters_of

WEIGHT = TensorType(np.float64)


def composes(aggregator: object) -> bool:
    """Whether this is an AggregationProcess, or a factory that makes one."""
    return isinstance(aggregator, AggregationProcess | UnweightedAggregationFactory | WeightedAggregationFactory)


def named(aggregator: object) -> object:
    """What a job file's name stands for: `"robust"`, or a table such as `{kind = "robust", zeroing = false}`; others as they are.

    Raises:
        ConfigError: there is no aggregator of the name, or it does not take this; names the path.
    """
    given = {"kind": aggregator} if isinstance(aggregator, str) else aggregator
    if not isinstance(given, Mapping):
        return aggregator
    arguments = dict(given)
    kind = arguments.pop("kind", "")
    make = registry.find("aggregators", str(kind), path="aggregator.kind" if given is aggregator else "aggregator")
    try:
        return cast(Callable[..., object], make)(**arguments)
    except TypeError as error:
        raise ConfigError(f"the aggregator {kind!r} does not take this: {error}", path="aggregator") from None


def process_of(aggregator: object) -> AggregationProcess | None:
    """The process that combines updates, which are Trees; None where the aggregator is a streaming one.

    Raises:
        ConfigError: it does not take Trees.
    """
    try:
        if isinstance(aggregator, UnweightedAggregationFactory):
            return aggregator.create(TREE)
        if isinstance(aggregator, WeightedAggregationFactory):
            return aggregator.create(TREE, WEIGHT)
    except TraceError as error:
        raise ConfigError("the aggregator takes no updates of a model", path="aggregator", hint=str(error)) from error
    return aggregator if isinstance(aggregator, AggregationProcess) else None


def composed_round(
    process: AggregationProcess,
    trained: Callable[[Any, Any], tuple[Tree, Any]],
    server: Callable[[State, Tree], State],
    *,
    name: str,
    weight_cap: float,
) -> Computation:
    """The round `(<AggregatingState@SERVER,{Dataset}@CLIENTS> -> <state,metrics>)` that combines updates by the process.

    `trained` gives the shared leaves, and the clients' steps with `delta` and `weight`; `server` makes the next state of what the
    process makes of these, in the dtypes of the model.
    """

    def next_round(state: Any, data: Any) -> LearningProcessOutput:
        shared, step = trained(state, data)
        given = [step.delta]
        if process.is_weighted:
            given.append(federated_map(_weight_as(member_of(parameters_of(process.next)[2])), step.weight))
        done = guarded(process, state.aggregator, given, shared, cap=weight_cap)
        delta = federated_map(_AS_LIKE, (done.result, shared))
        after = federated_map(server, (State(state.model, state.round, state.extra), delta))
        kept = federated_zip(AggregatingState(after.model, after.round, after.extra, done.state))
        return LearningProcessOutput(kept, federated_zip(OrderedDict(aggregator=done.measurements)))

    next_round.__name__ = name
    kinds = [("model", TREE), ("round", TensorType(np.int32)), ("extra", TREE), ("aggregator", member_of(process.state_type))]
    data = FederatedType(ObjectType("Dataset", Dataset), CLIENTS)
    state = FederatedType(StructType(kinds, AggregatingState), SERVER)
    return cast(Computation, federated_computation(next_round, state, data))


def with_aggregator(initialize: Computation, process: AggregationProcess) -> Computation:
    """The computation of a first State, with the first state of the process in it."""

    def start(*data: Any) -> Any:
        state = cast(Any, called(initialize, *data))
        return federated_zip(AggregatingState(state.model, state.round, state.extra, called(process.initialize)))

    kinds = [each.type for each in initialize.parameters]

    def of_data(data: Any) -> Any:
        return start(data)

    def of_nothing() -> Any:
        return start()

    of_data.__name__ = of_nothing.__name__ = initialize.name
    return cast(Computation, federated_computation(of_data if kinds else of_nothing, *kinds))


def measured(result: Any) -> tuple[Any, dict[str, float]]:
    """The state that a round gave, and the numbers that it measured, by path; what is no single number is left out."""
    return (result.state, numbers(result.metrics, "metrics")) if isinstance(result, LearningProcessOutput) else (result, {})


def numbers(value: Any, name: str) -> dict[str, float]:
    """The single numbers in a value by path; `name` is that of a value that is one."""
    told = pack(value)
    leaves = trees.leaves(told) if isinstance(told, Mapping) else [(name, told)]
    return {path: float(leaf) for path, leaf in leaves if leaf.ndim == 0 and leaf.dtype.kind not in "cSU"}


def guarded(process: AggregationProcess, state: Any, given: list[Any], weights: Any, *, cap: float = math.inf) -> Any:
    """While a round is traced: what the process makes of the clients' updates (and weights), all that it adds up behind the gate.

    The server runs the process's client functions on zeros in the form of the model: then it knows what to expect of a site.
    """
    kind = member_of(as_node(weights).type)
    zeros = LocalFunction(lambda model: unpack(trees.zeros(as_tree(pack(model))), kind), "zeros", (("model", kind),), kind)
    done = as_node(called(process.next, state, *given))
    return Value(_behind_gate(done, [as_node(each) for each in given], as_node(federated_map(zeros, weights)), cap))


def _behind_gate(result: Node, given: list[Node], like: Node, cap: float) -> Node:
    """The graph whose reductions of what sites were given know what to expect of each reply."""
    here: dict[int, Node] = {id(given[0]): like}
    weight = given[1] if len(given) > 1 else None
    if weight is not None:
        kind = member_of(weight.type)
        here[id(weight)] = Constant(_weight_as(kind)(1), FederatedType(kind, SERVER), SERVER)
    new: dict[int, Node] = {}
    for node in walk(result):
        adds = isinstance(node, Reduce) and (node.kind == "sum" or (node.kind == "using" and node.start is None))
        if isinstance(node, Reduce) and adds and any(id(each) in here for each in walk(node.value)):
            using = node.using if node.kind == "using" else Sum()
            start = _at_server(node.value, here)
            own = weight if node.value is weight else None  # a weight that does not leave alone is no one's to see
            new[id(node)] = replace(node, kind="using", using=using, start=start, weight=own, weight_cap=cap)
    return substitute(result, new)


def _at_server(node: Node, here: dict[int, Node]) -> Node:
    """What a node at the clients is, computed at the server from what stands `here` for the clients' values."""
    if id(node) in here or node.placement is not CLIENTS:
        return here.get(id(node), node)
    match node:
        case Broadcast():
            made = node.source
        case Select():
            made = select(_at_server(node.source, here), node.key)
        case Record():
            items = tuple((name, _at_server(item, here)) for name, item in node.items)
            made = Record(items, _placed(node.type), SERVER)
        case Apply():
            kwargs = tuple((name, _at_server(item, here)) for name, item in node.kwargs)
            args = tuple(_at_server(item, here) for item in node.args)
            made = replace(node, args=args, kwargs=kwargs, placement=SERVER, type=_placed(node.type))
        case Constant():
            made = replace(node, type=_placed(node.type), placement=SERVER)
        case _:
            raise TraceError("an aggregator reads a site's data", got=node.type, hint="it is given updates and weights alone")
    here[id(node)] = made
    return made


def _placed(kind: Type) -> Type:
    return FederatedType(kind.member, SERVER) if isinstance(kind, FederatedType) else kind


def _weight_as(kind: Type) -> LocalFunction:
    dtype = kind.dtype if isinstance(kind, TensorType) else np.dtype(np.float64)
    return LocalFunction(lambda weight: dtype.type(weight), "weight", (("weight", TensorType(np.int32)),), kind, loops=True)


_AS_LIKE = LocalFunction(
    lambda result, like: trees.map(lambda a, b: trees.cast_like(np.asarray(a), b.dtype), result, like),
    "as_model",
    (("result", TREE), ("like", TREE)),
    TREE,
)
