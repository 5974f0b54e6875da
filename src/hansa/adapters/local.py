"""What the backends of local computations share: stand-ins for arguments, the type of a result, and containers kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

from hansa.core.graph import where
from hansa.core.types import SequenceType, StructType, TensorType, Type, contains, infer_type, members
from hansa.core.values import restore
from hansa.errors import HansaError, TraceError

# A function is run on two stand-ins that differ in what a type leaves open: what differs in the two results is open there, too.
# Many numbers divide the sizes, and poolings and kernels find room in them.
SIZES, LENGTHS = (120, 240), (2, 3)

SAY = "say what it gives: returns=..., or an annotation"

Leaf = Callable[[Any], Any]


class Batches(Sequence[Any]):
    """The elements of a sequence `T*`; each becomes the framework's own when it is reached, so that one is in memory twice."""

    def __init__(self, items: Sequence[Any], convert: Leaf) -> None:
        self._items, self._convert = items, convert

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return map(self._convert, self._items)

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> Batches: ...
    def __getitem__(self, key: int | slice) -> Any:
        return Batches(self._items[key], self._convert) if isinstance(key, slice) else self._convert(self._items[key])


def taker(kind: Type, leaf: Leaf) -> Leaf:
    """What makes the framework's value of a NumPy value of this type: `leaf` of each tensor, containers kept.

    Values that are known by their class alone are handed on as they are.
    """
    match kind:
        case TensorType():
            return leaf
        case SequenceType():
            element = taker(kind.element, leaf)
            return lambda value: Batches(value, element)
        case StructType():
            takers = [taker(item, leaf) for item in kind]

            def struct(value: Any) -> Any:
                items = [item for _, item in members(value) or ()]
                return restore([take(item) for take, item in zip(takers, items, strict=True)], kind)

            return struct
    return lambda value: value


def each_leaf(value: Any, leaf: Leaf) -> Any:
    """The value with `leaf` of all that is no container, in the same containers."""
    if isinstance(value, Batches):
        return [each_leaf(item, leaf) for item in value]
    items = members(value)
    if items is None:
        return leaf(value)
    new = [each_leaf(item, leaf) for _, item in items]
    if isinstance(value, Mapping):
        return type(value)(zip(value, new, strict=True))  # type: ignore[call-arg]  # a dict's, and those of its kind
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **dict(zip((name for name, _ in items if name), new, strict=True)))
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(new)
    return type(value)(*new)


def tensors(kind: Type) -> Iterator[TensorType]:
    """The tensor types in it, at any depth."""
    if isinstance(kind, TensorType):
        yield kind
    for child in kind.children():
        yield from tensors(child)


def result_type(
    fn: Callable[..., Any],
    parameters: Sequence[Type],
    stand_in: Callable[[TensorType], Any],
    look: Leaf,
    run: Callable[..., Any] | None = None,
) -> Type:
    """The type of what a function gives, found by running it twice on stand-ins.

    `stand_in` gives one for a tensor type whose shape is known, `look` the TensorType of a framework's array and None of anything
    else; `run` calls the function on them where calling it is not enough. A size, or the length of a list, that is not the same
    both times follows what the parameters leave open, and is open in the result.

    Raises:
        TraceError: the function does not run on stand-ins, or the result's structure depends on what the parameters leave open.
    """
    name = getattr(fn, "__name__", type(fn).__name__).replace("<lambda>", "the function")
    found: list[Type] = []
    for size, length in zip(SIZES, LENGTHS, strict=True) if any(map(_is_open, parameters)) else ((1, 1),):
        given = [_stand_in(kind, stand_in, size, length) for kind in parameters]
        try:
            made = fn(*given) if run is None else run(fn, given)
        except HansaError:
            raise
        except Exception as error:  # the function is the user's: it may raise anything, and that is told, with the cause
            what = f"{name} does not run on stand-ins for its arguments, so what it gives is not known before it runs"
            raise TraceError(what, got=f"{type(error).__name__}: {error}", hint=SAY + where()) from error
        found.append(type_of(made, look))
    return found[0] if len(found) == 1 else _joined(found[0], found[1], name)


def type_of(value: Any, look: Leaf) -> Type:
    """The type of a framework's value: `look` gives the TensorType of its arrays, and None for anything else."""
    if (kind := look(value)) is not None:
        return kind  # type: ignore[no-any-return]  # a TensorType, says `look`
    items = members(value)
    if items is None:
        return infer_type(value)
    return StructType([(name, type_of(item, look)) for name, item in items], type(value))


def _is_open(kind: Type) -> bool:
    if isinstance(kind, TensorType):
        return kind.shape is None or None in kind.shape
    return contains(kind, SequenceType) or any(map(_is_open, kind.children()))


def _stand_in(kind: Type, leaf: Callable[[TensorType], Any], size: int, length: int) -> Any:
    match kind:
        case TensorType(shape=None):
            raise TraceError("a tensor of unknown rank has no stand-in", got=kind, hint=SAY + where())
        case TensorType():
            return leaf(TensorType(kind.dtype, [size if n is None else n for n in kind.shape or ()]))
        case SequenceType():
            return [_stand_in(kind.element, leaf, size, length) for _ in range(length)]
        case StructType():
            return restore([_stand_in(item, leaf, size, length) for item in kind], kind)
    raise TraceError("what is known by its class alone has no stand-in", got=kind, hint=SAY + where())


def _joined(one: Type, two: Type, name: str) -> Type:
    """The type that both are of: open where they differ."""
    match one, two:
        case TensorType(), TensorType() if one.dtype == two.dtype:
            if one.shape is None or two.shape is None or len(one.shape) != len(two.shape):
                return TensorType(one.dtype, None)
            return TensorType(one.dtype, [n if n == m else None for n, m in zip(one.shape, two.shape, strict=True)])
        case SequenceType(), SequenceType():
            return SequenceType(_joined(one.element, two.element, name))
        case StructType(), StructType() if one.container is two.container:
            if [n for n, _ in one.items()] == [n for n, _ in two.items()]:
                items = [(n, _joined(a, b, name)) for (n, a), b in zip(one.items(), two, strict=True)]
                return StructType(items, one.container)
            if one.container is list and len(one) and len(two):
                first, *others = [*one, *two]
                for other in others:
                    first = _joined(first, other, name)
                return SequenceType(first)
    if one == two:
        return one
    raise TraceError(
        f"what {name} gives has another structure for other sizes of its arguments",
        got=f"{one} and {two}",
        hint=SAY + where(),
    )
