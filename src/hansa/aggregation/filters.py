"""Filters on updates, by the names that a job writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from hansa.aggregation import clipping
from hansa.core import half, trees
from hansa.core.task import FLContext, Shareable
from hansa.errors import ConfigError, SpecError


@dataclass(frozen=True, slots=True)
class Clip:
    """A filter that bounds the L2 norm of the tree at `path` of a shareable's body; "" is the whole body.

    A reply whose body does not have the first key of `path` carries no update and passes as it is: filters see every reply of a
    job, an evaluation's sums too.

    Raises:
        SpecError: there is no tree at the rest of `path`.
        NotFiniteError: an entry is inf or NaN.
    """

    norm: float
    path: str = "delta"

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:  # noqa: ARG002  the protocol's; clipping needs no context
        """The shareable with its update scaled down where it was too long."""
        keys = self.path.split("/") if self.path else []
        if keys and keys[0] not in shareable.body:
            return shareable
        return replace(shareable, body=self._clipped(shareable.body, keys))

    def _clipped(self, node: Any, keys: list[str]) -> Any:
        if not isinstance(node, Mapping) or (keys and keys[0] not in node):
            raise SpecError("there is no update to clip", path=self.path, hint="name where the update stands: clip(norm, path=...)")
        if not keys:
            return clipping.clip(node, norm=self.norm)[0]
        return {**node, keys[0]: self._clipped(node[keys[0]], keys[1:])}


@dataclass(frozen=True, slots=True)
class Exclude:
    """A filter that keeps leaves at the site: those whose path matches a pattern leave as zeros; the tree keeps its form."""

    paths: tuple[str, ...]

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:  # noqa: ARG002  the protocol's
        """The shareable with zeros where a pattern matches."""
        kept = {
            path: np.zeros_like(leaf) if any(fnmatchcase(path, pattern) for pattern in self.paths) else leaf
            for path, leaf in trees.leaves(shareable.body)
        }
        return replace(shareable, body=trees.unflatten(kept))


def exclude(paths: Sequence[str]) -> Exclude:
    """A filter that lets the leaves at these paths leave as zeros; `*` stands for anything: `exclude(["*/head/*"])`.

    >>> exclude(["delta/head/*"])(Shareable({"delta": {"head": {"b": np.ones(1)}, "w": np.ones(1)}}), FLContext()).body
    {'delta': {'head': {'b': array([0.])}, 'w': array([1.])}}

    Raises:
        ConfigError: not a list of patterns.
    """
    if isinstance(paths, str) or not paths or not all(isinstance(path, str) and path for path in paths):
        raise ConfigError("not a list of paths to exclude", path="paths", got=repr(paths), expected='["*/head/*"]')
    return Exclude(tuple(paths))


def clip(norm: float, *, path: str = "delta") -> Clip:
    """A filter that scales the update at `path` to an L2 norm of at most `norm`, over all its leaves together.

    >>> import numpy as np
    >>> clip(1.0)(Shareable({"delta": {"w": np.array([3.0, 4.0])}}), FLContext()).body
    {'delta': {'w': array([0.6, 0.8])}}

    Raises:
        ConfigError: `norm` is not a finite number > 0.
    """
    clipping.clip({}, norm=norm)  # refuses a bad norm where it is written, not in the first round
    return Clip(norm, path)


@dataclass(frozen=True, slots=True)
class HalfPrecision:
    """A filter that halves the bytes of a transfer: float32 arrays travel as `dtype`, float16 or bfloat16.

    They are float32 again before the site trains or the server adds: sums are as wide as ever. Only rounding is lost: of a value at
    most 2^-11 of its size in float16, and 2^-25 where it is below 2^-14; 2^-8 of its size in bfloat16, which has float32's range.
    A mean is off by at most the mean of these errors. Scalars and other dtypes travel as they are.

    path: the tree of a reply that is narrowed ("" is all of it); a reply without the first key passes as it is. task: whether what
    goes out to the sites is narrowed, too; the server keeps its own model in full.

    >>> import numpy as np
    >>> update = Shareable({"delta": {"w": np.array([1.0, 0.1], np.float32)}})
    >>> HalfPrecision()(update, FLContext()).body
    {'delta': {'w': array([1. , 0.1], dtype=float16)}}

    Raises:
        ConfigError: no such dtype. SpecError: an array has the dtype already. UpdateError: an entry is beyond float16's 65,504.
    """

    dtype: str = "float16"
    path: str = "delta"
    task: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in half.DTYPES:
            raise ConfigError("no half precision", path="dtype", got=repr(self.dtype), expected=" or ".join(half.DTYPES))

    def __call__(self, shareable: Shareable, ctx: FLContext) -> Shareable:  # noqa: ARG002  the protocol's; rounding needs no context
        """The reply with its update narrowed."""
        keys = tuple(self.path.split("/")) if self.path else ()
        if keys and keys[0] not in shareable.body:
            return shareable
        return half.narrowed(shareable, self.dtype, keys)

    def on_task(self, shareable: Shareable) -> Shareable:
        """What goes out, narrowed if asked for."""
        return half.narrowed(shareable, self.dtype) if self.task else shareable
