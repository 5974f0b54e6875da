"""Local computations in torch: types from fake tensors, arrays to tensors and back. A LocalBackend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hansa.adapters.local import each_leaf, taker
from hansa.adapters.local import result_type as found
from hansa.adapters.torch.leaves import array, tensor
from hansa.core.graph import where
from hansa.core.types import TensorType, Type
from hansa.errors import TraceError


def type_of(spec: object) -> Type | None:
    """The type of a tensor, or of a torch dtype as a scalar."""
    if isinstance(spec, torch.Tensor):
        return _look(spec)
    return TensorType(_numpy(spec)) if isinstance(spec, torch.dtype) else None


def result_type(fn: Callable[..., Any], parameters: Sequence[Type]) -> Type:
    """The type of what the function gives for fake tensors, which have dtypes and shapes and no data.

    Raises:
        TraceError: it does not run on them (`.item()` needs data), the result's structure follows what the parameters leave open,
            or torch has no such dtype.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # the one way to shapes that captured modules do not break

    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def stand_in(kind: TensorType) -> torch.Tensor:
        dtype = _torch(kind)
        with mode:
            return torch.zeros([n or 0 for n in kind.shape or ()], dtype=dtype)

    def run(fn: Callable[..., Any], given: Sequence[Any]) -> Any:
        with mode:
            return fn(*given)

    return found(fn, parameters, stand_in, _look, run)


def compiled(fn: Callable[..., Any], parameters: Sequence[Type]) -> Callable[..., Any]:
    """The function, from arrays to arrays. What it is given are tensors of its own: it may write to them."""
    takers = [taker(kind, _tensor) for kind in parameters]

    def run(*args: Any, **extra: Any) -> Any:
        return each_leaf(fn(*[take(arg) for take, arg in zip(takers, args, strict=True)], **extra), _array)

    return run


def _tensor(value: Any) -> torch.Tensor:
    return tensor(np.asarray(value))


def _array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    copy = np.array(array(value))  # a tensor may be a captured module's, which changes
    return copy if copy.ndim else copy[()]


def _torch(kind: TensorType) -> torch.dtype:
    if kind.dtype.kind == "U":
        raise TraceError("torch has no tensors of this type", got=kind, hint=where())
    return tensor(np.zeros(0, kind.dtype)).dtype


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return array(torch.zeros(0, dtype=dtype)).dtype


def _look(value: Any) -> TensorType | None:
    return TensorType(_numpy(value.dtype), tuple(value.shape)) if isinstance(value, torch.Tensor) else None
