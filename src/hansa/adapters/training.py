"""What the adapters share: how a client trains, and in which order it takes its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hansa.core.protocols import Dataset, FitConfig
from hansa.core.trees import Array, Leaf, Tree
from hansa.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Plan:
    """One local training with nothing left open. `steps` None means `epochs`; `batch` 0 means all rows a step.

    Raises:
        ConfigError: a number that cannot be; names the setting.
    """

    lr: float
    epochs: int
    steps: int | None
    batch: int
    clip: float | None = None
    proximal: float = 0.0
    correction: Tree | None = None

    def __post_init__(self) -> None:
        for key, least in (("epochs", 1), ("steps", 1), ("batch", 0)):
            value = getattr(self, key)
            if not (value is None and key == "steps") and (type(value) is not int or value < least):
                raise ConfigError("not a length of training", path=key, got=repr(value), expected=f"an integer, {least} or more")
        for key in ("lr", "proximal", "clip"):
            value = getattr(self, key)
            if value is None and key == "clip":
                continue
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ConfigError("not a setting of training", path=key, got=repr(value), expected="a finite number, 0 or more")
        if self.clip == 0:
            raise ConfigError("a gradient of norm 0 trains nothing", path="clip", got=self.clip, expected="more than 0, or None")

    @staticmethod
    def given(*, lr: float, epochs: int | None, steps: int | None, batch: int) -> Plan:
        """The plan that a person gives: epochs or steps, and one epoch where neither is.

        Raises:
            ConfigError: both are given, or a number that cannot be.
        """
        if epochs is not None and steps is not None:
            raise ConfigError("give epochs or steps", path="steps", got=f"epochs={epochs}, steps={steps}")
        return Plan(lr, 1 if epochs is None else epochs, steps, batch)

    def under(self, config: FitConfig) -> Plan:
        """What the algorithm asks for, and this plan's settings where it asks for nothing."""
        return Plan(
            lr=self.lr if config.lr is None else config.lr,
            epochs=self.epochs if config.epochs is None else config.epochs,
            # An algorithm that asks for epochs means epochs, though the learner was set to steps.
            steps=(self.steps if config.epochs is None else None) if config.steps is None else config.steps,
            batch=self.batch if config.batch is None else config.batch,
            clip=config.clip,
            proximal=config.proximal,
            correction=config.correction,
        )

    def count(self, rows: int) -> int:
        """Steps over this many rows."""
        return self.epochs * -(-rows // (self.batch or rows)) if self.steps is None else self.steps

    def config(self) -> FitConfig:
        """The same as the record that a user's own loop is given."""
        return FitConfig(self.lr, self.epochs, self.steps, self.batch, self.clip, self.proximal, self.correction)


def training(data: Dataset) -> Dataset:
    """The training part.

    Raises:
        DataError: it is empty, or x and y are of different lengths.
    """
    part = data.part("train")
    if len(part) == 0:
        raise DataError("there are no rows to train on", path="train", got="0 rows", hint="give the site rows, or leave it out")
    require_targets(part.x, part.y)
    return part


def require_targets(x: Array, y: Array) -> None:
    """Return if there is a target for each row.

    Raises:
        DataError: there is not.
    """
    if len(x) != len(y):
        raise DataError("each row needs one target", path="y", expected=f"{len(x)} targets", got=len(y))


def epochs_of(n: int, *, batch: int, steps: int, rng: np.random.Generator) -> Iterator[Array]:
    """The row numbers of each epoch: a permutation, the last one cut where the steps end. Batch 0 is all rows a step."""
    size = batch or n
    for done in range(0, steps, -(-n // size)):
        # All rows at once need no permutation, and the other learners draw none either.
        rows = rng.permutation(n) if batch else np.arange(n)
        yield rows[: (steps - done) * size]


def order(n: int, *, batch: int, steps: int, rng: np.random.Generator) -> Iterator[Array]:
    """The row numbers of each step: an epoch cut into batches, the last one short."""
    for rows in epochs_of(n, batch=batch, steps=steps, rng=rng):
        for start in range(0, len(rows), batch or n):
            yield rows[start : start + (batch or n)]


def drawn(rng: np.random.Generator) -> int:
    """A seed for the model's own draws (dropout), taken back: the batches are those of a learner that draws none."""
    stream = rng.bit_generator.state
    seed = int(rng.integers(1 << 31))
    rng.bit_generator.state = stream
    return seed


def inputs(x: Array, floats: np.dtype[np.floating]) -> Array:
    """Floats, booleans and uint8 become the model's floats, with values unchanged; other integers int32 (token ids).

    Raises:
        DataError: they are no numbers, or integers beyond int32.
    """
    if x.dtype.name.startswith(("float", "bfloat")) or x.dtype in (np.uint8, np.bool_):
        return np.asarray(x, floats)
    if x.dtype.kind in "iu":
        return _int32(x, path="x")
    raise DataError("rows must be numbers", path="x", got=Leaf(x.dtype, x.shape), hint="cast them, for example to float32")


def targets(y: Array, floats: np.dtype[np.floating]) -> Array:
    """Integers and booleans become int32, floats the model's.

    Raises:
        DataError: they are no numbers, or integers beyond int32.
    """
    if y.dtype.kind not in "iubf":
        raise DataError("targets must be numbers", path="y", got=Leaf(y.dtype, y.shape), hint="number the classes from 0")
    return np.asarray(y, floats) if y.dtype.kind == "f" else _int32(y, path="y")


def _int32(values: Array, *, path: str) -> Array:
    narrow = np.asarray(values, np.int32)
    if not np.can_cast(values.dtype, np.int32) and (narrow != values).any():
        got = f"{values.min()}..{values.max()}"
        raise DataError("an integer has more than 32 bits", path=path, expected="int32", got=got, hint="cast them to floats")
    return narrow


def bucket(count: int) -> int:
    """The power of two that holds the count: how far a dimension is padded where each size is compiled anew.

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
