"""Half precision in transfer: float32 arrays travel as float16 or bfloat16, and are float32 again before anything is computed.

A message says in its header which of the two it uses. An array that had that dtype before could not be told apart, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import ml_dtypes
import numpy as np

from hansa.core import trees
from hansa.core.task import Header, Shareable
from hansa.core.trees import Array
from hansa.errors import SpecError, UpdateError

HEADER: Final = "half"
DTYPES: Final[dict[str, np.dtype[Any]]] = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def narrowed(shareable: Shareable, name: str, keys: tuple[str, ...] = ()) -> Shareable:
    """The message with the float32 arrays of the tree at `keys` as float16 or bfloat16; scalars and other dtypes stay.

    >>> sent = narrowed(Shareable({"delta": {"w": np.ones(2, np.float32)}}), "float16", ("delta",))
    >>> sent.body["delta"]["w"].dtype, sent.headers, restored(sent).body["delta"]["w"].dtype
    (dtype('float16'), {'half': 'float16'}, dtype('float32'))

    Raises:
        SpecError: an array of the message has that dtype already. UpdateError: a finite entry is beyond its range.
    """
    dtype = DTYPES[name]
    for path, leaf in trees.leaves(shareable.body):
        if leaf.dtype == dtype:
            raise SpecError("an array has the dtype of the transfer already", path=path, got=name, hint="send it as the other one")
    body = _at(shareable.body, keys, lambda tree: _each(tree, lambda path, leaf: _narrow(leaf, dtype, path), "/".join(keys)))
    return replace(shareable, body=body, headers={**shareable.headers, HEADER: name})


def widened(part: Any, headers: Mapping[str, Header]) -> Any:
    """A tree or an array of a message as it was before: exact, and the same object where nothing was narrowed."""
    dtype = DTYPES.get(str(headers[HEADER])) if HEADER in headers else None
    if dtype is None:
        return part
    return _each(part, lambda _, leaf: leaf.astype(np.float32) if leaf.dtype == dtype else leaf)


def outlined(part: Any, headers: Mapping[str, Header]) -> Any:
    """What `widened` gives, in names, dtypes and shapes alone: its arrays take no memory."""
    dtype = DTYPES.get(str(headers[HEADER])) if HEADER in headers else None
    if dtype is None:
        return part
    blank = np.zeros((), np.float32)
    return _each(part, lambda _, leaf: np.broadcast_to(blank, leaf.shape) if getattr(leaf, "dtype", None) == dtype else leaf)


def restored(shareable: Shareable) -> Shareable:
    """The message as it was before it was narrowed; the same object if it was not."""
    if HEADER not in shareable.headers:
        return shareable
    headers = {name: value for name, value in shareable.headers.items() if name != HEADER}
    return replace(shareable, body=widened(shareable.body, shareable.headers), headers=headers)


def _narrow(leaf: Array, dtype: np.dtype[Any], path: str) -> Array:
    if leaf.dtype != np.float32 or not leaf.ndim:
        return leaf
    with np.errstate(over="ignore", invalid="ignore"):
        half = leaf.astype(dtype)
    if bool((np.isinf(half) & np.isfinite(leaf)).any()):
        hint = "bfloat16 has the range of float32" if dtype == np.float16 else None
        raise UpdateError("an entry is beyond the range of half precision", path=path, expected=dtype.name, hint=hint)
    return half


def _each(part: Any, fn: Callable[[str, Array], Array], path: str = "") -> Any:
    if isinstance(part, Mapping):
        return {key: _each(value, fn, f"{path}/{key}" if path else key) for key, value in part.items()}
    return fn(path, part)


def _at(node: Any, keys: tuple[str, ...], fn: Callable[[Any], Any]) -> Any:
    if not keys:
        return fn(node)
    return {**node, keys[0]: _at(node[keys[0]], keys[1:], fn)}
