"""A site's rows padded to few different shapes, since JAX compiles once for each."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from hansa.adapters.training import Plan, order
from hansa.core.protocols import Dataset
from hansa.core.trees import Array, Leaf
from hansa.errors import DataError


@dataclass(frozen=True, slots=True)
class Part:
    """One client's rows and steps: `order` (steps, batch) names the rows of each step, `share` what each counts for in its mean.

    A short batch is filled up with its first row at share 0.
    """

    x: Array
    y: Array
    order: Array
    share: Array

    @property
    def steps(self) -> int:
        return len(self.order)

    @staticmethod
    def of(data: Dataset, plan: Plan, rng: np.random.Generator, floats: np.dtype[np.floating]) -> Part:
        """The part of a client's training rows, in the order that its stream draws.

        Raises:
            DataError: rows or targets are not numbers.
        """
        x, y = inputs(data.x, floats), targets(data.y, floats)
        each = list(order(len(x), batch=plan.batch, steps=plan.count(len(x)), rng=rng))
        width = max(map(len, each))
        rows, share = np.zeros((len(each), width), np.int32), np.zeros((len(each), width), floats)
        for step, index in enumerate(each):
            rows[step], rows[step, : len(index)], share[step, : len(index)] = index[0], index, 1 / len(index)
        return Part(x, y, rows, share)


def bucket(count: int) -> int:
    """The power of two that holds the count: how far a dimension is padded.

    >>> [bucket(n) for n in (1, 2, 3, 60)]
    [1, 2, 4, 64]
    """
    return 1 << max(0, count - 1).bit_length()


def padded(values: Array, *sizes: int) -> Array:
    """The array filled up with zeros to these sizes of its first dimensions."""
    if values.shape[: len(sizes)] == sizes:
        return values
    out = np.zeros((*sizes, *values.shape[len(sizes) :]), values.dtype)  # np.pad would cost as much as a small client's training
    out[tuple(map(slice, values.shape[: len(sizes)]))] = values
    return out


def inputs(x: Array, floats: np.dtype[np.floating]) -> Array:
    """Floats, booleans and uint8 become the model's floats, with values unchanged; other integers int32 (token ids).

    Raises:
        DataError: they are no numbers.
    """
    if jnp.issubdtype(x.dtype, jnp.floating) or x.dtype in (np.uint8, np.bool_):
        return np.asarray(x, floats)
    if x.dtype.kind in "iu":
        return np.asarray(x, np.int32)
    raise DataError("rows must be numbers", path="x", got=Leaf(x.dtype, x.shape), hint="cast them, for example to float32")


def targets(y: Array, floats: np.dtype[np.floating]) -> Array:
    """Integers and booleans become int32, floats the model's.

    Raises:
        DataError: they are no numbers.
    """
    if y.dtype.kind not in "iubf":
        raise DataError("targets must be numbers", path="y", got=Leaf(y.dtype, y.shape), hint="number the classes from 0")
    return np.asarray(y, floats if y.dtype.kind == "f" else np.int32)
