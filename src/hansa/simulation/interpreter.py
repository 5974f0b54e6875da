"""The reference interpreter: what a computation means, node by node, on values at hand.

It is what runs when a computation is called, and the oracle that every other executor is compared with. A value at the clients is
a list with one entry a client; any other value is itself. There are no stages, tasks or messages.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from hansa.core import trees
from hansa.core.computation import Computation
from hansa.core.graph import Apply, Broadcast, Constant, Node, Parameter, Record, Reduce, Select, member_of, pick, walk
from hansa.core.task import FLContext, Signal
from hansa.core.types import CLIENTS, FederatedType, StructType, TensorType, Type
from hansa.core.values import conform, elements_of, pack, restore, scalar, unpack
from hansa.errors import SpecError, TraceError


def call(computation: Computation, given: Mapping[str, Any], clients: int | None = None) -> Any:
    """The result on values at hand: a client argument is a sequence with one entry a client, or the one value that all hold.

    Errors of functions pass through.

    Raises:
        TraceError: an argument does not fit; or there is work for clients, and nothing says how many they are.
    """
    arguments = computation.arguments
    leaves = [each for name, value in given.items() for each in _leaves(arguments[name], value, name)]
    sizes = {p.name: len(value) for p, value in leaves if p.placement is CLIENTS and not _same_everywhere(p)}
    if len(set(sizes.values()) | ({clients} if clients is not None else set())) > 1:
        raise TraceError("the client arguments have different lengths", got=sizes, expected=clients)
    count = clients if clients is not None else next(iter(sizes.values()), None)
    nodes = walk(computation.result)
    if count is None and any(node.placement is CLIENTS for node in nodes):
        raise TraceError(f"{computation.name} runs at clients, and no argument says how many", hint="call f.over(clients)(...)")
    values: dict[int, Any] = {id(p): [value] * (count or 0) if _same_everywhere(p) else value for p, value in leaves}
    for node in nodes:
        if id(node) not in values:
            values[id(node)] = _value(node, values, count or 0)
    return _shown(computation.result, values, computation.name)


def _leaves(node: Node, value: Any, path: str) -> Iterator[tuple[Parameter, Any]]:
    """The placed parameters that one argument is made of, each with its value."""
    if isinstance(node, Parameter):
        many = node.placement is CLIENTS and not _same_everywhere(node)
        yield node, _cohort(value, node) if many else conform(value, node.type, path=path)
    elif isinstance(node, Record) and isinstance(node.type, StructType):
        for (name, item), each in zip(node.items, elements_of(value, node.type, path), strict=True):
            yield from _leaves(item, each, f"{path}/{name}")


def _same_everywhere(node: Node) -> bool:
    return node.placement is CLIENTS and isinstance(node.type, FederatedType) and node.type.all_equal


def _cohort(column: Any, parameter: Parameter) -> list[Any]:
    if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
        raise TraceError("a client argument is a sequence with one entry a client", path=parameter.name, got=type(column).__name__)
    return [conform(item, parameter.type, path=f"client {i} -> {parameter.name}") for i, item in enumerate(column)]


def _shown(node: Node, values: Mapping[int, Any], name: str) -> Any:
    """The result as the caller sees it: of clients the list, or the one value that all hold."""
    if isinstance(node, Record) and isinstance(node.type, StructType):
        return restore([_shown(item, values, name) for _, item in node.items], node.type)
    if node.placement is not CLIENTS:
        return values[id(node)]
    held = [scalar(v) if isinstance(v, np.ndarray) else v for v in values[id(node)]]
    if not _same_everywhere(node):
        return held
    if not held:
        raise TraceError(f"{name} gives what all clients hold, and there are none")
    return held[0]


def _value(node: Node, values: Mapping[int, Any], count: int) -> Any:
    if isinstance(node, Reduce):
        return _reduced(node, values[id(node.value)], values)
    if isinstance(node, Broadcast):
        return [values[id(node.source)]] * count if node.placement is CLIENTS else values[id(node.source)]
    if node.placement is not CLIENTS or (isinstance(node, Record) and isinstance(node.type, StructType)):
        return _at_one_place(node, lambda source: values[id(source)], FLContext(site="server", slot=-1, population=count))
    contexts = [FLContext(site=f"client {i}", slot=i, population=count) for i in range(count)]
    return [_at_client(node, _of_client(values, ctx.slot), ctx) for ctx in contexts]


def _at_client(node: Node, of: Callable[[Node], Any], ctx: FLContext) -> Any:
    try:
        return _at_one_place(node, of, ctx)
    except TraceError as error:  # what a typed function took or gave: whose it was belongs to the way
        error.path = ctx.site if error.path is None else f"{ctx.site} -> {error.path}"
        raise


def _of_client(values: Mapping[int, Any], i: int) -> Callable[[Node], Any]:
    return lambda source: values[id(source)][i] if source.placement is CLIENTS else values[id(source)]


def _at_one_place(node: Node, of: Callable[[Node], Any], ctx: FLContext) -> Any:
    match node:
        case Constant():
            return node.value
        case Select():
            return pick(of(node.source), node.key)
        case Record():
            kind = member_of(node.type)
            return restore([of(item) for _, item in node.items], kind) if isinstance(kind, StructType) else None
        case Apply():
            asked = {name: value for name, value in (("ctx", ctx), ("abort", Signal())) if name in node.fn.wants}
            return node.fn.fn(*[of(arg) for arg in node.args], **{name: of(arg) for name, arg in node.kwargs}, **asked)
    raise TraceError(f"{type(node).__name__} has no meaning here", got=node.type)


def _reduced(node: Reduce, held: Sequence[Any], values: Mapping[int, Any]) -> Any:
    """What a reduction means, for the values that the clients hold in slot order."""
    start = None if node.start is None else values[id(node.start)]
    kind = member_of(node.value.type)
    if node.kind == "collect":
        return [scalar(v) if isinstance(v, np.ndarray) else v for v in held]
    if node.kind == "aggregate":
        accumulate, _, report = node.using
        total = copy.deepcopy(start)
        for value in held:
            total = accumulate(total, value)
        return total if report is None else report(total)
    weights = [1.0] * len(held) if node.weight is None else [float(w) for w in values[id(node.weight)]]
    packed = [pack(value) for value in held]
    if node.kind == "using":
        return _aggregated(node, packed, weights, start)
    if not packed:
        return unpack(_nothing(kind, node.kind), kind)
    for i, each in enumerate(packed[1:], 1):
        if trees.Spec.of({"value": each}) != trees.Spec.of({"value": packed[0]}):
            raise SpecError("the clients' values have different shapes", path=f"client {i}", expected=packed[0], got=each)
    return unpack(_leafwise(node, packed, weights, None if start is None else pack(start)), kind)


def _leafwise(node: Reduce, packed: Sequence[Any], weights: Sequence[float], bound: Any) -> Any:
    if isinstance(packed[0], Mapping):
        own = isinstance(bound, Mapping)
        return {
            name: _leafwise(node, [each[name] for each in packed], weights, bound[name] if own else bound) for name in packed[0]
        }
    dtype = packed[0].dtype
    if node.kind in ("min", "max"):
        return (np.min if node.kind == "min" else np.max)(np.stack(packed), axis=0)
    if node.kind in ("federated_secure_sum", "federated_secure_sum_bitwidth"):
        most = 2 ** int(bound) - 1 if node.kind.endswith("bitwidth") else int(bound)
        for i, array in enumerate(packed):
            if array.size and not (array.min() >= 0 and array.max() <= most):
                raise SpecError(f"{node.kind} cannot hold this", path=f"client {i}", expected=f"0..{most}", got=array)
    wide = dtype if dtype.kind in "iu" else np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    weighted = node.weight is not None
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        terms = [a.astype(wide) * weight if weighted else a.astype(wide) for a, weight in zip(packed, weights, strict=True)]
        total = functools.reduce(np.add, terms)
        if node.kind == "mean":
            total = total / np.float64(sum(weights))
        if node.kind == "federated_secure_modular_sum":
            total = total % dtype.type(bound)
    return np.asarray(total).astype(dtype)


def _aggregated(node: Reduce, packed: Sequence[Any], weights: Sequence[float], start: Any) -> Any:
    updates = [each if isinstance(each, Mapping) else {"value": each} for each in packed]
    like = pack(start) if start is not None else None
    first = like if isinstance(like, Mapping) else {"value": like} if like is not None else updates[0] if updates else None
    total = None if first is None else node.using.zero(first)
    for update, weight in zip(updates, weights, strict=True):
        total = node.using.add(total, update, weight)
    result = node.using.finish(total)
    return result["value"] if set(result) == {"value"} else unpack(result, member_of(node.value.type))


def _nothing(kind: Type, how: str) -> Any:
    """What a reduction of no clients gives: 0, nan, or the other end of the dtype's range."""
    if isinstance(kind, StructType):
        return {name or str(i): _nothing(item, how) for i, (name, item) in enumerate(kind.items())}
    dtype = kind.dtype if isinstance(kind, TensorType) else np.dtype(np.float64)
    shape = [n or 0 for n in kind.shape or ()] if isinstance(kind, TensorType) else []
    fill: Any = math.nan if how == "mean" else 0
    if how in ("min", "max"):
        ends = np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # NumPy's
        fill = ends.max if how == "min" else ends.min
    return np.full(shape, fill, dtype)
