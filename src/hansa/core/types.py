"""Types of federated values, printed in TensorFlow Federated's notation.

`{float32}@CLIENTS` is one float32 at each client, `float32@SERVER` one at the server, `<a=int32,b=float32[2]>` a struct,
`float32*` a sequence, `(T -> U)` a function. A Python class that has no tensor type (a Tree, a Dataset) prints as its name;
what is not known before it runs prints as `?` and fits everything.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, TypeVar

import ml_dtypes
import numpy as np

from hansa.core.trees import Tree
from hansa.errors import TraceError

T = TypeVar("T")


class Placement(enum.Enum):
    """Where a value lives."""

    SERVER = "SERVER"
    CLIENTS = "CLIENTS"

    def __str__(self) -> str:
        return self.value


SERVER = Placement.SERVER
CLIENTS = Placement.CLIENTS

# A type checker reads Server[T] as T; tracing reads the placement.
Server = Annotated[T, SERVER]
Clients = Annotated[T, CLIENTS]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dtype and a shape; `None` in a shape is an unknown size. Shape None is an unknown rank."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None = ()

    def __init__(self, dtype: object, shape: Sequence[int | None] | None = ()) -> None:
        object.__setattr__(self, "dtype", _dtype(dtype))
        object.__setattr__(self, "shape", None if shape is None else tuple(shape))

    def __str__(self) -> str:
        name = "str" if self.dtype.kind == "U" else self.dtype.name
        if self.shape is None:
            return f"{name!r}(shape=None)"
        return name + (f"[{','.join('?' if n is None else str(n) for n in self.shape)}]" if self.shape else "")


@dataclass(frozen=True, slots=True)
class StructType:
    """An ordered list of optionally named elements. `container` is the Python class that is restored in results."""

    elements: tuple[tuple[str | None, Type], ...]
    container: type | None = field(default=None, compare=False)

    def __init__(self, elements: Mapping[str, object] | Sequence[object], container: type | None = None) -> None:
        items = elements.items() if isinstance(elements, Mapping) else [e if _is_pair(e) else (None, e) for e in elements]
        object.__setattr__(self, "elements", tuple((name, to_type(item)) for name, item in typing.cast(Any, items)))
        object.__setattr__(self, "container", container)

    def names(self) -> list[str]:
        """The names of the named elements."""
        return [name for name, _ in self.elements if name is not None]

    def __str__(self) -> str:
        return "<" + ",".join(f"{name}={item}" if name else str(item) for name, item in self.elements) + ">"


@dataclass(frozen=True, slots=True)
class SequenceType:
    """Any number of elements of one type."""

    element: Type

    def __init__(self, element: object) -> None:
        object.__setattr__(self, "element", _plain(to_type(element), "a sequence"))

    def __str__(self) -> str:
        return f"{self.element}*"


@dataclass(frozen=True, slots=True)
class FunctionType:
    """From a parameter (None: takes nothing) to a result."""

    parameter: Type | None
    result: Type

    def __init__(self, parameter: object, result: object) -> None:
        object.__setattr__(self, "parameter", None if parameter is None else to_type(parameter))
        object.__setattr__(self, "result", to_type(result))

    def __str__(self) -> str:
        return f"({'' if self.parameter is None else self.parameter} -> {self.result})"


@dataclass(frozen=True, slots=True)
class FederatedType:
    """A member type at a placement; `all_equal` says that every place holds the same value (the default at SERVER)."""

    member: Type
    placement: Placement
    all_equal: bool

    def __init__(self, member: object, placement: Placement, all_equal: bool | None = None) -> None:
        object.__setattr__(self, "member", _plain(to_type(member), "a federated type"))
        object.__setattr__(self, "placement", placement)
        object.__setattr__(self, "all_equal", placement is SERVER if all_equal is None else all_equal)

    def __str__(self) -> str:
        return f"{self.member}@{self.placement}" if self.all_equal else f"{{{self.member}}}@{self.placement}"


@dataclass(frozen=True, slots=True)
class ObjectType:
    """A Python value known by its class alone; prints as the class's name. `cls` None is unknown, `?`."""

    name: str = "?"
    cls: type | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.name


Type: TypeAlias = TensorType | StructType | SequenceType | FunctionType | FederatedType | ObjectType
UNKNOWN = ObjectType()
TREE = ObjectType("Tree")

_PYTHON = {float: np.float32, int: np.int32, bool: np.bool_, complex: np.complex128, str: np.str_, bytes: np.str_}
_KINDS = "biufcU"


def _plain(kind: Type, what: str) -> Type:
    if isinstance(kind, FederatedType | FunctionType):
        raise TraceError(f"{what} holds values, not functions or federated values", got=kind)
    for _, item in kind.elements if isinstance(kind, StructType) else ():
        _plain(item, what)
    return kind


def _dtype(spec: object) -> np.dtype[Any]:
    if spec is np.bytes_:
        spec = np.str_
    if (isinstance(spec, type) and issubclass(spec, np.generic | ml_dtypes.bfloat16)) or isinstance(spec, np.dtype):
        dtype = np.dtype(spec)
        if dtype.kind in _KINDS or dtype == ml_dtypes.bfloat16:
            return dtype
    raise TraceError("not a dtype of a tensor", got=repr(spec), hint="use a NumPy scalar type, such as np.float32")


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str | None)


def to_type(spec: object) -> Type:
    """The type that a specification stands for.

    A Type; a NumPy dtype; `(dtype, shape)`; a list, tuple or mapping of specifications; a Python scalar class (float is float32,
    int is int32, as literals are in TFF); a NamedTuple or dataclass, whose annotated fields become a struct; `Tree`; any class.

    >>> print(to_type({"a": np.int32, "b": (np.float32, [None, 784])}))
    <a=int32,b=float32[?,784]>

    Raises:
        TraceError: the specification cannot be read as a type.
    """
    if isinstance(spec, TensorType | StructType | SequenceType | FunctionType | FederatedType | ObjectType):
        return spec
    if spec == Tree:
        return TREE
    if spec is Any or spec is object or isinstance(spec, TypeVar):
        return UNKNOWN
    if typing.get_origin(spec) is Annotated:
        inner, *marks = typing.get_args(spec)
        placed = next((mark for mark in marks if isinstance(mark, Placement)), None)
        return to_type(inner) if placed is None else FederatedType(to_type(inner), placed)
    if isinstance(spec, np.dtype):
        return TensorType(spec)
    if isinstance(spec, type) and typing.get_origin(spec) is None:
        return _class_type(spec)
    if isinstance(spec, tuple) and len(spec) == 2 and _is_dtype(spec[0]) and _is_shape(spec[1]):
        return TensorType(spec[0], spec[1])
    if isinstance(spec, Mapping):
        return StructType(spec, type(spec))
    if isinstance(spec, list | tuple):
        return StructType(spec, None if any(_is_pair(item) for item in spec) else type(spec))
    origin = typing.get_origin(spec)
    if origin is not None:
        args = typing.get_args(spec)
        if origin is np.ndarray:
            return UNKNOWN
        if origin is tuple and args and args[-1] is not Ellipsis:
            return StructType([to_type(arg) for arg in args], tuple)
        if isinstance(origin, type):
            return ObjectType(str(spec).replace("typing.", ""), origin)
        return UNKNOWN
    raise TraceError(
        "not a type", got=repr(spec), hint="use a NumPy dtype, a (dtype, shape) pair, a container of these, or a class"
    )


def _is_dtype(spec: object) -> bool:
    return isinstance(spec, np.dtype) or (isinstance(spec, type) and issubclass(spec, np.generic | ml_dtypes.bfloat16))


def _is_shape(spec: object) -> bool:
    return spec is None or (isinstance(spec, list | tuple) and all(n is None or isinstance(n, int) for n in spec))


def _class_type(cls: type) -> Type:
    if cls in _PYTHON:
        return TensorType(_PYTHON[cls])
    if _is_dtype(cls):
        return TensorType(cls)
    if (issubclass(cls, tuple) and hasattr(cls, "_fields")) or dataclasses.is_dataclass(cls):
        names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(getattr(cls, "_fields"))  # noqa: B009
        kinds = hints(cls)
        return StructType([(name, kinds.get(name, UNKNOWN)) for name in names], cls)
    return ObjectType(cls.__name__, cls)


def hints(owner: Any, scope: Mapping[str, Any] | None = None) -> dict[str, Type]:
    """The types that a function's or class's annotations stand for, each by itself: one that names nothing at hand is unknown.

    `scope` adds names to those of the owner's module, for classes that are defined inside a function.
    """
    module = sys.modules.get(getattr(owner, "__module__", None) or "")
    names = {"Tree": Tree, **vars(typing), **(vars(module) if module else {}), **getattr(owner, "__globals__", {}), **(scope or {})}
    found: dict[str, Type] = {}
    for base in reversed(owner.__mro__ if isinstance(owner, type) else [owner]):
        for name, spec in vars(base).get("__annotations__", {}).items() if isinstance(base, type) else base.__annotations__.items():
            holder = types.SimpleNamespace(__annotations__={name: spec})
            try:
                found[name] = to_type(typing.get_type_hints(holder, globalns=names, include_extras=True)[name])
            except (NameError, TypeError, AttributeError, SyntaxError):
                found[name] = UNKNOWN
    return found


def assignable(target: Type, source: Type) -> bool:
    """Whether a value of type `source` may stand where `target` is wanted; an unknown type fits everything."""
    if UNKNOWN in (target, source):
        return True
    match target, source:
        case TensorType(), TensorType():
            return target.dtype == source.dtype and _shape_fits(target.shape, source.shape)
        case StructType(), StructType():
            return len(target.elements) == len(source.elements) and all(
                (name is None or name == want) and assignable(inner, item)
                for (want, inner), (name, item) in zip(target.elements, source.elements, strict=True)
            )
        case SequenceType(), SequenceType():
            return assignable(target.element, source.element)
        case FunctionType(), FunctionType():
            if (target.parameter is None) != (source.parameter is None):
                return False
            takes = target.parameter is None or source.parameter is None or assignable(source.parameter, target.parameter)
            return takes and assignable(target.result, source.result)
        case FederatedType(), FederatedType():
            equal = source.all_equal or not target.all_equal
            return equal and target.placement is source.placement and assignable(target.member, source.member)
        case ObjectType(), ObjectType():
            return target == source or None in (target.cls, source.cls) or issubclass(source.cls, target.cls)  # type: ignore[arg-type]  # both are classes here
        case ObjectType(), StructType():
            return target.cls is None or (source.container is not None and issubclass(source.container, target.cls))
        case ObjectType(), TensorType():
            return False
        case StructType(), ObjectType():
            return source == TREE
    return False


def _shape_fits(target: tuple[int | None, ...] | None, source: tuple[int | None, ...] | None) -> bool:
    if target is None:
        return True
    return (
        source is not None and len(target) == len(source) and all(t is None or t == s for t, s in zip(target, source, strict=True))
    )
