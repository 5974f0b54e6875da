"""Types of federated values, printed in TensorFlow Federated's notation.

`{float32}@CLIENTS` is one float32 at each client, `float32@SERVER` one at the server, `<a=int32,b=float32[2]>` a struct,
`float32*` a sequence, `(T -> U)` a function. A Python class that has no tensor type (a Tree, a Dataset) prints as its name;
what is not known before it runs prints as `?` and fits everything. Types are equal when they print the same and restore the same
containers.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import ml_dtypes
import numpy as np

from hansa import registry
from hansa.core.trees import Tree
from hansa.errors import FieldError, TraceError

T = TypeVar("T")


class Placement(enum.Enum):
    """Where a value lives."""

    SERVER = "SERVER"
    CLIENTS = "CLIENTS"

    @property
    def uri(self) -> str:
        """Its name in lower case."""
        return self.value.lower()

    @property
    def default_all_equal(self) -> bool:
        """Whether all places hold the same value unless something else is said."""
        return self is Placement.SERVER

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"PlacementLiteral({self.uri!r})"


SERVER = Placement.SERVER
CLIENTS = Placement.CLIENTS

# A type checker reads Server[T] as T; tracing reads the placement.
Server = Annotated[T, SERVER]
Clients = Annotated[T, CLIENTS]


class Type(ABC):
    """What all types can do. `str(kind)` is the compact notation, `repr(kind)` an expression."""

    __slots__ = ()

    def compact_representation(self) -> str:
        """The notation on one line: `str(kind)`."""
        return _show(self, None)

    def formatted_representation(self) -> str:
        """The notation with a line for each element of a struct."""
        return _show(self, 0)

    def children(self) -> tuple[Type, ...]:
        """The types that it is made of."""
        return ()

    def is_assignable_from(self, source: Type) -> bool:
        """Whether a value of type `source` may stand where this type is wanted."""
        return assignable(self, source)

    def check_assignable_from(self, source: Type) -> None:
        """Return if a value of type `source` may stand here; else raise TraceError with both."""
        if not assignable(self, source):
            raise TraceError("a value of this type cannot stand here", expected=self, got=source)

    def check_equivalent_to(self, other: Type) -> None:
        """Return if each may stand for the other; else raise TraceError with both."""
        if not self.is_equivalent_to(other):
            raise TraceError("the types are not equivalent", expected=self, got=other)

    def is_identical_to(self, other: Type) -> bool:
        """Whether they are equal, containers too: `==`."""
        return self == other

    def is_equivalent_to(self, other: Type) -> bool:
        """Whether each may stand for the other: equal but for the containers."""
        return assignable(self, other) and assignable(other, self)

    def __str__(self) -> str:
        return _show(self, None)

    @abstractmethod
    def __repr__(self) -> str: ...


@dataclass(frozen=True, slots=True, repr=False)
class TensorType(Type):
    """A dtype and a shape; `None` in a shape is an unknown size. Shape None is an unknown rank."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None = ()

    def __init__(self, dtype: object, shape: Sequence[int | None] | None = ()) -> None:
        if not _is_dtype(dtype) or (kind := np.dtype(np.dtype(dtype).type)) not in _DTYPES:  # type: ignore[call-overload]  # checked
            raise TraceError("not a dtype of a tensor", got=repr(dtype), hint="use a NumPy scalar type, such as np.float32")
        object.__setattr__(self, "dtype", np.dtype(np.str_) if kind.kind == "S" else kind)
        object.__setattr__(self, "shape", None if shape is None else tuple(shape))

    def __repr__(self) -> str:
        return f"TensorType(np.{self.dtype.type.__name__}{f', {self.shape}' if self.shape != () else ''})"


@dataclass(frozen=True, slots=True, repr=False)
class StructType(Type):
    """An ordered list of optionally named elements. `container` is the Python class that is restored in results.

    >>> struct = StructType({"a": np.int32, "b": (np.float32, [2])})
    >>> print(struct, struct.a, struct[1], len(struct), struct.fields())
    <a=int32,b=float32[2]> int32 float32[2] 2 ['a', 'b']
    """

    elements: tuple[tuple[str | None, Type], ...]
    container: type | None
    named: bool = dataclasses.field(init=False, compare=False)  # whether each element has a name

    def __init__(self, elements: Mapping[str, object] | Sequence[object], container: type | None = None) -> None:
        items = elements.items() if isinstance(elements, Mapping) else [e if _is_pair(e) else (None, e) for e in elements]
        object.__setattr__(self, "elements", tuple((name, to_type(item)) for name, item in typing.cast(Any, items)))
        object.__setattr__(self, "container", container)
        fields = self.fields()
        object.__setattr__(self, "named", len(fields) == len(self.elements))
        if len(set(fields)) < len(fields):
            raise TraceError("a struct has two fields of one name", got=fields)

    def fields(self) -> list[str]:
        """The names of the named elements."""
        return [name for name, _ in self.elements if name is not None]

    def items(self) -> Iterator[tuple[str | None, Type]]:
        """Each element with its name, or None."""
        return iter(self.elements)

    def children(self) -> tuple[Type, ...]:
        """The elements' types."""
        return tuple(item for _, item in self.elements)

    def find(self, key: str | int) -> int | None:
        """The place of the element of this name or place, if there is one."""
        if isinstance(key, int):
            return key if 0 <= key < len(self.elements) else None
        return next((i for i, (name, _) in enumerate(self.elements) if name == key), None)

    def __len__(self) -> int:
        return len(self.elements)

    def __iter__(self) -> Iterator[Type]:
        return iter(self.children())

    def __getitem__(self, key: str | int) -> Type:
        if (place := self.find(key)) is None:
            raise IndexError(f"{self} has no element {key!r}")  # not ours: a loop over elements ends with it
        return self.elements[place][1]

    def __getattr__(self, name: str) -> Type:
        if name.startswith("__") or (place := self.find(name)) is None:
            raise FieldError(f"no field {name!r}", expected=None if name.startswith("__") else self.fields())
        return self.elements[place][1]

    def __repr__(self) -> str:
        inner = ", ".join(f"({name!r}, {item!r})" if name else repr(item) for name, item in self.elements)
        return f"StructType([{inner}])" + (f" as {self.container.__name__}" if self.container else "")


@dataclass(frozen=True, slots=True, repr=False)
class SequenceType(Type):
    """Any number of elements of one type. Lists in an element are restored as tuples."""

    element: Type

    def __init__(self, element: object) -> None:
        object.__setattr__(self, "element", _tuples(_plain(to_type(element), "a sequence")))

    def children(self) -> tuple[Type, ...]:
        """The element's type."""
        return (self.element,)

    def __repr__(self) -> str:
        return f"SequenceType({self.element!r})"


@dataclass(frozen=True, slots=True, repr=False)
class FunctionType(Type):
    """From a parameter (None: takes nothing) to a result."""

    parameter: Type | None
    result: Type

    def __init__(self, parameter: object, result: object) -> None:
        object.__setattr__(self, "parameter", None if parameter is None else to_type(parameter))
        object.__setattr__(self, "result", to_type(result))

    def children(self) -> tuple[Type, ...]:
        """The parameter, if there is one, and the result."""
        return (self.result,) if self.parameter is None else (self.parameter, self.result)

    def __repr__(self) -> str:
        return f"FunctionType({self.parameter!r}, {self.result!r})"


@dataclass(frozen=True, slots=True, repr=False)
class FederatedType(Type):
    """A member type at a placement; `all_equal` says that every place holds the same value (the default at SERVER)."""

    member: Type
    placement: Placement
    all_equal: bool

    def __init__(self, member: object, placement: Placement, all_equal: bool | None = None) -> None:
        if not isinstance(placement, Placement):
            raise TraceError("not a placement", got=repr(placement), expected="SERVER or CLIENTS")
        object.__setattr__(self, "member", _plain(to_type(member), "a federated type"))
        object.__setattr__(self, "placement", placement)
        object.__setattr__(self, "all_equal", placement.default_all_equal if all_equal is None else all_equal)

    def children(self) -> tuple[Type, ...]:
        """The member."""
        return (self.member,)

    def __repr__(self) -> str:
        return f"FederatedType({self.member!r}, {self.placement!r}, {self.all_equal})"


@dataclass(frozen=True, slots=True, repr=False)
class AbstractType(Type):
    """A name that stands for any type in the signature of a generic function. It fits nothing, and nothing is compared to it."""

    label: str

    def __repr__(self) -> str:
        return f"AbstractType({self.label!r})"


@dataclass(frozen=True, slots=True, repr=False)
class PlacementType(Type):
    """The type of a placement."""

    def __repr__(self) -> str:
        return "PlacementType()"


@dataclass(frozen=True, slots=True, repr=False)
class ObjectType(Type):
    """A Python value known by its class alone; prints as the class's name. `cls` None is unknown, `?`."""

    name: str = "?"
    cls: type | None = dataclasses.field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"ObjectType({self.name!r})"


UNKNOWN = ObjectType()
TREE = ObjectType("Tree")

_PYTHON = {float: np.float32, int: np.int32, bool: np.bool_, complex: np.complex128, str: np.str_, bytes: np.str_}
_NUMBERS = "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
_DTYPES = {np.dtype(name) for name in ("bool", "U", "S", ml_dtypes.bfloat16, *_NUMBERS.split())}
_NAMES = {kind: "str" if kind.kind in "US" else kind.name for kind in _DTYPES}  # NumPy makes a name anew each time


def _show(kind: Type, depth: int | None) -> str:
    """The notation; from `depth` indents on with a line for each element, or on one line (None)."""
    match kind:
        case TensorType():
            name = _NAMES[kind.dtype]
            if kind.shape is None:
                return f"{name!r}(shape=None)"
            return name + (f"[{','.join('?' if n is None else str(n) for n in kind.shape)}]" if kind.shape else "")
        case StructType():
            deeper = None if depth is None else depth + 1
            shown = [f"{name}={_show(item, deeper)}" if name else _show(item, deeper) for name, item in kind.elements]
            if depth is None or not shown:
                return f"<{','.join(shown)}>"
            pad = "\n" + "  " * depth
            return f"<{pad}  {f',{pad}  '.join(shown)}{pad}>"
        case SequenceType():
            return f"{_show(kind.element, depth)}*"
        case FunctionType():
            return f"({'' if kind.parameter is None else _show(kind.parameter, depth)} -> {_show(kind.result, depth)})"
        case FederatedType():
            member = _show(kind.member, depth)
            return f"{member}@{kind.placement}" if kind.all_equal else f"{{{member}}}@{kind.placement}"
        case AbstractType():
            return kind.label
        case ObjectType():
            return kind.name
    return "placement"


def contains(kind: Type, *what: type[Type]) -> bool:
    """Whether a type of one of these classes is in it, at any depth."""
    return isinstance(kind, what) or any(contains(child, *what) for child in kind.children())


def _plain(kind: Type, what: str) -> Type:
    if contains(kind, FederatedType, FunctionType):
        raise TraceError(f"{what} holds values, not functions or federated values", got=kind)
    return kind


def _tuples(kind: Type) -> Type:
    if not isinstance(kind, StructType):
        return kind
    return StructType([(n, _tuples(item)) for n, item in kind.elements], tuple if kind.container is list else kind.container)


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str | None)


def to_type(spec: object) -> Type:
    """The type that a specification stands for.

    A Type; a NumPy dtype; `(dtype, shape)`; a list, tuple or mapping of specifications; a Python scalar class (float is float32,
    int is int32, as literals are in TFF); a NamedTuple, dataclass or attrs class, whose annotated fields become a struct, or an
    instance of one whose fields hold specifications; `Tree`; any class.

    >>> print(to_type({"a": np.int32, "b": (np.float32, [None, 784])}))
    <a=int32,b=float32[?,784]>

    Raises:
        TraceError: the specification cannot be read as a type.
    """
    if isinstance(spec, Type):
        return spec
    if spec is Any or spec is object or isinstance(spec, TypeVar):
        return UNKNOWN
    if isinstance(spec, np.dtype):
        return TensorType(spec)
    if typing.get_origin(spec) is not None:
        return TREE if spec == Tree else _generic_type(spec)
    if isinstance(spec, type):
        return _class_type(spec)
    if isinstance(spec, tuple) and len(spec) == 2 and _is_dtype(spec[0]) and _is_shape(spec[1]):
        return TensorType(spec[0], spec[1])
    if isinstance(spec, tuple) and _is_pair(spec) and spec[0] is not None:
        return StructType([spec], tuple)
    if (own := _of_framework(spec)) is not None:
        return own
    if isinstance(spec, tuple) and len(spec) == 2 and _is_shape(spec[1]) and (own := _of_framework(spec[0])) is not None:
        return TensorType(typing.cast(TensorType, own).dtype, spec[1])  # (torch.float32, [2])
    items = members(spec)
    if items is None:
        raise TraceError(
            "not a type", got=repr(spec), hint="use a NumPy dtype, a (dtype, shape) pair, a container of these, or a class"
        )
    if any(name is None and _is_pair(item) for name, item in items):
        return StructType([item for _, item in items])
    return StructType(items, type(spec))


def members(value: object) -> list[tuple[str | None, Any]] | None:
    """The elements of a container with their names: of a mapping, a NamedTuple, a dataclass, an attrs object, a list or a tuple."""
    if type(value) in {list, tuple}:
        return [(None, item) for item in typing.cast("list[Any]", value)]
    if type(value) is dict or isinstance(value, Mapping):
        return [(str(name), item) for name, item in value.items()]
    if not isinstance(value, type) and (names := _field_names(type(value))) is not None:
        return [(name, getattr(value, name)) for name in names]
    return [(None, item) for item in value] if isinstance(value, list | tuple) else None


def _field_names(cls: type) -> list[str] | None:
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    if hasattr(cls, "__attrs_attrs__"):
        return [field.name for field in cls.__attrs_attrs__]
    return list(cls._fields) if issubclass(cls, tuple) and hasattr(cls, "_fields") else None


def infer_type(value: object) -> Type:
    """The type of a value at hand. A Python float is a float32, an int an int32 or int64, as in TFF; arrays keep their dtype.

    >>> print(infer_type({"a": 1, "b": [2.0, np.zeros((2, 3), np.int8)]}))
    <a=int32,b=<float32,int8[2,3]>>

    Raises:
        TraceError: an int needs more than 64 bits.
    """
    if isinstance(value, np.ndarray | np.generic) and np.dtype(value.dtype.type) in _DTYPES:
        return TensorType(value.dtype, np.shape(value))
    if type(value) is int and not -(2**31) <= value < 2**31:
        if not -(2**63) <= value < 2**63:
            raise TraceError("an integer of more than 64 bits", got=value)
        return TensorType(np.int64)
    if type(value) in _PYTHON:
        return TensorType(_PYTHON[type(value)])
    items = members(value)
    if items is None:
        return ObjectType(type(value).__name__, type(value))
    # Two-element tuples that begin with a string are values here, not named types: an element is always given with its name.
    return StructType([(name, infer_type(item)) for name, item in items], type(value))


def _of_framework(spec: object) -> Type | None:
    """The type that a framework's own specification stands for, such as a torch dtype; its backend says it."""
    name = (spec if isinstance(spec, type) else type(spec)).__module__.partition(".")[0]
    if name in {"builtins", "hansa", "numpy"} or name not in registry.names("local_backends"):
        return None
    return typing.cast(Any, registry.find("local_backends", name)).type_of(spec)  # type: ignore[no-any-return]  # a LocalBackend


def _is_dtype(spec: object) -> bool:
    return isinstance(spec, np.dtype) or (isinstance(spec, type) and issubclass(spec, np.generic | ml_dtypes.bfloat16))


def _is_shape(spec: object) -> bool:
    return spec is None or (isinstance(spec, list | tuple) and all(n is None or isinstance(n, int) for n in spec))


def _generic_type(spec: object) -> Type:
    """The type of a parametrised annotation, such as `Annotated[float, CLIENTS]` or `tuple[int, float]`."""
    origin, args = typing.get_origin(spec), typing.get_args(spec)
    if origin is Annotated:
        placed = next((mark for mark in args[1:] if isinstance(mark, Placement)), None)
        return to_type(args[0]) if placed is None else FederatedType(to_type(args[0]), placed)
    if origin is np.ndarray or not isinstance(origin, type):
        return UNKNOWN
    if origin is tuple and args and args[-1] is not Ellipsis:
        return StructType([to_type(arg) for arg in args], tuple)
    return ObjectType(str(spec).replace("typing.", ""), origin)


def _class_type(cls: type) -> Type:
    if cls in _PYTHON:
        return TensorType(_PYTHON[cls])
    if _is_dtype(cls):
        return TensorType(cls)
    if (names := _field_names(cls)) is None:
        return _of_framework(cls) or ObjectType(cls.__name__, cls)
    kinds = hints(cls)
    return StructType([(name, kinds.get(name, UNKNOWN)) for name in names], cls)


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
        case AbstractType(), _:
            raise TraceError("an abstract type stands for any type, so it cannot be compared", got=target)
        case PlacementType(), PlacementType():
            return True
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
