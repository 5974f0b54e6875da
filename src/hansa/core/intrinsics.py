"""The federated operators, under TensorFlow Federated's names. They work on the values of a traced computation.

To a type checker `federated_map(fn, x)` is `fn(x)` and `federated_mean(x)` is an x: placements are checked when the computation
is traced, before any site is contacted. Each raises TraceError with the user's line when a placement or type does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast, overload

from hansa.core.computation import as_local
from hansa.core.graph import Apply, Broadcast, Constant, LocalFunction, Node, Record, Reduce, Value, as_node, member_of, where
from hansa.core.protocols import Aggregator
from hansa.core.types import (
    CLIENTS,
    SERVER,
    UNKNOWN,
    FederatedType,
    Placement,
    SequenceType,
    StructType,
    TensorType,
    Type,
    assignable,
)
from hansa.errors import TraceError

R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")
A = TypeVar("A")


def federated_broadcast(value: T) -> T:
    """A server value at every client: `T@SERVER -> T@CLIENTS`, all equal."""
    node = _at(as_node(value), SERVER, "federated_broadcast")
    return cast(T, Value(Broadcast(node, FederatedType(member_of(node.type), CLIENTS, True))))


def federated_map(fn: Callable[..., R], arg: object) -> R:
    """`fn` applied where `arg` is: `{T}@CLIENTS -> {U}@CLIENTS` or `T@SERVER -> U@SERVER`.

    A tuple gives positional arguments, a dict keyword arguments, a value of a struct type is spread over several parameters. A
    function may ask, by keyword-only parameters of these names, for `ctx` (FLContext) and `abort` (Signal).
    """
    local = as_local(fn)
    node = as_node(arg)
    place = node.placement
    if place is None:
        raise TraceError(
            f"federated_map({local.name}) needs values of one placement",
            got=node.type,
            hint="broadcast server values before clients use them" + where(),
        )
    args, kwargs = _arguments(node, arg, local)
    _check_arguments(local, args, kwargs)
    result = FederatedType(_plain(local.result, local.name), place)
    return cast(R, Value(Apply(local, args, kwargs, place, result)))


def federated_eval(fn: Callable[..., R], placement: Placement) -> R:
    """The result of a function without arguments at a placement."""
    local = as_local(fn)
    if local.parameters:
        raise TraceError(f"federated_eval({local.name}) takes a function without parameters", hint=where())
    return cast(R, Value(Apply(local, (), (), placement, FederatedType(_plain(local.result, local.name), placement))))


def federated_value(value: T, placement: Placement) -> T:
    """A constant at a placement, all equal."""
    node = as_node(value)
    if not isinstance(node, Constant):
        raise TraceError("federated_value places constants", got=node.type, hint=where())
    return cast(T, Value(Constant(value, FederatedType(node.type, placement, True), placement)))


def federated_zip(values: T) -> T:
    """A struct of federated values as one federated struct: `<{A}@P,{B}@P> -> {<A,B>}@P`."""
    node = as_node(values)
    if isinstance(node, Record) and node.placement is not None:
        return cast(T, Value(node))
    raise TraceError("federated_zip needs a struct of values of one placement", got=node.type, hint=where())


def federated_mean(value: T, weight: object = None) -> T:
    """The (weighted) mean over clients, folded in float64 in slot order: `{T}@CLIENTS -> T@SERVER`, T of floats.

    An empty cohort, or weights that sum to zero, give nan, as in TFF.
    """
    node = _at(as_node(value), CLIENTS, "federated_mean")
    _each_tensor(member_of(node.type), "fc", "a mean is taken of floating-point values")
    weight_node = None if weight is None else _at(as_node(weight), CLIENTS, "the weight of federated_mean")
    if weight_node is not None:
        member = member_of(weight_node.type)
        if isinstance(member, StructType) or (
            isinstance(member, TensorType) and (member.shape != () or member.dtype.kind not in "iuf")
        ):
            raise TraceError("a weight is one integer or float at each client", got=weight_node.type, hint=where())
    return cast(T, Value(Reduce("mean", node, FederatedType(member_of(node.type), SERVER), weight_node)))


def federated_sum(value: T) -> T:
    """The sum over clients, in slot order: `{T}@CLIENTS -> T@SERVER`. Floats add in float64; integers keep their dtype and wrap."""
    node = _at(as_node(value), CLIENTS, "federated_sum")
    _each_tensor(member_of(node.type), "iufc", "a sum is taken of numbers")
    return cast(T, Value(Reduce("sum", node, FederatedType(member_of(node.type), SERVER))))


def federated_collect(value: T) -> Sequence[T]:
    """Each client's value, in slot order: `{T}@CLIENTS -> T*@SERVER`. Deployed, it needs the sites' policy."""
    node = _at(as_node(value), CLIENTS, "federated_collect")
    return cast("Sequence[T]", Value(Reduce("collect", node, FederatedType(SequenceType(member_of(node.type)), SERVER))))


@overload
def federated_aggregate(
    value: T, zero: Aggregator[A], *, weight: object = None, like: object = None, weight_cap: float = ...
) -> T: ...
@overload
def federated_aggregate(
    value: T, zero: U, accumulate: Callable[[U, T], U], merge: Callable[[U, U], U], report: Callable[[U], R]
) -> R: ...
def federated_aggregate(
    value: object,
    zero: object,
    accumulate: Callable[..., Any] | None = None,
    merge: Callable[..., Any] | None = None,
    report: Callable[..., Any] | None = None,
    *,
    weight: object = None,
    like: object = None,
    weight_cap: float = float("inf"),
) -> Any:
    """Clients' values reduced at the server.

    Either with an Aggregator: each update passes the gate first (its Spec is that of the server value `like`, it is finite,
    its weight is finite, positive and at most `weight_cap`); a refused one is named in the run and leaves the sum untouched. Or
    with TFF's four functions: `report(accumulate(... accumulate(zero, v1) ..., vn))`; `merge` joins accumulators of relays.
    """
    node = _at(as_node(value), CLIENTS, "federated_aggregate")
    if accumulate is not None:
        if merge is None or report is None:
            raise TraceError("federated_aggregate takes zero, accumulate, merge and report, or an Aggregator", hint=where())
        functions = (as_node(zero), as_local(accumulate), as_local(merge), as_local(report))
        return Value(Reduce("aggregate", node, FederatedType(functions[3].result, SERVER), using=functions))
    if not all(hasattr(zero, name) for name in ("zero", "add", "merge", "finish")):
        raise TraceError("not an Aggregator", got=type(zero).__name__, expected="zero, add, merge, finish", hint=where())
    weight_node = None if weight is None else _at(as_node(weight), CLIENTS, "the weight of federated_aggregate")
    like_node = None if like is None else _at(as_node(like), SERVER, "`like` of federated_aggregate")
    result = FederatedType(member_of(node.type), SERVER)
    return Value(Reduce("using", node, result, weight_node, like_node, zero, weight_cap))


def _at(node: Node, placement: Placement, what: str) -> Node:
    if node.placement is not placement:
        raise TraceError(
            f"{what} takes a value at {placement}",
            got=node.type if node.placement else f"{node.type}, which has no single placement",
            hint=("" if node.placement is not SERVER else "it is at SERVER already") + where(),
        )
    return node


def _plain(kind: Type, name: str) -> Type:
    if isinstance(kind, FederatedType):
        raise TraceError(f"the local function {name!r} returns a federated type", got=kind, hint=where())
    return kind


def _arguments(node: Node, arg: object, local: LocalFunction) -> tuple[tuple[Node, ...], tuple[tuple[str, Node], ...]]:
    if isinstance(node, Record) and not isinstance(arg, Value):
        if isinstance(arg, dict):
            return (), tuple((str(name), item) for name, item in node.items)
        return tuple(item for _, item in node.items), ()
    member = member_of(node.type)
    if isinstance(member, StructType) and len(local.parameters) == len(member.elements) > 1:
        return tuple(as_node(Value(node)[i]) for i in range(len(member.elements))), ()
    return (node,), ()


def _check_arguments(local: LocalFunction, args: tuple[Node, ...], kwargs: tuple[tuple[str, Node], ...]) -> None:
    names = [name for name, _ in local.parameters]
    if len(args) > len(names) or any(name not in names for name, _ in kwargs):
        raise TraceError(
            f"{local.name} takes {len(names)} arguments ({', '.join(names)})",
            got=len(args) + len(kwargs) if not kwargs else [name for name, _ in kwargs],
            hint=where(),
        )
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    for name, want in local.parameters:
        if name in given and not assignable(want, member_of(given[name].type)):
            raise TraceError(
                f"{local.name} does not take this", path=name, expected=want, got=member_of(given[name].type), hint=where()
            )


def _each_tensor(kind: Type, kinds: str, message: str) -> None:
    if isinstance(kind, StructType):
        for _, item in kind.elements:
            _each_tensor(item, kinds, message)
    elif isinstance(kind, SequenceType) or (
        isinstance(kind, TensorType) and kind.dtype.kind not in kinds and kind.dtype.name != "bfloat16"
    ):
        raise TraceError(message, got=kind, hint=where())


__all__ = [
    "UNKNOWN",
    "federated_aggregate",
    "federated_broadcast",
    "federated_collect",
    "federated_eval",
    "federated_map",
    "federated_mean",
    "federated_sum",
    "federated_value",
    "federated_zip",
]
