"""Computations: typed functions over placed values, traced once when they are defined.

Called with the values of another computation that is being traced, one becomes part of it; called with anything else, it runs.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
    user_frame,
    walk,
    where,
    zipped,
)
from hansa.core.types import (
    UNKNOWN,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
    Type,
    assignable,
    contains,
    hints,
    to_type,
)
from hansa.core.values import conform
from hansa.errors import TraceError

_WANTED = frozenset({"ctx", "abort"})


class LocalComputation:
    """A Python function with declared types that runs at one place. What it takes and gives is converted to them."""

    def __init__(self, local: LocalFunction) -> None:
        self._fn = local.fn
        self.local = replace(local, fn=functools.wraps(local.fn)(lambda *args, **more: self._converted(*args, **more)))
        self.__name__ = local.name
        self.__doc__ = local.fn.__doc__

    @property
    def type_signature(self) -> FunctionType:
        """`(float32 -> float32)`; several parameters are one struct."""
        return FunctionType(parameter_type(self.local.parameters), self.local.result)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        names = [name for name, _ in self.local.parameters]
        extra = {name: kwargs.pop(name) for name in _WANTED & kwargs.keys()}
        given = _bind(self.local.name, names, args, kwargs)
        if not mentions_value(given):
            return self._converted(*(given[name] for name in names), **extra)
        nodes = {name: as_node(value) for name, value in given.items()}
        if placed := [node.type for node in nodes.values() if contains(node.type, FederatedType)]:
            raise TraceError(f"{self.local.name} runs at one place", got=placed[0], hint="use federated_map" + where())
        ready = tuple(fitted(nodes[name], want, name, self.local.name) for name, want in self.local.parameters)
        return Value(Apply(self.local, ready, (), None, self.local.result))

    def _converted(self, *args: Any, **kwargs: Any) -> Any:
        kinds = dict(self.local.parameters)
        given = {**dict(zip(kinds, args, strict=False)), **kwargs}
        ready = [conform(given.pop(name), kind, path=name) for name, kind in kinds.items() if name in given]
        return conform(self._fn(*ready, **given), self.local.result, path=f"result of {self.local.name}")

    def __repr__(self) -> str:
        return f"<local computation {self.local.name} {self.type_signature}>"


@overload
def local_computation(
    fn: Callable[..., Any], /, *types: object, many: Callable[..., list[Any]] | None = None
) -> LocalComputation: ...
@overload
def local_computation(
    *types: object, many: Callable[..., list[Any]] | None = None
) -> Callable[[Callable[..., Any]], LocalComputation]: ...
def local_computation(*args: object, many: Callable[..., list[Any]] | None = None) -> Any:
    """A function that runs at one place, with its types: from annotations, or given as for `to_type`.

    >>> import numpy as np
    >>> @local_computation(np.float32)
    ... def add_half(x) -> np.float32:
    ...     return x + 0.5
    >>> print(add_half.type_signature, add_half(1))
    (float32 -> float32) 1.5
    """
    fn, types = _split(args)
    if fn is None:
        return lambda inner: LocalComputation(_local(inner, types, many))
    return LocalComputation(_local(fn, types, many))


def as_local(fn: object, kinds: Sequence[Type] = ()) -> LocalFunction:
    """The local function of a LocalComputation, of a plain Python function, or of a computation without placements.

    `kinds` are the types of what it will be given, for a computation that has no types of its own.
    """
    if isinstance(fn, LocalFunction):
        return fn
    if isinstance(fn, LocalComputation):
        return fn.local
    if isinstance(fn, Polymorphic):
        fn = fn.of(*kinds)
    if isinstance(fn, Computation):
        signature = fn.type_signature
        if contains(signature, FederatedType):
            raise TraceError("a federated computation cannot run at one place", got=signature, hint=where())
        return LocalFunction(fn, fn.name, tuple((name, node.type) for name, node in fn.arguments.items()), signature.result)
    if isinstance(fn, Value) or not callable(fn):
        raise TraceError("not a function", got=fn.type_signature if isinstance(fn, Value) else repr(fn), hint=where())
    return _local(fn, (), None)


class Computation:
    """A traced federated computation. `type_signature` prints in TFF's notation; calling it runs it on values at hand.

    Client arguments are lists (or tuples, arrays) with one entry a client; one that is all equal is the value itself.
    `hansa.core.run.run` runs it over a Federation.
    """

    def __init__(self, fn: Callable[..., Any], arguments: Mapping[str, Type]) -> None:
        self.name = fn.__name__
        self.__name__ = fn.__name__
        self.__doc__ = fn.__doc__
        self.arguments = {name: _argument(name, kind) for name, kind in arguments.items()}
        self.parameters = tuple(n for n in walk(*self.arguments.values()) if isinstance(n, Parameter))
        outer = TRACING.set(True)
        try:
            traced = as_node(_in_order(fn, list(arguments))(*(Value(node) for node in self.arguments.values())))
        finally:
            TRACING.reset(outer)
        if isinstance(traced, Constant) and traced.value is None:
            raise TraceError(f"{self.name} returned None", hint="a computation returns a value" + where())
        self.result: Node = _as_declared(traced, _hints(fn).get("return", UNKNOWN), self.name)

    @property
    def type_signature(self) -> FunctionType:
        """From the parameters to the result."""
        return FunctionType(parameter_type(tuple((name, node.type) for name, node in self.arguments.items())), self.result.type)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = self._bound(args, kwargs)
        if not mentions_value(given):
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
        return _bind(self.name, list(self.arguments), args, kwargs)

    def _run(self, given: dict[str, Any], clients: int | None) -> Any:
        return cast(Callable[..., Any], registry.find("backends", "direct"))(self, given, clients)

    def __repr__(self) -> str:
        return f"<federated computation {self.name} {self.type_signature}>"


class Polymorphic:
    """A federated computation whose parameters have no types: traced for those it is called with, once for each."""

    def __init__(self, fn: Callable[..., Any], names: list[str]) -> None:
        self.__name__, self.__doc__ = fn.__name__, fn.__doc__
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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = _bind(self.__name__, self._names, args, kwargs)
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
    fn, types = _split(args)

    def trace(inner: Callable[..., Any]) -> Computation | Polymorphic:
        _check_parameters(inner)
        parameters = dict(_parameters(inner, types))
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
    takes = (
        () if kind.parameter is None else (fitted(as_node(args[0] if args else ()), kind.parameter, "argument", "the function"),)
    )
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
        raise TraceError(f"{name} returns something else than it says", expected=declared, got=node.type, hint=where())
    return node


def _check_parameters(fn: Callable[..., Any]) -> None:
    for p in inspect.signature(fn).parameters.values():
        if p.default is not p.empty or p.kind is not p.POSITIONAL_OR_KEYWORD:
            what = "has a default" if p.default is not p.empty else f"is {p.kind.description}"
            raise TraceError(f"parameter {p.name!r} of {fn.__name__} {what}", expected="plain parameters", hint=where())


def _split(args: tuple[object, ...]) -> tuple[Callable[..., Any] | None, tuple[object, ...]]:
    if args and callable(args[0]) and not isinstance(args[0], type) and typing.get_origin(args[0]) is None:
        return args[0], args[1:]
    return None, () if args == (None,) else args


def _local(fn: Callable[..., Any], types: tuple[object, ...], many: Callable[..., list[Any]] | None) -> LocalFunction:
    name = getattr(fn, "__name__", type(fn).__name__)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # a NumPy ufunc or a builtin has none: one unknown parameter
        return LocalFunction(fn, name, tuple((f"x{i}", UNKNOWN) for i in range(getattr(fn, "nin", 1))), UNKNOWN, many=many)
    wants = frozenset(p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY) & _WANTED
    kind = _hints(fn).get("return", UNKNOWN)
    parameters = tuple(_parameters(fn, types))
    ordered = _in_order(fn, [p for p, _ in parameters])
    return LocalFunction(ordered, "function" if name == "<lambda>" else name, parameters, kind, wants, many)


def _in_order(fn: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """The function with its parameters in the order of a struct type that names them: the type's order wins, as in TFF."""
    own = [name for name in inspect.signature(fn).parameters if name in names]
    return fn if own == names else functools.wraps(fn)(lambda *args, **more: fn(**dict(zip(names, args, strict=True)), **more))


def _hints(fn: Callable[..., Any]) -> dict[str, Type]:
    target = fn if hasattr(fn, "__annotations__") else getattr(type(fn), "__call__", None)  # noqa: B004  the method itself is wanted
    return hints(target, user_frame().f_locals) if hasattr(target, "__annotations__") else {}


def _parameters(fn: Callable[..., Any], types: tuple[object, ...]) -> list[tuple[str, Type]]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(fn).parameters.values() if p.kind in kinds]
    if not types:
        known = _hints(fn)
        return [(name, known.get(name, UNKNOWN)) for name in names]
    pairs = [spec for spec in types if isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[0], str)]
    given = [StructType(pairs)] if len(pairs) == len(types) else [to_type(spec) for spec in types]
    if len(names) == 1 and len(given) > 1:
        return [(names[0], StructType(given))]
    if len(given) == 1 and len(names) > 1 and isinstance(given[0], StructType) and len(given[0]) == len(names):
        fields = given[0].fields()
        if fields and set(fields) != set(names):
            raise TraceError(f"the fields are not those of {fn.__name__}", expected=names, got=given[0], hint=where())
        return list(zip(fields or names, given[0], strict=True))
    if len(given) != len(names):
        name = getattr(fn, "__name__", "the function")
        got = ", ".join(map(str, given))
        raise TraceError(f"{name} has {len(names)} parameters", expected=f"{len(names)} types", got=got, hint=where())
    return list(zip(names, given, strict=True))


def parameter_type(parameters: tuple[tuple[str, Type], ...]) -> Type | None:
    """The one parameter's type, the struct of several, or None."""
    if not parameters:
        return None
    return parameters[0][1] if len(parameters) == 1 else StructType(list(parameters))


def _bind(name: str, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if len(args) > len(names):
        raise TraceError(f"{name} takes {len(names)} arguments", got=len(args))
    given = dict(zip(names, args, strict=False))
    for key, value in kwargs.items():
        if key not in names or key in given:
            raise TraceError(f"{name} has no free parameter {key!r}", expected=names)
        given[key] = value
    if missing := [n for n in names if n not in given]:
        raise TraceError(f"{name} needs {', '.join(missing)}", expected=names)
    return given
