"""The graph that tracing records: nodes with a placement and a type, and the Value a traced function sees."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeAlias

from hansa.core.types import (
    CLIENTS,
    SERVER,
    UNKNOWN,
    FederatedType,
    ObjectType,
    Placement,
    SequenceType,
    StructType,
    TensorType,
    Type,
)
from hansa.errors import TraceError

_PACKAGE = str(Path(__file__).resolve().parent.parent)


@dataclass(frozen=True, eq=False, slots=True)
class LocalFunction:
    """A Python function that runs at one place, with its name, types and what it asks for by keyword (`ctx`, `abort`).

    `many` runs it for many clients in one call: many(args of each client, contexts, abort) -> results. `loops` says that the
    vectorised engine may call `fn` client by client instead. `about` is printed in plans: the settings it closes over.
    """

    fn: Callable[..., Any]
    name: str
    parameters: tuple[tuple[str, Type], ...]
    result: Type
    wants: frozenset[str] = frozenset()
    many: Callable[..., list[Any]] | None = None
    loops: bool = False
    about: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


@dataclass(frozen=True, eq=False, slots=True)
class Parameter:
    """An argument of the computation."""

    name: str
    type: Type

    @property
    def placement(self) -> Placement:
        return placed(self.type, what=f"parameter {self.name!r}").placement


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
    """Several values of one placement as one struct."""

    items: tuple[tuple[str | None, Node], ...]
    type: Type
    placement: Placement | None


@dataclass(frozen=True, eq=False, slots=True)
class Apply:
    """A local function applied at a placement."""

    fn: LocalFunction
    args: tuple[Node, ...]
    kwargs: tuple[tuple[str, Node], ...]
    placement: Placement
    type: Type


@dataclass(frozen=True, eq=False, slots=True)
class Broadcast:
    """A server value at every client."""

    source: Node
    type: Type
    placement: Placement = CLIENTS


Kind = Literal["mean", "sum", "collect", "aggregate", "using"]


@dataclass(frozen=True, eq=False, slots=True)
class Reduce:
    """Client values brought to the server. `using` carries an Aggregator; `aggregate` TFF's four functions."""

    kind: Kind
    value: Node
    type: Type
    weight: Node | None = None
    like: Node | None = None
    using: Any = None  # an Aggregator of any accumulator, or (zero, accumulate, merge, report)
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
            return tuple(n for n in (node.value, node.weight, node.like) if n is not None)


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


def placed(kind: Type, *, what: str) -> FederatedType:
    """The federated type; raises TraceError when the type has no placement."""
    if isinstance(kind, FederatedType):
        return kind
    raise TraceError(f"{what} has no placement", got=kind, hint="annotate it Server[...] or Clients[...]" + where())


def user_frame() -> FrameType:
    """The innermost frame outside Hansa: the user's code that is being traced."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
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

    def __getitem__(self, key: str | int) -> Value:
        return Value(select(self._node, key))

    def __len__(self) -> int:
        return len(self._struct().elements)

    def __iter__(self) -> Iterator[Value]:
        return iter([Value(select(self._node, i)) for i in range(len(self._struct().elements))])

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
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _never


def member_of(kind: Type) -> Type:
    """The member of a federated type, else the type itself."""
    return kind.member if isinstance(kind, FederatedType) else kind


def select(source: Node, key: str | int) -> Node:
    """One field or element, typed; raises TraceError that lists the fields there are."""
    if isinstance(source, Record):  # (a, b)[0] is a: nothing to select at run time
        for i, (name, item) in enumerate(source.items):
            if key in (i, name):
                return item
    member = member_of(source.type)
    kind: Type = UNKNOWN
    if isinstance(member, StructType):
        found = [t for i, (name, t) in enumerate(member.elements) if key in (i, name)]
        if not found:
            raise TraceError(
                f"there is no field {key!r}",
                got=source.type,
                expected=member.fields() or f"0..{len(member.elements) - 1}",
                hint=where(),
            )
        kind = found[0]
    elif isinstance(member, TensorType | SequenceType):
        raise TraceError(f"a value of this type has no field {key!r}", got=source.type, hint=where())
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
    items: list[tuple[str | None, object]] | None = None
    if isinstance(arg, Mapping):
        items = [(str(name), item) for name, item in arg.items()]
    elif isinstance(arg, tuple) and hasattr(arg, "_fields"):
        items = list(zip(arg._fields, arg, strict=True))
    elif dataclasses.is_dataclass(arg) and not isinstance(arg, type):
        items = [(f.name, getattr(arg, f.name)) for f in dataclasses.fields(arg)]
    elif isinstance(arg, list | tuple):
        items = [(None, item) for item in arg]
    if items is None or not _mentions_value(arg):
        return Constant(arg, ObjectType(type(arg).__name__, type(arg)) if not isinstance(arg, bool | int | float) else UNKNOWN)
    nodes = [(name, as_node(item)) for name, item in items]
    places = {node.placement for _, node in nodes if node.placement is not None}
    mixed = len(places) > 1 or any(
        isinstance(n, Record) and n.placement is None and not isinstance(n.type, FederatedType) for _, n in nodes
    )
    struct = StructType([(name, node.type if mixed else member_of(node.type)) for name, node in nodes], type(arg))
    if mixed:
        return Record(tuple(nodes), struct, None)
    place = places.pop()
    equal = all(not isinstance(n.type, FederatedType) or n.type.all_equal for _, n in nodes)
    return Record(tuple(nodes), FederatedType(struct, place, place is SERVER or equal), place)


def _mentions_value(arg: object) -> bool:
    if isinstance(arg, Value):
        return True
    if isinstance(arg, Mapping):
        return any(_mentions_value(item) for item in arg.values())
    if dataclasses.is_dataclass(arg) and not isinstance(arg, type):
        return any(_mentions_value(getattr(arg, f.name)) for f in dataclasses.fields(arg))
    return isinstance(arg, list | tuple) and any(_mentions_value(item) for item in arg)
