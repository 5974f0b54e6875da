"""Values between Python and the wire: what a stage reads becomes a Tree, and a Tree becomes what a function takes."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from hansa.core.trees import Array
from hansa.core.types import FederatedType, SequenceType, StructType, TensorType, Type, members
from hansa.errors import SpecError, TraceError

_NUMBERS = (bool, int, float, complex, np.generic)


def pack(value: object, *, path: str = "") -> Any:  # an Array or a Tree: which, the value decides
    """A value as an array, or as a tree of arrays: records by field name, sequences by position, scalars as 0-d arrays.

    Raises:
        SpecError: something in it is no number; names its path. Only arrays and numbers cross between sites.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, _NUMBERS):
        return np.asarray(value)
    if (items := members(value)) is not None:
        named = [(name or str(i), item) for i, (name, item) in enumerate(items)]
        return {name: item if type(item) is np.ndarray else pack(item, path=f"{path}/{name}") for name, item in named}
    array = np.asarray(value) if hasattr(value, "__array__") else None
    if array is not None and array.dtype != object:
        return array
    raise SpecError(
        "only arrays, numbers and containers of them cross between sites", path=path.strip("/") or None, got=type(value).__name__
    )


def unpack(packed: Any, kind: Type) -> Any:
    """The value that was packed, in the containers of its type; 0-d arrays come back as Python or NumPy scalars."""
    if isinstance(kind, FederatedType):
        return unpack(packed, kind.member)
    if isinstance(packed, np.ndarray):
        return scalar(packed)
    if type(packed) is dict or isinstance(packed, Mapping):
        if isinstance(kind, StructType):
            places = [name if name in packed else str(i) for i, (name, _) in enumerate(kind.elements)]  # a branch may be empty
            return restore([unpack(packed.get(at or "", {}), item) for at, item in zip(places, kind, strict=True)], kind)
        if isinstance(kind, SequenceType):
            return [unpack(packed[str(i)], kind.element) for i in range(len(packed))]
        return dict(packed)
    return packed


def scalar(array: Array) -> Any:
    """A 0-d int64, float64 or bool array as a Python number, another 0-d one as a NumPy scalar; others as they are."""
    if array.ndim:
        return array
    dtype = array.dtype
    plain = dtype.kind == "b" or (dtype.kind in "if" and dtype.itemsize == 8)
    return array.item() if plain else array[()]


def restore(items: list[Any], kind: StructType) -> Any:
    """Elements in the container that the struct type remembers; else a dict when all are named, a tuple otherwise."""
    names = [name for name, _ in kind.elements]
    container = kind.container
    if container is not None and issubclass(container, list | tuple) and not hasattr(container, "_fields"):
        return container(items)
    named = {str(name): item for name, item in zip(names, items, strict=True)}
    if container is not None and not issubclass(container, Mapping):
        return container(**named)
    if (names and all(names)) or container is not None:
        return OrderedDict(named) if container is OrderedDict else named
    return tuple(items)


Conform = Callable[[Any, str], Any]  # (value, path) -> the value as its type says
Look = Callable[[Any], bool]


def conformer(kind: Type) -> Conform:
    """`conform` for one type, made once: a value that has the type already, the usual case, costs one look and no path."""
    fits, member = look(kind), kind.member if isinstance(kind, FederatedType) else kind
    return lambda value, path: value if fits(value) else conform(value, member, path=path)


def look(kind: Type) -> Look:
    """What says whether a value has the type already, with its dtypes and containers. False may be said of one that has."""
    match kind:
        case FederatedType():
            return look(kind.member)
        case TensorType(shape=()):
            cls = kind.dtype.type
            return lambda value: type(value) is cls
        case TensorType(dtype, shape):
            if shape is None or None in shape[1:]:
                return lambda v: type(v) is ndarray and v.ndim > 0 and v.dtype == dtype and _fits(v.shape, shape)
            rest, rank = shape[1:], len(shape)
            if shape[0] is not None:
                return lambda v: type(v) is ndarray and v.dtype == dtype and v.shape == shape
            if not rest:
                return lambda v: type(v) is ndarray and v.dtype == dtype and v.ndim == 1
            return lambda v: type(v) is ndarray and v.dtype == dtype and v.ndim == rank and v.shape[1:] == rest
        case StructType():
            return _look_struct(kind)
        case SequenceType():
            element = look(kind.element)
            return lambda value: type(value) is list and all(map(element, value))
    return lambda _: True


def _look_struct(kind: StructType) -> Look:
    looks, container, names = [look(item) for item in kind], kind.container, [name for name, _ in kind.elements]
    if container in (dict, OrderedDict):
        return lambda value: type(value) is container and [*value] == names and all(map(operator.call, looks, value.values()))
    if container is None or not issubclass(container, tuple | list):
        return lambda _: False
    if len(looks) == 2:  # a batch: there are many, and a call costs time
        first, second = looks
        return lambda value: type(value) is container and len(value) == 2 and first(value[0]) and second(value[1])
    return lambda value: type(value) is container and len(value) == len(looks) and all(map(operator.call, looks, value))


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    if wanted is None or shape == wanted:
        return True
    return len(shape) == len(wanted) and all(want is None or want == n for n, want in zip(shape, wanted, strict=True))


def conform(value: Any, kind: Type, *, path: str) -> Any:
    """A caller's argument as its declared type: Python numbers and lists become arrays of the dtype; structs go element by element.

    A conversion that would change a value is refused: a number 0.1 to float32 is rounding and allowed; 2**40 or 1.5 to int32, 1e300
    to float32, and an array of float64 to float32 are not. What has the type already is returned itself.

    Raises:
        TraceError: the value does not fit; names the path into the argument, what was expected and what came.
    """
    if isinstance(kind, FederatedType):
        return conform(value, kind.member, path=path)
    if isinstance(kind, TensorType):
        return _conform_tensor(value, kind, path)
    if isinstance(kind, StructType):
        return _conform_struct(value, kind, path)
    if isinstance(kind, SequenceType) and isinstance(value, list | tuple | np.ndarray):
        return [conform(item, kind.element, path=f"{path}[{i}]") for i, item in enumerate(value)]
    return value


def _conform_tensor(value: Any, kind: TensorType, path: str) -> Any:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TraceError(str(error), path=path, expected=kind) from None
    if type(value) is list and not array.size:
        array = array.astype(kind.dtype)  # nothing in it is a float64
    got = f"{array.dtype.name}[{','.join(str(n) for n in array.shape)}]" if array.ndim else array.dtype.name
    if array.dtype != kind.dtype:
        whole, text = (array.dtype.kind in kinds and kind.dtype.kind in kinds for kinds in ("iu", "U"))
        chosen = type(value) is ndarray and array.ndim > 0 and array.dtype.kind in "fc"  # a dtype that somebody wanted
        number = kind.dtype.kind != "U" and np.can_cast(array.dtype, kind.dtype, "safe" if chosen else "same_kind")
        if not (whole or text or number):
            raise TraceError("the value has another dtype", path=path, expected=kind, got=got)
        with np.errstate(over="ignore"):
            made = array.astype(kind.dtype)
        if not text and (made != array if whole else np.isinf(made) > np.isinf(array)).any():
            raise TraceError("the value does not fit the dtype", path=path, expected=kind, got=got)
        array = made
    if not _fits(array.shape, kind.shape):
        raise TraceError("the value has another shape", path=path, expected=kind, got=got)
    return array if array.ndim else array[()]


def _conform_struct(value: Any, kind: StructType, path: str) -> Any:
    found = elements_of(value, kind, path)
    items = [
        conform(v, t, path=f"{path}/{n}" if n else f"{path}[{i}]")
        for i, (v, (n, t)) in enumerate(zip(found, kind.elements, strict=True))
    ]
    if type(value) is kind.container and all(a is b for a, b in zip(items, found, strict=True)):
        return value
    return restore(items, kind)


def elements_of(value: Any, kind: StructType, path: str) -> list[Any]:
    """The elements of a value in the order of a struct type: by name where all are named, else by place.

    Raises:
        TraceError: it is no struct of this type; names the path.
    """
    found = members(value)
    if found is None:
        raise TraceError("not a struct of this type", path=path, expected=kind, got=type(value).__name__)
    given, names = dict(found), kind.fields()
    if not isinstance(value, tuple) and found and found[0][0] is not None:
        if set(given) != set(names) or len(names) < len(kind):
            raise TraceError("the struct has other fields", path=path, expected=names or kind, got=sorted(map(str, given)))
        return [given[name] for name in names]
    if len(found) != len(kind):
        raise TraceError("not a struct of this type", path=path, expected=kind, got=f"{type(value).__name__} of {len(found)}")
    return [item for _, item in found]
