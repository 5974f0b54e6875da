"""What composable aggregators are made of: functions on the leaves of a value, and processes from two functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from hansa.core import trees
from hansa.core.computation import federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.reduce import as_tree
from hansa.core.trees import Array, Tree
from hansa.core.types import CLIENTS, FederatedType, SequenceType, StructType, TensorType, Type
from hansa.core.values import pack, unpack
from hansa.errors import TraceError
from hansa.templates import (
    AggregationFactory,
    AggregationProcess,
    MeasuredProcessOutput,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)
from hansa.templates.iterative import called

INT32, FLOAT32 = TensorType(np.int32), TensorType(np.float32)
F = TypeVar("F", bound=AggregationFactory)
Step: TypeAlias = Callable[..., MeasuredProcessOutput]  # (state, value[, weight]), while it is traced


def local(name: str, fn: Callable[..., Any], takes: dict[str, Type], gives: Type, *wants: str, about: str = "") -> LocalFunction:
    """A function of these types that runs at one place; the vectorised engine may call it client by client."""
    return LocalFunction(fn, name, tuple(takes.items()), gives, frozenset(wants), loops=True, about=about)


def tree_of(value: object) -> Tree:
    """A value as a tree of arrays; a lone array is the leaf `value`."""
    return as_tree(pack(value))


def value_of(tree: Tree, kind: Type) -> Any:
    """The value of a type that a tree of `tree_of` stands for."""
    return unpack(tree["value"] if isinstance(kind, TensorType) else tree, kind)


def on_leaves(fn: Callable[..., Array], value: object, *others: object, kind: Type) -> Any:
    """`fn` leaf by leaf, with the leaves of `others`, as a value of the type."""
    return value_of(trees.map(fn, tree_of(value), *map(tree_of, others)), kind)


def typed(value: Any, kind: Type) -> Any:
    """The value with the dtypes of its type; of a Tree, whose dtypes are not known, as it is."""
    if isinstance(kind, TensorType):
        return unpack(np.asarray(value).astype(kind.dtype), kind)
    if not isinstance(kind, StructType):
        return value
    parts = pack(value)
    names = [name or str(i) for i, (name, _) in enumerate(kind.elements)]
    return unpack({name: pack(typed(parts[name], each)) for name, each in zip(names, kind.children(), strict=True)}, kind)


def is_float(leaf: Array) -> bool:
    """Whether the leaf holds real floating-point numbers, of any width."""
    return leaf.dtype.kind == "f" or leaf.dtype.name == "bfloat16"


def floats(kind: Type) -> Type:
    """The type, which is of floating-point tensors alone, or a Tree, of which that is not known.

    Raises:
        TraceError: it is not.
    """
    if isinstance(kind, TensorType) and kind.dtype.kind != "f" and kind.dtype.name != "bfloat16":
        raise TraceError("All values in provided value_type must be of floating dtype", got=kind)
    if isinstance(kind, SequenceType):
        raise TraceError("a sequence cannot be aggregated", got=kind)
    for each in kind.children() if isinstance(kind, StructType) else ():
        floats(each)
    return kind


def with_dtypes(kind: Type, change: Callable[[np.dtype[Any]], object]) -> Type:
    """The type with another dtype for each tensor."""
    if isinstance(kind, TensorType):
        return TensorType(np.dtype(cast(Any, change(kind.dtype))), kind.shape)
    if isinstance(kind, StructType):
        return StructType([(name, with_dtypes(each, change)) for name, each in kind.elements], kind.container)
    return kind


def process(initialize: Callable[[], Any], step: Step, value_type: Type, weight_type: Type | None = None) -> AggregationProcess:
    """The aggregation of two functions that are traced: the first state at the server, and the step."""
    start = federated_computation(initialize)
    state, value = start.type_signature.result, FederatedType(value_type, CLIENTS)

    def aggregate(state: Any, value: Any) -> Any:
        return step(state, value)

    def aggregate_weighted(state: Any, value: Any, weight: Any) -> Any:
        return step(state, value, weight)

    if weight_type is None:
        return AggregationProcess(start, federated_computation(aggregate, state, value))
    return AggregationProcess(start, federated_computation(aggregate_weighted, state, value, FederatedType(weight_type, CLIENTS)))


@dataclass(frozen=True)
class _Unweighted(UnweightedAggregationFactory):
    make: Callable[[Type, Type | None], AggregationProcess]

    def create(self, value_type: Type) -> AggregationProcess:
        return self.make(value_type, None)


@dataclass(frozen=True)
class _Weighted(WeightedAggregationFactory):
    make: Callable[[Type, Type | None], AggregationProcess]

    def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
        return self.make(value_type, weight_type)


def around(inner: F, make: Callable[[Type, Type | None], AggregationProcess]) -> F:
    """A factory of the inner one's kind, weighted or not. `make` gets None for the weight of an unweighted one.

    Raises:
        TraceError: `inner` is no factory.
    """
    if isinstance(inner, WeightedAggregationFactory):
        return cast(F, _Weighted(make))
    if isinstance(inner, UnweightedAggregationFactory):
        return cast(F, _Unweighted(make))
    raise TraceError(
        "not an aggregation factory",
        got=type(inner).__name__,
        expected="a WeightedAggregationFactory or an UnweightedAggregationFactory",
    )


def created(factory: AggregationFactory, value_type: Type, weight_type: Type | None) -> AggregationProcess:
    """The process of a factory, with the weight's type where it has one."""
    if isinstance(factory, UnweightedAggregationFactory):
        return factory.create(value_type)
    if weight_type is None:
        raise TraceError("a weighted aggregation needs the type of its weights", got=type(factory).__name__)
    return factory.create(value_type, weight_type)


def start(inner: AggregationProcess | Any) -> Any:
    """While a process is traced: the inner one's first state."""
    return called(inner.initialize)


def run(inner: AggregationProcess | Any, *args: Any) -> Any:
    """While a process is traced: the inner one's step."""
    return called(inner.next, *args)
