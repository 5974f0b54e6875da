"""The graph that tracing records: nodes with a placement and a type, and the Value a traced function sees."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from hansa.core.types import (
    CLIENTS,
    SERVER,
    UNKNOWN,
    FederatedType,
    FunctionType,
    Placement,
    SequenceType,
    StructType,
    TensorType,
    Type,
    infer_type,
    members,
)
from hansa.errors import FieldError, TraceError

TRACING: Final = ContextVar("tracing", default=False)  # whether a computation's body runs; data at hand is not searched for values
_LIBRARIES: Final = (str(Path(__file__).resolve().parent.parent), str(Path(np.__file__).resolve().parent))  # np.mean(value) asks it


@dataclass(frozen=True, eq=False, slots=True)
class LocalFunction:
    """A Python function that runs at one place, with its name, types and what it asks for by keyword (`ctx`, `abort`).

    `many` runs it for many clients in one call: many(args of each client, contexts, abort) -> results. `loops` says that the
    vectorised engine may call `fn` client by client instead. `about` is printed in plans: the settings it closes over; `backend`
    too: the framework it is written in, "" for opaque Python. `optional` names the parameters that need not be given.
    """

    fn: Callable[..., Any]
    name: str
    parameters: tuple[tuple[str, Type], ...]
    result: Type
    wants: frozenset[str] = frozenset()
    many: Callable[..., Sequence[Any]] | None = None
    loops: bool = False
    about: str = ""
    backend: str = ""
    optional: frozenset[str] = frozenset()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


@dataclass(frozen=True, eq=False, slots=True)
class Parameter:
    """An argument of the computation; one without a placement is computed with where the server is."""

    name: str
    type: Type

    @property
    def placement(self) -> Placement | None:
        return self.type.placement if isinstance(self.type, FederatedType) else None


@dataclass(frozen=True, eq=False, slots=True)
class Constant:
    """A Python value known when tracing; None placement stands anywhere."""

    value: Any
    type: Type = UNKNOWN
    placement: Placement | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Select:
    """One field or element of a value."""

    source: Node
    key: str | int
    type: Type

    @property
    def placement(self) -> Placement | None:
        return self.source.placement


@dataclass(frozen=True, eq=False, slots=True)
class Record:
    """Several values as one struct; None placement: they have not all the same. Its type is federated once it is zipped."""

    items: tuple[tuple[str | None, Node], ...]
    type: Type
    placement: Placement | None


@dataclass(frozen=True, eq=False, slots=True)
class Apply:
    """A local function applied at a placement, or to unplaced values. `secure` names the intrinsic that promises a protocol."""

    fn: LocalFunction
    args: tuple[Node, ...]
    kwargs: tuple[tuple[str, Node], ...]
    placement: Placement | None
    type: Type
    secure: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Broadcast:
    """A server value at every client, or an unplaced value at either placement."""

    source: Node
    type: Type
    placement: Placement = CLIENTS


Secure = Literal["federated_secure_sum", "federated_secure_sum_bitwidth", "federated_secure_modular_sum"]
Kind = Literal["mean", "sum", "min", "max", "collect", "aggregate", "using"] | Secure


@dataclass(frozen=True, eq=False, slots=True)
class Reduce:
    """Client values brought to the server. `using` carries an Aggregator; `aggregate` TFF's functions.

    `start` is the server value it begins with: a zero, a model that updates look like, or the bound of a secure sum.
    """

    kind: Kind
    value: Node
    type: Type
    weight: Node | None = None
    start: Node | None = None
    using: Any = None  # an Aggregator of any accumulator, or (accumulate, merge, report)
    weight_cap: float = float("inf")
    placement: Placement = field(default=SERVER)


Node: TypeAlias = Parameter | Constant | Select | Record | Apply | Broadcast | Reduce


def inputs(node: Node) -> tuple[Node, ...]:
    """The nodes that a node reads directly."""
    match node:
        case Parameter() | Constant():
            return ()
        case Select() | Broadcast():
            return (node.source,)
        case Record():
            return tuple(item for _, item in node.items)
        case Apply():
            return node.args + tuple(item for _, item in node.kwargs)
        case Reduce():
            return tuple(n for n in (node.value, node.weight, node.start) if n is not None)


def walk(*roots: Node) -> list[Node]:
    """All nodes below the roots, each once, inputs first."""
    seen: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if id(node) not in seen:
            for source in inputs(node):
                visit(source)
            seen[id(node)] = node

    for root in roots:
        visit(root)
    return list(seen.values())


def substitute(root: Node, given: Mapping[int, Node]) -> Node:
    """The graph with other nodes in place of those whose identity is given: a computation called within another."""
    new: dict[int, Node] = dict(given)
    for node in walk(root):
        if id(node) not in new:
            new[id(node)] = _with_inputs(node, new)
    return new[id(root)]


def _with_inputs(node: Node, new: Mapping[int, Node]) -> Node:
    match node:
        case Select():
            return select(new[id(node.source)], node.key)
        case Broadcast():
            return replace(node, source=new[id(node.source)])
        case Record():
            return replace(node, items=tuple((name, new[id(item)]) for name, item in node.items))
        case Apply():
            kwargs = tuple((name, new[id(item)]) for name, item in node.kwargs)
            return replace(node, args=tuple(new[id(item)] for item in node.args), kwargs=kwargs)
        case Reduce():
            weight, start = (None if each is None else new[id(each)] for each in (node.weight, node.start))
            return replace(node, value=new[id(node.value)], weight=weight, start=start)
    return node


def user_frame() -> FrameType:
    """The innermost frame outside Hansa and NumPy: the user's code that is being traced."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_LIBRARIES) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def where() -> str:
    """The line of the user's code that is being traced, as ` [file:line]`."""
    frame = user_frame()
    return f" [{Path(frame.f_code.co_filename).name}:{frame.f_lineno}]"


class Value:
    """What a traced function sees instead of data: its type, and selection of fields and elements."""

    __slots__ = ("_node",)
    __hash__ = None  # type: ignore[assignment]  # == raises, so a Value cannot be a key either

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def type_signature(self) -> Type:
        """The type of the value."""
        return self._node.type

    def __getattr__(self, name: str) -> Value:
        if name.startswith("__"):
            raise AttributeError(name)
        return Value(select(self._node, name))

    def __getitem__(self, key: str | int | slice) -> Value:
        if not isinstance(key, slice):
            return Value(select(self._node, key))
        kind = self._struct()
        chosen = [(kind.elements[i][0], select(self._node, i)) for i in range(*key.indices(len(kind)))]
        if not chosen:
            raise TraceError("a slice without elements", got=self._node.type, hint=where())
        struct = StructType([(name, node.type) for name, node in chosen], None if kind.fields() else kind.container)
        return Value(zipped(Record(tuple(chosen), struct, self._node.placement)))

    def __len__(self) -> int:
        return len(self._struct())

    def __iter__(self) -> Iterator[Value]:
        return iter([Value(select(self._node, i)) for i in range(len(self._struct()))])

    def __call__(self, *args: object, **kwargs: object) -> Any:
        from hansa.core.computation import call_value  # which traces with what is here

        if not isinstance(self._node.type, FunctionType):
            raise TraceError("only a function is called", got=self._node.type, hint=where())
        return call_value(self._node, self._node.type, args, kwargs)

    def _struct(self) -> StructType:
        member = member_of(self._node.type)
        if isinstance(member, StructType):
            return member
        raise TraceError("only a struct has a length", got=self._node.type, hint="its fields must be known" + where())

    def __repr__(self) -> str:
        return f"Value({self._node.type})"

    def _never(self, *_: object) -> Any:
        raise TraceError(
            "a value is only described while a computation is traced, so it cannot be computed with here",
            got=self._node.type,
            hint="put the arithmetic in a function and use federated_map" + where(),
        )

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _never
    __abs__ = __float__ = __int__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __mod__ = __floordiv__ = _never
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _never


def member_of(kind: Type) -> Type:
    """The member of a federated type, else the type itself."""
    return kind.member if isinstance(kind, FederatedType) else kind


def select(source: Node, key: str | int) -> Node:
    """One field or element, typed; raises TraceError that lists the fields there are."""
    member = member_of(source.type)
    kind: Type = UNKNOWN
    if isinstance(member, StructType):
        if (place := member.find(key)) is None:
            known = member.fields() if isinstance(key, str) else f"0..{len(member) - 1}"
            raise FieldError(f"there is no field {key!r}", got=source.type, expected=known, hint=where())
        if isinstance(source, Record):  # (a, b)[0] is a: nothing to select at run time
            return source.items[place][1]
        kind = member[place]
        key = (member.elements[place][0] if member.named else None) or place  # of a dict or record, or else of a tuple
    elif isinstance(member, TensorType | SequenceType | FunctionType):
        raise FieldError(f"a value of this type has no field {key!r}", got=source.type, hint=where())
    if isinstance(source.type, FederatedType):
        kind = FederatedType(kind, source.type.placement, source.type.all_equal)
    return Select(source, key, kind)


def pick(value: Any, key: str | int) -> Any:
    """The field or element of a value at run time."""
    if isinstance(value, Mapping):
        return value[key] if key in value else value[str(key)]
    if isinstance(key, str):
        return getattr(value, key)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return getattr(value, dataclasses.fields(value)[key].name)
    return value[key]


def as_node(arg: object) -> Node:
    """The node of a Value, of a container of Values, or of a constant."""
    if isinstance(arg, Value):
        return arg._node
    items = members(arg) if mentions_value(arg) else None
    if items is None:
        signature = getattr(arg, "type_signature", None)  # of a computation
        return Constant(arg, signature if isinstance(signature, Type) else infer_type(arg))
    nodes = [(name, as_node(item)) for name, item in items]
    # A constant is the same at every place; any other value without a placement is at none of them.
    places = {node.placement for _, node in nodes if node.placement is not None or not isinstance(node, Constant)}
    struct = StructType([(name, node.type) for name, node in nodes], type(arg))
    return Record(tuple(nodes), struct, places.pop() if len(places) == 1 else None)


def zipped(node: Node) -> Node:
    """A struct of values of one placement as one value at that placement; at clients they are not all equal. Others as they are."""
    if not isinstance(node, Record) or node.placement is None or isinstance(node.type, FederatedType):
        return node
    items = tuple((name, zipped(item)) for name, item in node.items)
    container = node.type.container if isinstance(node.type, StructType) else None
    struct = StructType([(name, member_of(item.type)) for name, item in items], container)
    return Record(items, FederatedType(struct, node.placement), node.placement)


def mentions_value(arg: object) -> bool:
    """Whether a value that is being traced is in it, at any depth of its containers. Nothing is, where nothing is traced."""
    if not TRACING.get():
        return False
    return isinstance(arg, Value) or any(mentions_value(item) for _, item in members(arg) or ())
