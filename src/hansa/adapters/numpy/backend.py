"""Local computations in NumPy: a function of arrays, as it is. A LocalBackend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hansa.adapters.local import each_leaf, taker
from hansa.adapters.local import result_type as found
from hansa.core.trees import Array
from hansa.core.types import TensorType, Type, infer_type
from hansa.core.values import conform


def type_of(spec: object) -> Type | None:
    """The type of an array; a dtype is one to `to_type` already."""
    return infer_type(spec) if isinstance(spec, np.ndarray) else None


def result_type(fn: Callable[..., Any], parameters: Sequence[Type]) -> Type:
    """The type of what the function gives for ones of the parameters' dtypes and shapes: NumPy knows shapes by computing alone.

    Raises:
        TraceError: it does not run on them, or the result's structure follows what the parameters leave open.
    """
    with np.errstate(all="ignore"):
        return found(fn, parameters, _ones, _look)


def compiled(fn: Callable[..., Any], parameters: Sequence[Type]) -> Callable[..., Any]:
    """The function, given arrays that cannot be written to: they are the site's data, and the model of other clients as well."""
    takers = [taker(kind, _read_only) for kind in parameters]

    def run(*args: Any, **extra: Any) -> Any:
        return each_leaf(fn(*[take(arg) for take, arg in zip(takers, args, strict=True)], **extra), _own)

    return run


def _ones(kind: TensorType) -> Any:
    filled = np.full(tuple(n or 0 for n in kind.shape or ()), "" if kind.dtype.kind == "U" else 1, kind.dtype)
    filled.flags.writeable = False
    return conform(filled, kind, path="a stand-in")


def _look(value: Any) -> TensorType | None:
    return TensorType(value.dtype, value.shape) if isinstance(value, np.ndarray | np.generic) else None


def _read_only(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _own(value: Any) -> Any:
    """An array that is the caller's: what was only handed through is copied."""
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        copy: Array = value.copy()
        return copy
    return value
