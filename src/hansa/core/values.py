"""Values between Python and the wire: what a stage reads becomes a Tree, and a Tree becomes what a function takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.core.trees import Array
from hansa.core.types import FederatedType, StructType, TensorType, Type
from hansa.errors import SpecError, TraceError


def pack(value: object, *, path: str = "") -> Any:  # an Array or a Tree: which, the value decides
    """A value as an array, or as a tree of arrays: records by field name, sequences by position, scalars as 0-d arrays.

    Raises:
        SpecError: something in it is no number; names its path. Only arrays and numbers cross between sites.
    """
    if isinstance(value, np.ndarray):
        return value
    if type(value) is dict or isinstance(value, Mapping):
        return {str(key): pack(item, path=f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, bool | int | float | complex | np.generic):
        return np.asarray(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: pack(item, path=f"{path}/{name}") for name, item in zip(value._fields, value, strict=True)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: pack(getattr(value, f.name), path=f"{path}/{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return {str(i): pack(item, path=f"{path}/{i}") for i, item in enumerate(value)}
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
            items = [unpack(packed.get(name or str(i), {}), item) for i, (name, item) in enumerate(kind.elements)]
            return restore(items, kind)
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
    if container is not None and (hasattr(container, "_fields") or dataclasses.is_dataclass(container)):
        return container(**{str(name): item for name, item in zip(names, items, strict=True)})
    if names and all(names):
        return dict(zip(names, items, strict=True))
    return tuple(items)


def conform(value: Any, kind: Type, *, path: str) -> Any:
    """A caller's argument as its declared type: Python numbers and lists become arrays of the dtype; structs go element by element.

    A conversion that would change a value is refused: float64 0.1 to float32 is rounding and allowed, 2**40 to int32 or 1.5 to
    int32 is not.

    Raises:
        TraceError: the value does not fit; names the path into the argument, what was expected and what came.
    """
    if isinstance(kind, FederatedType):
        return conform(value, kind.member, path=path)
    if isinstance(kind, TensorType):
        return _conform_tensor(value, kind, path)
    if isinstance(kind, StructType):
        return _conform_struct(value, kind, path)
    return value


def _conform_tensor(value: Any, kind: TensorType, path: str) -> Any:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TraceError(str(error), path=path, expected=kind) from None
    got = f"{array.dtype.name}[{','.join(str(n) for n in array.shape)}]" if array.ndim else array.dtype.name
    if array.dtype != kind.dtype:
        whole = kind.dtype.kind in "iu" and array.dtype.kind in "iu"
        if array.dtype.kind == kind.dtype.kind == "U":
            pass
        elif whole:
            info = np.iinfo(kind.dtype)
            if array.size and not (info.min <= array.min() and array.max() <= info.max):
                raise TraceError("the value does not fit the dtype", path=path, expected=kind, got=got)
        elif not np.can_cast(array.dtype, kind.dtype, "same_kind"):
            raise TraceError("the value has another dtype", path=path, expected=kind, got=got)
        array = array.astype(kind.dtype)
    if kind.shape is not None and (
        len(kind.shape) != array.ndim or any(n is not None and n != m for n, m in zip(kind.shape, array.shape, strict=True))
    ):
        raise TraceError("the value has another shape", path=path, expected=kind, got=got)
    return array if array.ndim else array[()]


def _conform_struct(value: Any, kind: StructType, path: str) -> Any:
    names = [name for name, _ in kind.elements]
    if isinstance(value, Mapping) and all(names):
        if set(value) != set(names):
            raise TraceError("the struct has other fields", path=path, expected=names, got=sorted(map(str, value)))
        found = [value[name] for name in names if name]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = [getattr(value, name or "") for name in names]
    elif isinstance(value, list | tuple) and len(value) == len(names):
        found = list(value)
    else:
        raise TraceError("not a struct of this type", path=path, expected=kind, got=type(value).__name__)
    items = [conform(v, t, path=f"{path}/{n or i}") for i, (v, (n, t)) in enumerate(zip(found, kind.elements, strict=True))]
    if type(value) is kind.container and all(a is b for a, b in zip(items, found, strict=True)):
        return value
    return restore(items, kind)
