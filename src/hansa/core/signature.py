"""What a Python function takes and gives, from its annotations or from types that are given; and its name on what is made of it."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from typing import Any

from hansa.core.graph import user_frame, where
from hansa.core.types import UNKNOWN, StructType, Type, hints, to_type
from hansa.errors import TraceError
from hansa.references import FILE_MODULE


def function_first(args: tuple[object, ...]) -> tuple[Callable[..., Any] | None, tuple[object, ...]]:
    """A decorator's function, when it is given first, and the types after it."""
    if args and callable(args[0]) and not isinstance(args[0], type) and typing.get_origin(args[0]) is None:
        return args[0], args[1:]
    return None, () if args == (None,) else args


def check_parameters(fn: Callable[..., Any]) -> None:
    """Return if all parameters are plain; else raise TraceError."""
    for p in inspect.signature(fn).parameters.values():
        if p.default is not p.empty or p.kind is not p.POSITIONAL_OR_KEYWORD:
            what = "has a default" if p.default is not p.empty else f"is {p.kind.description}"
            raise TraceError(f"parameter {p.name!r} of {fn.__name__} {what}", expected="plain parameters", hint=where())


def in_order(fn: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """The function with its parameters in the order of a struct type that names them: the type's order wins, as in TFF."""
    own = [name for name in inspect.signature(fn).parameters if name in names]
    return fn if own == names else functools.wraps(fn)(lambda *args, **more: fn(**dict(zip(names, args, strict=True)), **more))


def hinted(fn: Callable[..., Any]) -> dict[str, Type]:
    """The types of a function's annotations, or of a callable object's."""
    target = fn if hasattr(fn, "__annotations__") else getattr(type(fn), "__call__", None)  # noqa: B004  the method itself is wanted
    return hints(target, user_frame().f_locals) if hasattr(target, "__annotations__") else {}


def parameters_of(fn: Callable[..., Any], types: tuple[object, ...]) -> list[tuple[str, Type]]:
    """Each parameter with its type: given, annotated, or unknown. Those with a default that no type is given for are left alone.

    Raises:
        TraceError: the types that are given are not for these parameters.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    plain = [p for p in inspect.signature(fn).parameters.values() if p.kind in kinds]
    names = [p.name for p in plain]
    if not types:
        known = hinted(fn)
        return [(name, known.get(name, UNKNOWN)) for name in names]
    pairs = [spec for spec in types if isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[0], str)]
    given = [StructType(pairs)] if len(pairs) == len(types) else [to_type(spec) for spec in types]
    if not (isinstance(given[0], StructType) and len(given[0]) == len(names)):
        names = names[: max(len(given), sum(p.default is p.empty for p in plain))]
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


def bound(name: str, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by parameter; raises TraceError where they are not one for each."""
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


def reduced(made: Any, protocol: Any) -> Any:
    """By the name under which an import finds this very object, where there is one; else by its state."""
    found: Any = sys.modules.get(made.__module__)
    for part in made.__qualname__.split("."):
        found = getattr(found, part, None)
    by_name = found is made and made.__module__ != "__main__" and not made.__module__.startswith(FILE_MODULE)
    return made.__qualname__ if by_name else object.__reduce_ex__(made, protocol)


def copied(made: Any) -> Any:
    """Another object of the same state."""
    copy = object.__new__(type(made))
    copy.__dict__.update(made.__dict__)
    return copy


def named(made: Any, fn: Callable[..., Any], name: str) -> None:
    """Give a computation the function's name, place and docstring."""
    made.__name__, made.__doc__ = name, fn.__doc__
    made.__module__ = getattr(fn, "__module__", None) or "?"
    made.__qualname__ = getattr(fn, "__qualname__", name)
