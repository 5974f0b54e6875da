"""A framework's state as a Tree of arrays: state dicts of torch, and whatever numpy takes."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hansa import codec
from hansa.core.task import Shareable
from hansa.core.trees import Array
from hansa.errors import InputError, MissingExtraError, SpecError
from hansa.files import storage_error


def tree(values: object, *, path: str = "") -> dict[str, Any]:
    """The arrays of a mapping from names to tensors, arrays or further mappings; memory is shared where it can be.

    >>> tree({"head": {"bias": [1.0, 2.0]}})
    {'head': {'bias': array([1., 2.])}}

    Raises:
        InputError: it is no mapping: says what to give. SpecError: a leaf is no array of numbers; names it.
    """
    if not isinstance(values, Mapping):
        hint = "model.state_dict()" if hasattr(values, "state_dict") else '{"weight": array, "bias": array}'
        raise InputError("parameters are a mapping from names to arrays", path=path or None, got=type(values).__name__, hint=hint)
    made: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{path}/{name}" if path else str(name)
        made[name] = tree(value, path=where) if isinstance(value, Mapping) else leaf(value, path=where)
    return made


def leaf(value: object, *, path: str) -> Array:
    """One tensor or array-like as an array.

    Raises:
        SpecError: it is no array of numbers.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        if tensor.dtype == torch.bfloat16:  # numpy has no dtype of its own for it
            return np.asarray(tensor.contiguous().view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
        return np.asarray(tensor.numpy())
    found = np.asarray(value)
    if found.dtype.kind in "OSUMm":
        raise SpecError("not an array of numbers", path=path, got=type(value).__name__)
    return found


def state_dict(file: Path, device: str = "cpu") -> dict[str, Any]:
    """The tensors in a safetensors file, under the names that `load_state_dict` takes.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise MissingExtraError("torch", extra="torch") from None
    return load_file(file, device=device)


def read(file: Path) -> Shareable:
    """The message in a file; its arrays can be written to, which does not change the file.

    Raises:
        StorageError: it cannot be read. SpecError: it is no message.
    """
    try:
        with file.open("rb") as opened:
            return codec.decode(memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)))
    except OSError as error:
        raise storage_error(error, file) from error


def write(file: Path, message: Shareable) -> None:
    """Write a message for a process beside this one; it is not made durable.

    Raises:
        StorageError: it cannot be written. SpecError: something in it cannot be sent; names it.
    """
    parts = codec.encode_parts(message)
    try:
        with file.open("wb") as opened:
            opened.writelines(parts)
    except OSError as error:
        raise storage_error(error, file, size=sum(memoryview(part).nbytes for part in parts)) from error
