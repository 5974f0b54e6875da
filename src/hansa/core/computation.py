"""Computations: typed functions over placed values, traced once when they are defined."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from hansa.core.graph import LocalFunction, Node, Parameter, Value, as_node, member_of, user_frame, where
from hansa.core.types import UNKNOWN, FederatedType, FunctionType, StructType, Type, hints, to_type
from hansa.core.values import conform
from hansa.errors import TraceError

_WANTED = frozenset({"ctx", "abort"})


class LocalComputation:
    """A Python function with declared types that runs at one place. Called directly, it converts its arguments to them."""

    def __init__(self, local: LocalFunction) -> None:
        self.local = local
        self.__name__ = local.name
        self.__doc__ = local.fn.__doc__

    @property
    def type_signature(self) -> FunctionType:
        """`(float32 -> float32)`; several parameters are one struct."""
        return FunctionType(_parameter_type(self.local.parameters), self.local.result)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        names = [name for name, _ in self.local.parameters]
        given = _bind(self.local.name, names, args, {k: v for k, v in kwargs.items() if k not in _WANTED})
        extra = {k: v for k, v in kwargs.items() if k in _WANTED}
        ready = [conform(given[name], kind, path=name) for name, kind in self.local.parameters]
        return conform(self.local.fn(*ready, **extra), self.local.result, path="result")

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


def as_local(fn: object) -> LocalFunction:
    """The local function of a LocalComputation or of a plain Python function; a LocalFunction is one."""
    if isinstance(fn, LocalFunction):
        return fn
    if isinstance(fn, LocalComputation):
        return fn.local
    if isinstance(fn, Computation):
        raise TraceError("a federated computation cannot run at one place", got=fn.type_signature, hint=where())
    if not callable(fn):
        raise TraceError("not a function", got=repr(fn), hint=where())
    return _local(fn, (), None)


class Computation:
    """A traced federated computation. `type_signature` prints in TFF's notation; calling it runs it on values at hand.

    Client arguments are lists (or tuples, arrays) with one entry a client. `hansa.core.run.run` runs it over a Federation.
    """

    def __init__(self, fn: Callable[..., Any], parameters: tuple[Parameter, ...]) -> None:
        self.name = fn.__name__
        self.__name__ = fn.__name__
        self.__doc__ = fn.__doc__
        self.parameters = parameters
        traced = _in_order(fn, [p.name for p in parameters])(*(Value(parameter) for parameter in parameters))
        if traced is None:
            raise TraceError(f"{self.name} returned None", hint="a computation returns a value" + where())
        self.result: Node = as_node(traced)

    @property
    def type_signature(self) -> FunctionType:
        """From the parameters to the result."""
        return FunctionType(_parameter_type(tuple((p.name, p.type) for p in self.parameters)), _placed_result(self.result))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from hansa.core.run import call  # run compiles computations: it imports this module

        given = _bind(self.name, [p.name for p in self.parameters], args, kwargs)
        return call(self, given)

    def __repr__(self) -> str:
        return f"<federated computation {self.name} {self.type_signature}>"


@overload
def federated_computation(fn: Callable[..., Any], /, *types: object) -> Computation: ...
@overload
def federated_computation(*types: object) -> Callable[[Callable[..., Any]], Computation]: ...
def federated_computation(*args: object) -> Any:
    """A typed function over values placed at the server and at clients; traced now, checked before any site is contacted.

    Types come from annotations (`Server[T]`, `Clients[T]`) or are given, as in the example.

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

    def trace(inner: Callable[..., Any]) -> Computation:
        return Computation(inner, tuple(Parameter(name, kind) for name, kind in _parameters(inner, types)))

    return trace if fn is None else trace(fn)


def _split(args: tuple[object, ...]) -> tuple[Callable[..., Any] | None, tuple[object, ...]]:
    if args and callable(args[0]) and not isinstance(args[0], type):
        return args[0], args[1:]
    return None, args


def _local(fn: Callable[..., Any], types: tuple[object, ...], many: Callable[..., list[Any]] | None) -> LocalFunction:
    name = getattr(fn, "__name__", type(fn).__name__)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # a NumPy ufunc or a builtin has none: one unknown parameter
        return LocalFunction(fn, name, (("x", UNKNOWN),), UNKNOWN, many=many)
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
    given = [to_type(spec) for spec in types]
    if len(given) == 1 and len(names) > 1 and isinstance(given[0], StructType) and len(given[0].elements) == len(names):
        fields = given[0].elements
        if all(field in names for field, _ in fields):
            return [(str(field), kind) for field, kind in fields]
        return [(name, kind) for name, (_, kind) in zip(names, fields, strict=True)]
    if len(given) != len(names):
        raise TraceError(
            f"{getattr(fn, '__name__', 'the function')} has {len(names)} parameters",
            expected=f"{len(names)} types",
            got=", ".join(map(str, given)),
            hint=where(),
        )
    return list(zip(names, given, strict=True))


def _parameter_type(parameters: tuple[tuple[str, Type], ...]) -> Type | None:
    if not parameters:
        return None
    return parameters[0][1] if len(parameters) == 1 else StructType(list(parameters))


def _placed_result(node: Node) -> Type:
    return node.type if isinstance(node.type, FederatedType | StructType) else member_of(node.type)


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
