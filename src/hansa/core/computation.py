"""Computations: typed functions over placed values, traced once when they are defined.

Called with the values of another computation that is being traced, one becomes part of it; called with anything else, it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, overload

from hansa import registry
from hansa.core.graph import (
    TRACING,
    Apply,
    Constant,
    LocalFunction,
    Node,
    Parameter,
    Record,
    Value,
    as_node,
    member_of,
    mentions_value,
    substitute,
    walk,
    where,
    zipped,
)
from hansa.core.signature import (
    bound,
    check_parameters,
    copied,
    function_first,
    hinted,
    in_order,
    named,
    parameter_type,
    parameters_of,
    reduced,
)
from hansa.core.types import (
    CLIENTS,
    UNKNOWN,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
    Type,
    assignable,
    contains,
)
from hansa.core.values import conform
from hansa.errors import TraceError

WANTED = frozenset({"ctx", "abort"})


def as_local(fn: object, kinds: Sequence[Type] = ()) -> LocalFunction:
    """The local function of a LocalComputation, of a plain Python function, or of a computation without placements.

    `kinds` are the types of what it will be given, for a computation that has no types of its own.
    """
    if isinstance(fn, LocalFunction):
        return fn
    if (made := getattr(fn, "as_local", None)) is not None:  # of a LocalComputation
        return cast(LocalFunction, made(*kinds))
    if isinstance(fn, Polymorphic):
        fn = fn.of(*kinds)
    if isinstance(fn, Computation):
        signature = fn.type_signature
        if contains(signature, FederatedType):
            raise TraceError("a federated computation cannot run at one place", got=signature, hint=where())
        return LocalFunction(fn, fn.name, tuple((name, node.type) for name, node in fn.arguments.items()), signature.result)
    if isinstance(fn, Value) or not callable(fn):
        raise TraceError("not a function", got=fn.type_signature if isinstance(fn, Value) else repr(fn), hint=where())
    return local_function(fn, ())


class Computation:
    """A traced federated computation. `type_signature` prints in TFF's notation; calling it runs it on values at hand.

    Client arguments are lists (or tuples, arrays) with one entry a client; one that is all equal is the value itself.
    `hansa.core.run.run` runs it over a Federation.
    """

    def __init__(self, fn: Callable[..., Any], arguments: Mapping[str, Type]) -> None:
        self.name, self.line = fn.__name__, where()
        named(self, fn, fn.__name__)
        self.arguments = {name: _argument(name, kind) for name, kind in arguments.items()}
        self.parameters = tuple(n for n in walk(*self.arguments.values()) if isinstance(n, Parameter))
        outer = TRACING.set(True)
        try:
            traced = as_node(in_order(fn, list(arguments))(*(Value(node) for node in self.arguments.values())))
        finally:
            TRACING.reset(outer)
        if isinstance(traced, Constant) and traced.value is None:
            raise TraceError(f"{self.name} returned None", hint="a computation returns a value" + where())
        self.result: Node = _as_declared(traced, hinted(fn).get("return", UNKNOWN), self.name)

    @property
    def type_signature(self) -> FunctionType:
        """From the parameters to the result."""
        return FunctionType(parameter_type(tuple((name, node.type) for name, node in self.arguments.items())), self.result.type)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = self._bound(args, kwargs)
        if not mentions_value(given) and (given or not TRACING.get()):
            return self._run(given, None)
        nodes = {name: as_node(value) for name, value in given.items()}
        new: dict[int, Node] = {}
        for name, node in self.arguments.items():
            new |= _matched(node, fitted(nodes[name], node.type, name, self.name))
        return Value(substitute(self.result, new))

    def over(self, clients: int) -> Callable[..., Any]:
        """The computation to be called at that many clients, where no argument says how many there are."""
        return lambda *args, **kwargs: self._run(self._bound(args, kwargs), clients)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return bound(self.name, list(self.arguments), args, kwargs)

    def _run(self, given: dict[str, Any], clients: int | None) -> Any:
        return cast(Callable[..., Any], registry.find("backends", "direct"))(self, given, clients)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "interpreted"}  # made anew by the first call

    __reduce_ex__, __copy__ = reduced, copied

    def __repr__(self) -> str:
        return f"<federated computation {self.name} {self.type_signature}>"


class Polymorphic:
    """A federated computation whose parameters have no types: traced for those it is called with, once for each."""

    __name__: str

    def __init__(self, fn: Callable[..., Any], names: list[str]) -> None:
        named(self, fn, fn.__name__)
        self._fn, self._names = fn, names
        self._made: dict[str, Computation] = {}

    def of(self, *kinds: Type) -> Computation:
        """The computation for arguments of these types.

        Raises:
            TraceError: there are more or fewer parameters; or as `federated_computation`.
        """
        if len(kinds) != len(self._names):
            raise TraceError(f"{self.__name__} has {len(self._names)} parameters", got=", ".join(map(str, kinds)), hint=where())
        key = repr(kinds)
        if key not in self._made:
            self._made[key] = Computation(self._fn, dict(zip(self._names, kinds, strict=True)))
        return self._made[key]

    __reduce_ex__ = reduced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = bound(self.__name__, self._names, args, kwargs)
        return self.of(*(as_node(given[name]).type for name in self._names))(**given)


@overload
def federated_computation(fn: Callable[..., Any], /, *types: object) -> Computation: ...
@overload
def federated_computation(*types: object) -> Callable[[Callable[..., Any]], Computation]: ...
def federated_computation(*args: object) -> Any:
    """A typed function over values placed at the server and at clients; traced now, checked before any site is contacted.

    Types come from annotations (`Server[T]`, `Clients[T]`) or are given, as in the example: one for each parameter, or one struct
    that is spread over them. Without any, it is traced for the types that it is called with.

    >>> import numpy as np
    >>> from hansa.core.intrinsics import federated_mean
    >>> from hansa.core.types import CLIENTS, FederatedType
    >>> @federated_computation(FederatedType(np.float32, CLIENTS))
    ... def average_temperature(readings):
    ...     return federated_mean(readings)
    >>> print(average_temperature.type_signature, average_temperature([68.5, 70.3, 69.8]))
    ({float32}@CLIENTS -> float32@SERVER) 69.53333

    Raises:
        TraceError: a value is used at the wrong placement, a field does not exist, a function does not take what it is given.
    """
    fn, types = function_first(args)

    def trace(inner: Callable[..., Any]) -> Computation | Polymorphic:
        check_parameters(inner)
        parameters = dict(parameters_of(inner, types))
        if parameters and not types and all(kind is UNKNOWN for kind in parameters.values()):
            return Polymorphic(inner, list(parameters))
        return Computation(inner, parameters)

    return trace if fn is None else trace(fn)


def call_value(node: Node, kind: FunctionType, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
    """The call of a value that is a function: of a computation that was given, or of one that comes when this one runs."""
    if isinstance(node, Constant):
        return node.value(*args, **kwargs)
    if kwargs or len(args) > 1:
        raise TraceError("a function that is a value takes one argument", got=kind, hint="give a tuple" + where())
    takes = [] if kind.parameter is None else [fitted(as_node(args[0] if args else ()), kind.parameter, "argument", "the function")]
    named = tuple((f"x{i}", each.type) for i, each in enumerate(takes))
    local = LocalFunction(lambda fn, *given: fn(*given), "call", (("fn", kind), *named), kind.result)
    return Value(Apply(local, (node, *takes), (), None, kind.result))


def fitted(node: Node, want: Type, path: str, name: str, *, at_its_place: bool = False) -> Node:
    """The node where `want` is wanted, a constant converted. `at_its_place`: where its member is wanted.

    Raises:
        TraceError: its type does not fit; names the function and the parameter.
    """
    if isinstance(node, Constant) and node.placement is None and isinstance(want, TensorType | StructType | SequenceType):
        return Constant(conform(node.value, want, path=f"{path} of {name}"), want)  # 0.0 becomes what its type says: a float32
    node = zipped(node) if isinstance(want, FederatedType) else node
    kind = member_of(node.type) if at_its_place else node.type
    if assignable(want, kind):
        return node
    raise TraceError(f"{name} does not take this", path=path, expected=want, got=kind, hint=where())


def _argument(name: str, kind: Type) -> Node:
    """What a traced function is given: a parameter, or a struct of those that are placed."""
    if kind is UNKNOWN:
        raise TraceError(f"parameter {name!r} has no type", hint="annotate it Server[...] or Clients[...]" + where())
    if not isinstance(kind, StructType) or not contains(kind, FederatedType):
        return Parameter(name, kind)
    items = tuple((n, _argument(f"{name}/{n}" if n else f"{name}[{i}]", item)) for i, (n, item) in enumerate(kind.elements))
    places = {node.placement for _, node in items}
    return Record(items, kind, places.pop() if len(places) == 1 else None)


def _matched(node: Node, given: Node) -> dict[int, Node]:
    """For each parameter below an argument, by identity, the part of the given value that stands for it."""
    if isinstance(node, Record):
        parts = Value(given)
        return {key: value for i, (_, n) in enumerate(node.items) for key, value in _matched(n, as_node(parts[i])).items()}
    return {id(node): given}


def _as_declared(node: Node, declared: Type, name: str) -> Node:
    """The result as the annotation says: a struct of values at one placement is one value there."""
    if not isinstance(declared, FederatedType):
        return node
    node = zipped(node)
    if not isinstance(node.type, FederatedType) or node.type.placement is not declared.placement:
        hint = "aggregate what clients have: federated_mean, federated_sum, ..." if node.placement is CLIENTS else ""
        raise TraceError(f"{name} returns something else than it says", expected=declared, got=node.type, hint=hint + where())
    return node


def local_function(
    fn: Callable[..., Any], types: tuple[object, ...], many: Callable[..., Sequence[Any]] | None = None
) -> LocalFunction:
    """The function with the types that its annotations, or those that are given, say."""
    name = getattr(fn, "__name__", type(fn).__name__)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # a NumPy ufunc or a builtin has none: one unknown parameter
        return LocalFunction(fn, name, tuple((f"x{i}", UNKNOWN) for i in range(getattr(fn, "nin", 1))), UNKNOWN, many=many)
    wants = frozenset(p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY) & WANTED
    optional = frozenset(p.name for p in signature.parameters.values() if p.default is not p.empty)
    kind = hinted(fn).get("return", UNKNOWN)
    parameters = tuple(parameters_of(fn, types))
    ordered = in_order(fn, [p for p, _ in parameters])
    return LocalFunction(ordered, "function" if name == "<lambda>" else name, parameters, kind, wants, many, optional=optional)
