"""The reference interpreter: what a computation means, node by node, on values at hand.

It is what runs when a computation is called, and the oracle that every other executor is compared with. A value at the clients is
a list with one entry a client; any other value is itself. There are no stages, tasks or messages.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from hansa.core import trees
from hansa.core.computation import Computation
from hansa.core.graph import Apply, Broadcast, Constant, Node, Parameter, Record, Reduce, Select, inputs, member_of, pick, walk
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Array
from hansa.core.types import CLIENTS, FederatedType, ObjectType, StructType, TensorType, Type, infer_type, members
from hansa.core.values import Look, conform, elements_of, look, pack, restore, scalar, unpack
from hansa.errors import SpecError, TraceError
from hansa.local import LocalComputation

_AHEAD = 16  # clients whose results are not waited for yet: they hold memory of a device
_Direct = Callable[[Sequence[Any], Mapping[str, object]], Any]  # (arguments, what it asks for by keyword) -> its result


def call(computation: Computation, given: Mapping[str, Any], clients: int | None = None) -> Any:
    """The result on values at hand: a client argument is a sequence with one entry a client, or the one value that all hold.

    Errors of functions pass through.

    Raises:
        TraceError: an argument does not fit; or there is work for clients, and nothing says how many they are.
    """
    arguments, schedule = computation.arguments, _scheduled(computation)
    leaves = [each for name, value in given.items() for each in _leaves(arguments[name], value, name, schedule)]
    sizes = {p.name: len(value) for p, value in leaves if p.placement is CLIENTS and not _same_everywhere(p)}
    if len(set(sizes.values()) | ({clients} if clients is not None else set())) > 1:
        raise TraceError("the client arguments have different lengths", got=sizes, expected=clients)
    count = clients if clients is not None else next(iter(sizes.values()), None)
    if count is None and any(node.placement is CLIENTS for node in schedule.nodes):
        raise TraceError(f"{computation.name} runs at clients, and no argument says how many", hint="call f.over(clients)(...)")
    values: dict[int, Any] = {id(p): [value] * (count or 0) if _same_everywhere(p) else value for p, value in leaves}
    return _computed(computation, values, count or 0)


def _computed(computation: Computation, values: dict[int, Any], count: int) -> Any:
    """The result for values of the parameters."""
    schedule = _scheduled(computation)
    for node in schedule.nodes:
        if id(node) not in values:
            values[id(node)] = _value(node, values, count, schedule)
    return _shown(computation.result, values, computation.name)


@dataclass(frozen=True, eq=False)
class _Schedule:
    """What is made of a computation before its first call: its nodes, the look at each parameter, and the functions that are given
    what has been looked at already, as the types of their parameters want it.
    """

    nodes: tuple[Node, ...]
    looks: Mapping[int, Look]
    direct: Mapping[int, _Direct]
    begins: Mapping[int, _Direct]  # of those whose framework works while Python goes on: each gives what waits for its result


def _scheduled(computation: Computation) -> _Schedule:
    made = computation.__dict__.get("interpreted")
    if not isinstance(made, _Schedule):
        nodes = tuple(walk(computation.result))
        looks = {id(p): look(p.type) for p in computation.parameters}
        direct = {id(node): run for node in nodes if isinstance(node, Apply) and (run := _direct(node)) is not None}
        begins = {id(node): run for node in nodes if isinstance(node, Apply) and (run := _begin(node, direct)) is not None}
        made = computation.__dict__["interpreted"] = _Schedule(nodes, looks, direct, begins)
    return made


def _direct(node: Apply) -> _Direct | None:
    """The function without a look at its arguments, where they need none."""
    fn, kinds = node.fn.fn, [kind for _, kind in node.fn.parameters]
    if node.kwargs or len(node.args) < len(kinds):  # what is left out has a default
        return None
    if not all(_looked_at(a) and member_of(a.type) == kind for a, kind in zip(node.args, kinds, strict=True)):
        return None
    if isinstance(fn, LocalComputation):
        return fn.applied
    if isinstance(fn, Computation) and all(isinstance(each, Parameter) for each in fn.arguments.values()):
        places = [id(each) for each in fn.arguments.values()]
        return lambda row, _: _computed(fn, dict(zip(places, row, strict=True)), 0)
    return None


def _begin(node: Apply, direct: Mapping[int, _Direct]) -> _Direct | None:
    fn = node.fn.fn
    step = getattr(fn, "__self__", None)
    if isinstance(step, LocalComputation) and fn == step.fold and step.waits:
        return lambda row, _: step.begin_fold(*row)
    if id(node) not in direct:
        return None
    if isinstance(fn, LocalComputation):
        return fn.begin if fn.waits else None
    if not isinstance(fn, Computation) or not isinstance(fn.result, Apply) or id(fn.result) not in _scheduled(fn).begins:
        return None
    last, places = fn.result, [id(each) for each in fn.arguments.values()]
    return lambda row, _: _begun(fn, last, dict(zip(places, row, strict=True)))


def _begun(computation: Computation, last: Apply, values: dict[int, Any]) -> Callable[[], Any]:
    """What waits for the result of a computation at one place, whose last function is begun."""
    schedule = _scheduled(computation)
    for node in schedule.nodes:
        if node is not last and id(node) not in values:
            values[id(node)] = _value(node, values, 0, schedule)
    row = [values[id(source)] for source in inputs(last)]
    wait: Callable[[], Any] = _at_one_place(last, schedule.begins[id(last)], row, ("server", -1, 0))
    return wait


def _looked_at(node: Node) -> bool:
    """Whether its value has its type, containers too: a typed function's result, an argument of the call, or a part of these."""
    if isinstance(node, Select | Broadcast):
        return _looked_at(node.source)
    return isinstance(node, Parameter) or (isinstance(node, Apply) and isinstance(node.fn.fn, LocalComputation))


def _leaves(node: Node, value: Any, path: str, schedule: _Schedule) -> Iterator[tuple[Parameter, Any]]:
    """The placed parameters that one argument is made of, each with its value."""
    if isinstance(node, Parameter):
        fits = schedule.looks[id(node)]
        if node.placement is CLIENTS and not _same_everywhere(node):
            yield node, _cohort(value, node, fits)
        else:
            yield node, value if fits(value) else conform(value, node.type, path=path)
    elif isinstance(node, Record) and isinstance(node.type, StructType):
        for (name, item), each in zip(node.items, elements_of(value, node.type, path), strict=True):
            yield from _leaves(item, each, f"{path}/{name}", schedule)


def _same_everywhere(node: Node) -> bool:
    return node.placement is CLIENTS and isinstance(node.type, FederatedType) and node.type.all_equal


def _cohort(column: Any, parameter: Parameter, fits: Look) -> list[Any]:
    name, kind = parameter.name, parameter.type
    if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
        raise TraceError("a client argument is a sequence with one entry a client", path=name, got=type(column).__name__)
    given = list(column)
    if all(map(fits, given)):
        return given
    return [each if fits(each) else conform(each, kind, path=f"client {i} -> {name}") for i, each in enumerate(given)]


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


def _value(node: Node, values: Mapping[int, Any], count: int, schedule: _Schedule) -> Any:
    if isinstance(node, Reduce):
        return _reduced(node, values[id(node.value)], values)
    if isinstance(node, Broadcast):
        return [values[id(node.source)]] * count if node.placement is CLIENTS else values[id(node.source)]
    direct, read = schedule.direct.get(id(node)), inputs(node)
    if node.placement is not CLIENTS or (isinstance(node, Record) and isinstance(node.type, StructType)):
        return _at_one_place(node, direct, [values[id(source)] for source in read], ("server", -1, count))
    columns = [values[id(source)] if source.placement is CLIENTS else [values[id(source)]] * count for source in read]
    rows = zip(*columns, strict=True) if columns else [()] * count
    begin = schedule.begins.get(id(node))
    made: list[Any] = []
    for i, row in enumerate(rows):
        made.append(_at_client(i, _at_one_place, node, begin or direct, row, ("client", i, count)))
        if begin and i >= _AHEAD:
            made[i - _AHEAD] = _at_client(i - _AHEAD, made[i - _AHEAD])
    for i in range(max(0, count - _AHEAD), count) if begin else ():
        made[i] = _at_client(i, made[i])
    return made


def _at_client(i: int, run: Callable[..., Any], *args: Any) -> Any:
    try:
        return run(*args)
    except TraceError as error:  # what a typed function took or gave: whose it was belongs to the way
        error.path = f"client {i}" if error.path is None else f"client {i} -> {error.path}"
        raise


def _at_one_place(node: Node, direct: _Direct | None, row: Sequence[Any], place: tuple[str, int, int]) -> Any:
    """The value of a node from those of its inputs, in their order."""
    match node:
        case Apply():
            asked = _asked(node, *place) if node.fn.wants else {}
            if direct is not None:
                return direct(row, asked)
            named = {name: value for (name, _), value in zip(node.kwargs, row[len(node.args) :], strict=True)}
            return node.fn.fn(*row[: len(node.args)], **named, **asked)
        case Constant():
            return node.value
        case Select():
            return pick(row[0], node.key)
        case Record():
            kind = member_of(node.type)
            return restore(list(row), kind) if isinstance(kind, StructType) else None
    raise TraceError(f"{type(node).__name__} has no meaning here", got=node.type)


def _asked(node: Apply, site: str, slot: int, count: int) -> dict[str, object]:
    """What the function asks for by keyword."""
    ctx = FLContext(site=site if slot < 0 else f"{site} {slot}", slot=slot, population=count)
    return {name: value for name, value in (("ctx", ctx), ("abort", Signal())) if name in node.fn.wants}


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
    if node.kind == "using":
        return _aggregated(node, [pack(value) for value in held], weights, start)
    if not held:
        return unpack(_nothing(kind, node.kind), kind)
    return _each_tensor(node, kind, held, weights, start)


def _each_tensor(node: Reduce, kind: Type, held: Sequence[Any], weights: Sequence[float], bound: Any) -> Any:
    """A reduction of each tensor, in the containers of the values."""
    if isinstance(kind, ObjectType):  # known by its class alone
        kind = infer_type(held[0])
    if not isinstance(kind, StructType):
        return scalar(_reduced_tensor(node, [np.asarray(value) for value in held], weights, bound))
    rows = [value if type(value) is list else elements_of(value, kind, f"client {i}") for i, value in enumerate(held)]
    width = len(kind)
    for i, row in enumerate(rows):
        if len(row) != width:
            raise SpecError("the clients' values have different lengths", path=f"client {i}", expected=kind, got=len(row))
    bounds = [bound] * width if bound is None or members(bound) is None else elements_of(bound, kind, "the bound")
    parts = zip(kind, zip(*rows, strict=True), bounds, strict=True)
    return restore([_each_tensor(node, item, column, weights, each) for item, column, each in parts], kind)


def _reduced_tensor(node: Reduce, arrays: Sequence[Array], weights: Sequence[float], bound: Any) -> Array:
    dtype, shape = arrays[0].dtype, arrays[0].shape
    for i, array in enumerate(arrays):
        if array.dtype != dtype or array.shape != shape:
            expected, got = (str(trees.Spec.of({"value": each})) for each in (arrays[0], array))
            raise SpecError("the clients' values have different shapes", path=f"client {i}", expected=expected, got=got)
    if node.kind in ("min", "max"):
        return np.asarray((np.min if node.kind == "min" else np.max)(np.stack(arrays), axis=0))
    if node.kind in ("federated_secure_sum", "federated_secure_sum_bitwidth"):
        most = 2 ** int(bound) - 1 if node.kind.endswith("bitwidth") else int(bound)
        for i, array in enumerate(arrays):
            if array.size and not (array.min() >= 0 and array.max() <= most):
                raise SpecError(f"{node.kind} cannot hold this", path=f"client {i}", expected=f"0..{most}", got=array)
    if node.kind == "federated_secure_modular_sum":
        return _modular(arrays, dtype.type(bound))
    wide = dtype if dtype.kind in "iu" else np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        weighted = node.weight is not None
        terms = (a.astype(wide) * w for a, w in zip(arrays, weights, strict=True)) if weighted else iter(arrays)
        total = np.array(next(terms), wide)  # not added to 0, which has a sign
        for term in terms:
            total += term
        if node.kind == "mean":
            total /= np.float64(sum(weights))
    return total.astype(dtype)


def _modular(arrays: Sequence[Array], modulus: Any) -> Array:
    """The sum modulo a number of the arrays' dtype: what is carried on is below it, and never wraps."""
    total = np.zeros(arrays[0].shape, np.uint64)
    for array in arrays:
        total = (total + (array % modulus).astype(np.uint64)) % np.uint64(modulus)
    return total.astype(arrays[0].dtype)


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
