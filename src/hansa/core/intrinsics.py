"""The federated operators, under TensorFlow Federated's names. They work on the values of a traced computation.

To a type checker `federated_map(fn, x)` is `fn(x)` and `federated_mean(x)` is an x: placements are checked when the computation
is traced, before any site is contacted. Each raises TraceError with the user's line when a placement or type does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast, overload

from hansa.core.computation import as_local, fitted
from hansa.core.graph import (
    Apply,
    Broadcast,
    Constant,
    Kind,
    LocalFunction,
    Node,
    Record,
    Reduce,
    Value,
    as_node,
    member_of,
    select,
    where,
)
from hansa.core.graph import zipped as zip_node
from hansa.core.protocols import Aggregator
from hansa.core.signature import parameter_type
from hansa.core.types import (
    CLIENTS,
    SERVER,
    UNKNOWN,
    AbstractType,
    FederatedType,
    FunctionType,
    Placement,
    SequenceType,
    StructType,
    TensorType,
    Type,
    assignable,
    contains,
)
from hansa.core.values import conform, elements_of, restore
from hansa.errors import TraceError

R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")
A = TypeVar("A")


def federated_broadcast(value: T) -> T:
    """A server value at every client: `T@SERVER -> T@CLIENTS`, all equal."""
    node = placed_at(value, SERVER, "federated_broadcast")
    return cast(T, Value(Broadcast(node, FederatedType(member_of(node.type), CLIENTS, True))))


def federated_map(fn: Callable[..., R], arg: object) -> R:
    """`fn` applied where `arg` is: `{T}@CLIENTS -> {U}@CLIENTS` or `T@SERVER -> U@SERVER`.

    A tuple gives positional arguments, a dict keyword arguments, a value of a struct type is spread over several parameters. A
    function may ask, by keyword-only parameters of these names, for `ctx` (FLContext) and `abort` (Signal).
    """
    return cast(R, _mapped(fn, *_one_place(arg, "federated_map"), arg))


def federated_apply(fn: Callable[..., R], arg: object) -> R:
    """`federated_map` of a value that must be at the server."""
    return cast(R, _mapped(fn, placed_at(arg, SERVER, "federated_apply"), SERVER, arg))


def federated_map_all_equal(fn: Callable[..., R], arg: object) -> R:
    """`fn`, which must give every client the same, of a value that all hold: `T@CLIENTS -> U@CLIENTS`, all equal."""
    node = placed_at(arg, CLIENTS, "federated_map_all_equal")
    if not (isinstance(node.type, FederatedType) and node.type.all_equal):
        raise TraceError("federated_map_all_equal takes what is equal at all clients", got=node.type, hint=where())
    return cast(R, _mapped(fn, node, CLIENTS, arg, all_equal=True))


def federated_eval(fn: Callable[..., R], placement: Placement) -> R:
    """The result of a function without arguments at a placement; clients may each get another."""
    local = as_local(fn)
    if local.parameters:
        raise TraceError(f"federated_eval({local.name}) takes a function without parameters", hint=where())
    return cast(R, Value(Apply(local, (), (), placement, FederatedType(plain(local), placement))))


def federated_value(value: T, placement: Placement) -> T:
    """A constant, or a value without a placement, at one: all equal."""
    node = as_node(value)
    if contains(node.type, FederatedType):
        raise TraceError("federated_value places what has no placement", got=node.type, hint=where())
    kind = FederatedType(node.type, placement, True)
    if isinstance(node, Constant):
        return cast(T, Value(Constant(conform(node.value, node.type, path="value"), kind, placement)))
    return cast(T, Value(Broadcast(node, kind, placement)))


def federated_zip(values: T) -> T:
    """A struct of federated values as one federated struct: `<{A}@P,{B}@P> -> {<A,B>}@P`."""
    node = as_node(values)
    if isinstance(node, Record) and isinstance(node.type, StructType) and node.placement is not None:
        return cast(T, Value(zip_node(node)))
    raise TraceError("federated_zip needs a struct of values of one placement", got=node.type, hint=where())


def federated_mean(value: T, weight: object = None) -> T:
    """The (weighted) mean over clients, folded in float64 in slot order: `{T}@CLIENTS -> T@SERVER`, T of floats.

    An empty cohort, or weights that sum to zero, give nan, as in TFF.
    """
    node = placed_at(value, CLIENTS, "federated_mean")
    each_tensor(member_of(node.type), "fc", "a mean is taken of floating-point values")
    weight_node = None if weight is None else placed_at(weight, CLIENTS, "the weight of federated_mean")
    if weight_node is not None:
        member = member_of(weight_node.type)
        if isinstance(member, StructType) or (
            isinstance(member, TensorType) and (member.shape != () or member.dtype.kind not in "iuf")
        ):
            raise TraceError("a weight is one integer or float at each client", got=weight_node.type, hint=where())
    return cast(T, Value(Reduce("mean", node, FederatedType(member_of(node.type), SERVER), weight_node)))


def federated_sum(value: T) -> T:
    """The sum over clients, in slot order: `{T}@CLIENTS -> T@SERVER`. Floats add in float64; integers keep their dtype and wrap."""
    node = placed_at(value, CLIENTS, "federated_sum")
    each_tensor(member_of(node.type), "iufc", "a sum is taken of numbers of known shape", known=True)
    return cast(T, Value(Reduce("sum", node, FederatedType(member_of(node.type), SERVER))))


def federated_min(value: T) -> T:
    """The least over clients, entry by entry: `{T}@CLIENTS -> T@SERVER`; of no clients the greatest that the dtype holds."""
    return _extreme(value, "min")


def federated_max(value: T) -> T:
    """The greatest over clients, entry by entry: `{T}@CLIENTS -> T@SERVER`; of no clients the least that the dtype holds."""
    return _extreme(value, "max")


def federated_collect(value: T) -> Sequence[T]:
    """Each client's value, in slot order: `{T}@CLIENTS -> T*@SERVER`. Deployed, it needs the sites' policy."""
    node = placed_at(value, CLIENTS, "federated_collect")
    return cast("Sequence[T]", Value(Reduce("collect", node, FederatedType(SequenceType(member_of(node.type)), SERVER))))


@overload
def federated_aggregate(
    value: T, zero: Aggregator[A], *, weight: object = None, like: object = None, weight_cap: float = ...
) -> T: ...
@overload
def federated_aggregate(
    value: T, zero: object, accumulate: Callable[[U, T], U], merge: Callable[[U, U], U], report: Callable[[U], R]
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
    node = placed_at(value, CLIENTS, "federated_aggregate")
    if accumulate is not None:
        if merge is None or report is None:
            raise TraceError("federated_aggregate takes zero, accumulate, merge and report, or an Aggregator", hint=where())
        start, add, kind = folded(zero, member_of(node.type), accumulate, "accumulate")
        join = operator(merge, (kind, kind), kind, "merge")
        told = operator(report, (kind,), None, "report")
        return Value(Reduce("aggregate", node, FederatedType(plain(told), SERVER), start=start, using=(add.fn, join.fn, told.fn)))
    if not all(hasattr(zero, name) for name in ("zero", "add", "merge", "finish")):
        raise TraceError("not an Aggregator", got=type(zero).__name__, expected="zero, add, merge, finish", hint=where())
    weight_node = None if weight is None else placed_at(weight, CLIENTS, "the weight of federated_aggregate")
    like_node = None if like is None else placed_at(like, SERVER, "`like` of federated_aggregate")
    result = FederatedType(member_of(node.type), SERVER)
    return Value(Reduce("using", node, result, weight_node, like_node, zero, weight_cap))


def federated_reduce(value: T, zero: object, op: Callable[[U, T], U]) -> U:
    """Clients' values folded at the server, in slot order: `op(... op(zero, v1) ..., vn)`."""
    node = placed_at(value, CLIENTS, "federated_reduce")
    start, add, kind = folded(zero, member_of(node.type), op, "op")
    return cast(U, Value(Reduce("aggregate", node, FederatedType(kind, SERVER), start=start, using=(add.fn, None, None))))


def federated_secure_sum(value: T, max_input: object) -> T:
    """The sum of integers from 0 to `max_input`, which no one but the clients sees: `<{V}@CLIENTS,M> -> V@SERVER`.

    `max_input` is one integer, or a struct with one for each tensor; known when tracing or at the server. In simulation the sum is
    taken in the clear, and a value outside the range is an error; a federation without a secure protocol refuses the task.
    """
    return _secure(value, max_input, "federated_secure_sum", "max_input")


def federated_secure_sum_bitwidth(value: T, bitwidth: object) -> T:
    """`federated_secure_sum` of integers of at most `bitwidth` bits: from 0 to 2**bitwidth - 1."""
    return _secure(value, bitwidth, "federated_secure_sum_bitwidth", "bitwidth")


def federated_secure_modular_sum(value: T, modulus: object) -> T:
    """The sum of integers modulo `modulus`, otherwise as `federated_secure_sum`."""
    return _secure(value, modulus, "federated_secure_modular_sum", "modulus")


def _one_place(value: object, what: str) -> tuple[Node, Placement]:
    """The value, zipped, and where it is; at the server it must be one."""
    node = zip_node(as_node(value))
    if not isinstance(node.type, FederatedType):
        hint = "broadcast server values before clients use them" + where()
        raise TraceError(f"{what} needs values of one placement", got=node.type, hint=hint)
    if node.type.placement is SERVER and not node.type.all_equal:
        raise TraceError("a value at the server is one value", got=node.type, hint=where())
    return node, node.type.placement


def placed_at(value: object, placement: Placement, what: str) -> Node:
    """The value, zipped, which is at the placement; else raise TraceError."""
    node = zip_node(as_node(value))
    if node.placement is not placement or not isinstance(node.type, FederatedType):
        known = {SERVER: "it is at SERVER already", None: f"annotate the parameter {placement.name.title()}[...]"}
        got = node.type if node.placement else f"{node.type}, which has no single placement"
        expected = FederatedType(member_of(node.type), placement) if isinstance(node.type, FederatedType) else None
        raise TraceError(
            f"{what} takes a value at {placement}", expected=expected, got=got, hint=known.get(node.placement, "") + where()
        )
    return _one_place(value, what)[0] if placement is SERVER else node


def plain(local: LocalFunction) -> Type:
    """The result of a function that runs at one place; raises TraceError if it is federated."""
    if contains(local.result, FederatedType):
        raise TraceError(f"the local function {local.name!r} returns a federated type", got=local.result, hint=where())
    return local.result


def _mapped(fn: object, node: Node, place: Placement, arg: object, *, all_equal: bool | None = None) -> Value:
    """The function applied where the node is, its arguments spread as the caller wrote them."""
    items: list[tuple[str | None, Node]] = [(None, node)]
    member = member_of(node.type)
    if isinstance(node, Record) and not isinstance(arg, Value):
        items = [(name if isinstance(arg, dict) else None, item) for name, item in node.items]
    local = as_local(fn, [member_of(item.type) for _, item in items])
    names = [name for name, _ in local.parameters]
    if len(names) == 1 and isinstance(local.parameters[0][1], StructType) and [name for name, _ in items] != names:
        items = [(None, node)]  # the struct is the one argument
    elif len(items) == 1 and items[0][1] is node and isinstance(member, StructType) and len(names) == len(member) > 1:
        items = [(None, select(node, i)) for i in range(len(member))]
    given = {name or (names[i] if i < len(names) else "") for i, (name, _) in enumerate(items)}
    if not set(names) - local.optional <= given <= set(names):
        got = [name for name, _ in items] if items[0][0] else len(items)
        raise TraceError(f"{local.name} takes {len(names)} arguments ({', '.join(names)})", got=got, hint=where())
    kinds = dict(local.parameters)
    named = [(key or names[i], key, item) for i, (key, item) in enumerate(items)]
    ready = [(key, fitted(item, kinds[at], at, local.name, at_its_place=True)) for at, key, item in named]
    kwargs = tuple((key, item) for key, item in ready if key is not None)
    args = tuple(item for key, item in ready if key is None)
    return Value(Apply(local, args, kwargs, place, FederatedType(plain(local), place, all_equal)))


def operator(fn: object, takes: tuple[Type, ...], gives: Type | None, what: str, *, folds: bool = False) -> LocalFunction:
    """The function, to be called with one argument for each type of `takes`; one that folds gives what it takes first."""
    local = as_local(fn, takes)
    struct = local.parameters[0][1] if local.parameters else UNKNOWN
    kinds: Sequence[Type] = [kind for _, kind in local.parameters]
    if isinstance(struct, StructType) and len(kinds) == 1 < len(takes):
        kinds, inner = struct.children(), local.fn
        named = tuple((f"x{i}", kind) for i, kind in enumerate(kinds))
        local = replace(local, fn=lambda *args: inner(restore(list(args), struct)), parameters=named)
    elif len(takes) == 1 < len(kinds) and isinstance(takes[0], StructType):  # a struct is spread over several parameters
        kinds, inner = [whole := StructType(list(local.parameters))], local.fn
        local = replace(local, fn=lambda arg: inner(*elements_of(arg, whole, "x")), parameters=(("x", whole),))
    wanted = kinds[0] if folds and kinds else gives
    fits = len(kinds) == len(takes) and all(map(assignable, kinds, takes))
    if not fits or (wanted is not None and not assignable(wanted, local.result)):
        expected = FunctionType(parameter_type(tuple((f"x{i}", kind) for i, kind in enumerate(takes))), wanted or AbstractType("U"))
        got = FunctionType(parameter_type(local.parameters), local.result)
        raise TraceError(f"{what} is no such function", expected=expected, got=got, hint=where())
    return local


def folded(zero: object, element: Type, op: object, what: str) -> tuple[Node, LocalFunction, Type]:
    """Where a fold starts, its function, and the type of what it carries on."""
    start = as_node(zero)
    unplaced = isinstance(start, Constant) and start.placement is None
    local = operator(op, (UNKNOWN if unplaced else member_of(start.type), element), None, what, folds=True)
    kind = local.parameters[0][1]
    return fitted(start, kind, "zero", what, at_its_place=True), local, kind


def _extreme(value: T, kind: Kind) -> T:
    node = placed_at(value, CLIENTS, f"federated_{kind}")
    each_tensor(member_of(node.type), "iuf", f"a {kind} is taken of real numbers")
    return cast(T, Value(Reduce(kind, node, FederatedType(member_of(node.type), SERVER))))


def _secure(value: T, bound: object, kind: Kind, what: str) -> T:
    node, start = placed_at(value, CLIENTS, kind), as_node(bound)
    member = member_of(node.type)
    each_tensor(member, "iu", f"{kind} takes integers of known shape", known=True)
    if start.placement is CLIENTS or not _bounds(member_of(start.type), member):
        raise TraceError(f"{what} of {kind} is one integer, or one for each tensor", expected=member, got=start.type, hint=where())
    return cast(T, Value(Reduce(kind, node, FederatedType(member, SERVER), start=start)))


def _bounds(bound: Type, member: Type) -> bool:
    """Whether it is an integer, or a struct of them with the fields of the value's."""
    if isinstance(bound, StructType) and isinstance(member, StructType):
        named = [name for name, _ in bound.items()] == [name for name, _ in member.items()]
        return named and all(map(_bounds, bound, member))
    return isinstance(bound, TensorType) and bound.dtype.kind in "iu" and bound.shape == ()


_KINDS = {"i": "int", "u": "uint", "f": "float", "c": "complex"}


def each_tensor(kind: Type, kinds: str, message: str, *, known: bool = False, path: str | None = None) -> None:
    """Return if the type is of tensors of these kinds of dtypes alone; `known`: and of known shape. Else raise TraceError."""
    number = isinstance(kind, TensorType) and (kind.dtype.kind in kinds or ("f" in kinds and kind.dtype.name == "bfloat16"))
    shaped = not known or (isinstance(kind, TensorType) and kind.shape is not None and None not in kind.shape)
    if isinstance(kind, TensorType | SequenceType) and not (number and shaped):
        raise TraceError(message, path=path, expected=" or ".join(_KINDS[each] for each in kinds), got=kind, hint=where())
    for i, (name, item) in enumerate(kind.items() if isinstance(kind, StructType) else ()):
        each_tensor(item, kinds, message, known=known, path=f"{path}/{name or i}" if path else name or str(i))
