"""Operators on sequences, under TensorFlow Federated's names: on one place's own, inside federated values, and selections by keys.

They work on the values of a traced computation, as `hansa.core.intrinsics` do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from hansa.core.graph import Apply, Broadcast, Constant, LocalFunction, Node, Value, as_node, member_of, where, zipped
from hansa.core.intrinsics import each_tensor, folded, operator, placed_at, plain
from hansa.core.reduce import each, empty, narrow, wide
from hansa.core.types import CLIENTS, SERVER, UNKNOWN, FederatedType, ObjectType, SequenceType, TensorType, Type, assignable
from hansa.core.values import pack, unpack
from hansa.errors import RunError, TraceError
from hansa.local import LocalComputation

INT32 = TensorType(np.int32)
R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")


def sequence_map(fn: Callable[[T], R], sequence: Any) -> Sequence[R]:
    """`fn` of each element: `T* -> U*`, also within `{T*}@P`."""
    node, element = _sequence(sequence, "sequence_map")
    local = operator(fn, (element,), None, "the function of sequence_map")
    result = SequenceType(plain(local))
    return cast("Sequence[R]", _within(lambda items: [local.fn(item) for item in items], f"map_{local.name}", [node], result))


def sequence_reduce(sequence: Any, zero: object, op: Callable[[U, T], U]) -> U:
    """`op(... op(zero, e1) ..., en)` over the elements: `<T*,U,(<U,T> -> U)> -> U`, also within `{T*}@P`."""
    node, element = _sequence(sequence, "sequence_reduce")
    start, local, kind = folded(zero, element, op, "op")
    fold = local.fn.fold if isinstance(local.fn, LocalComputation) else functools.partial(functools.reduce, local.fn)
    return cast(U, _within(fold, f"reduce_{local.name}", [node, start], kind))


def sequence_sum(sequence: Any) -> Any:
    """The sum of the elements: `T* -> T`, T of numbers, also within `{T*}@P`. Added as `federated_sum` adds clients' values."""
    node, element = _sequence(sequence, "sequence_sum")
    each_tensor(element, "iufc", "a sum is taken of numbers of known shape", known=True)
    return _within(lambda items: _total(items, element), "sum", [node], element)


def federated_select(client_keys: Any, max_key: Any, server_val: Any, select_fn: Callable[..., R]) -> Sequence[R]:
    """For each key of a client, in order, `select_fn(server_val, key)`: `{int32[N]}@CLIENTS -> {U*}@CLIENTS`; keys stay there.

    Keys are from 0 to `max_key` - 1 (`int32@SERVER`); another one is an error at the client.
    """
    return _selected("federated_select", client_keys, max_key, server_val, select_fn)


def federated_secure_select(client_keys: Any, max_key: Any, server_val: Any, select_fn: Callable[..., R]) -> Sequence[R]:
    """`federated_select` that hides from the server which keys were asked for; without a secure protocol it is refused."""
    return _selected("federated_secure_select", client_keys, max_key, server_val, select_fn)


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


def _selected(what: str, client_keys: object, max_key: object, server_val: object, select_fn: Callable[..., R]) -> Sequence[R]:
    keys, most, table = placed_at(client_keys, CLIENTS, what), placed_at(max_key, SERVER, what), placed_at(server_val, SERVER, what)
    kind = member_of(keys.type)
    if not (
        isinstance(kind, TensorType) and kind.dtype == np.int32 and len(kind.shape or ()) == 1 and None not in (kind.shape or ())
    ):
        raise TraceError(
            f"the keys of {what} are a vector of known length", expected="{int32[N]}@CLIENTS", got=keys.type, hint=where()
        )
    if not assignable(INT32, member_of(most.type)):
        raise TraceError(f"max_key of {what}", expected="int32@SERVER", got=most.type, hint=where())
    local = operator(select_fn, (member_of(table.type), INT32), None, "select_fn")

    def chosen(rows: Any, end: Any, wanted: Any) -> list[Any]:
        for place, key in enumerate(wanted):
            if not 0 <= key < end:
                raise RunError(
                    f"{what} was asked for a key that there is not", path=f"keys[{place}]", got=key, expected=f"0..{end - 1}"
                )
        return [local.fn(rows, key) for key in wanted]

    down = tuple(Broadcast(node, FederatedType(member_of(node.type), CLIENTS, True)) for node in (table, most))
    takes = (("server_val", member_of(table.type)), ("max_key", INT32), ("keys", kind))
    result = SequenceType(plain(local))
    made = LocalFunction(chosen, f"select_{local.name}", takes, result)
    secure = what if what != "federated_select" else ""
    return cast("Sequence[R]", Value(Apply(made, (*down, keys), (), CLIENTS, FederatedType(result, CLIENTS), secure)))
