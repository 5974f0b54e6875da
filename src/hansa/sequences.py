"""Operators on sequences, under TensorFlow Federated's names: on one place's own, and inside federated values.

They work on the values of a traced computation, as `hansa.core.intrinsics` do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from hansa.core.graph import Apply, Constant, LocalFunction, Node, Value, as_node, member_of, where, zipped
from hansa.core.intrinsics import each_tensor, folded, operator, plain
from hansa.core.reduce import each, empty, narrow, wide
from hansa.core.types import UNKNOWN, FederatedType, ObjectType, SequenceType, Type
from hansa.core.values import pack, unpack
from hansa.errors import TraceError

R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")


def sequence_map(fn: Callable[[T], R], sequence: Any) -> Sequence[R]:
    """`fn` of each element: `T* -> U*`, also within `{T*}@P`."""
    node, element = _sequence(sequence, "sequence_map")
    local = operator(fn, (element,), None, "the function of sequence_map")
    result = SequenceType(plain(local))
    return cast("Sequence[R]", _within(lambda items: [local.fn(item) for item in items], f"map_{local.name}", [node], result))


def sequence_reduce(sequence: Any, zero: U, op: Callable[[U, T], U]) -> U:
    """`op(... op(zero, e1) ..., en)` over the elements: `<T*,U,(<U,T> -> U)> -> U`, also within `{T*}@P`."""
    node, element = _sequence(sequence, "sequence_reduce")
    start, local, kind = folded(zero, element, op, "op")
    return cast(
        U, _within(lambda items, total: functools.reduce(local.fn, items, total), f"reduce_{local.name}", [node, start], kind)
    )


def sequence_sum(sequence: Any) -> Any:
    """The sum of the elements: `T* -> T`, T of numbers, also within `{T*}@P`. Added as `federated_sum` adds clients' values."""
    node, element = _sequence(sequence, "sequence_sum")
    each_tensor(element, "iufc", "a sum is taken of numbers of known shape", known=True)
    return _within(lambda items: _total(items, element), "sum", [node], element)


def _sequence(value: object, what: str) -> tuple[Node, Type]:
    """The sequence, and its elements' type."""
    node = zipped(as_node(value))
    member = member_of(node.type)
    if not isinstance(member, SequenceType | ObjectType):
        raise TraceError(f"{what} takes a sequence", got=node.type, hint=where())
    return node, member.element if isinstance(member, SequenceType) else UNKNOWN


def _within(fn: Callable[..., Any], name: str, nodes: list[Node], result: Type) -> Any:
    """The function applied to a sequence where it is, or to an unplaced one."""
    place = nodes[0].placement
    if any(node.placement is not place and not isinstance(node, Constant) for node in nodes):
        got = ", ".join(str(node.type) for node in nodes)
        raise TraceError(f"{name} needs values of one placement", got=got, hint="use federated_value" + where())
    takes = tuple((f"x{i}", member_of(node.type)) for i, node in enumerate(nodes))
    kind = result if place is None else FederatedType(result, place)
    return Value(Apply(LocalFunction(fn, name, takes, result), tuple(nodes), (), place, kind))


def _total(items: Iterable[Any], kind: Type) -> Any:
    """Floats add in float64, integers in their own dtype (they wrap)."""
    total: Any = None
    first: Any = None
    for item in items:
        packed = pack(item)
        with np.errstate(over="ignore"):
            first, total = (packed, each(wide, packed)) if total is None else (first, each(np.add, total, each(wide, packed)))
    return unpack(empty(kind, lambda _: 0) if total is None else narrow(total, first), kind)
