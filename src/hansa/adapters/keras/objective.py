"""A Keras loss as the mean over a batch's rows, and how outputs are read under it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from hansa.adapters.keras.held import array
from hansa.adapters.settings import METRICS, Scores, named
from hansa.core.trees import Array
from hansa.errors import ConfigError

Loss: TypeAlias = str | Callable[..., Any]  # Keras's name of one, a keras.losses.Loss, or a function of (y, output)

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
_KINDS: Mapping[str, Scores] = {  # by the class's name: with logits the scores, without them the metrics alone
    "SparseCategoricalCrossentropy": "softmax",
    "CategoricalCrossentropy": "softmax",
    "CategoricalFocalCrossentropy": "softmax",
    "BinaryCrossentropy": "sigmoid",
    "BinaryFocalCrossentropy": "sigmoid",
}
_VALUES = ("MeanSquaredError", "MeanAbsoluteError", "Huber", "LogCosh")


@dataclass(frozen=True)
class Objective:
    """A loss with a value for each row, and the scores and metrics that go with it."""

    loss: Any
    scores: Scores
    metrics: tuple[str, ...]

    @staticmethod
    def of(loss: Loss, *, scores: Scores | None, metrics: tuple[str, ...] | None) -> Objective:
        """The objective of a loss; what is None is chosen by the loss.

        Raises:
            ConfigError: there is no such loss, or it is no mean over the rows.
        """
        found = _found(loss)
        if found.reduction not in _MEANS:
            hint = "leave it out: clients' batches are averaged"
            raise ConfigError("the loss is no mean over the rows", path="loss", got=f"reduction={found.reduction!r}", hint=hint)
        kind, options = type(found).__name__, found.get_config()
        known = scores or _KINDS.get(kind, "raw")
        own = ("loss", "mse", "mae") if kind in _VALUES and scores is None else METRICS[known]
        read = scores or ("raw" if not options.get("from_logits") else known)
        return Objective(found, read, own if metrics is None else metrics)

    def __call__(self, output: Any, y: Any, share: Any | None) -> Any:
        """The mean loss of a batch; `share` says what each row counts for where some only pad."""
        return self.loss(y, _column(output, len(y.shape)), sample_weight=share)

    def read(self, output: Any, ndim: int) -> Array:
        """The scores of rows whose targets have this many dimensions: probabilities or values."""
        if not hasattr(output, "shape"):
            raise ConfigError(
                "the model's output is not one tensor", path="model", got=type(output).__name__, hint="wrap the model"
            )
        if self.scores != "raw":
            output = (ops.softmax if self.scores == "softmax" else ops.sigmoid)(output)
        found = array(output)
        wide = found.astype(np.promote_types(found.dtype, np.float32), copy=False)
        return wide if self.scores == "softmax" else _column(wide, ndim)

    def __str__(self) -> str:
        if isinstance(self.loss, _Rows):
            return named(self.loss.fn)
        defaults = {name: p.default for name, p in inspect.signature(type(self.loss)).parameters.items()}
        options = {key: value for key, value in self.loss.get_config().items() if value != defaults.get(key) and key != "name"}
        return f"{type(self.loss).__name__}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


class _Rows(keras.losses.Loss):  # type: ignore[misc]  # Keras is not seen by type checkers
    """A function of (y, output) that gives a loss for each row."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(name="rows")
        self.fn = fn

    def call(self, y: Any, output: Any) -> Any:
        losses = self.fn(y, output)
        if len(losses.shape) == 0 or losses.shape[0] != output.shape[0]:
            hint = "leave out the mean over the rows: padding counts nothing"
            raise ConfigError("the loss is not one for each row", path="loss", expected="(n,)", got=losses.shape, hint=hint)
        return losses


def _found(loss: Loss) -> Any:
    if isinstance(loss, keras.losses.Loss):
        return loss
    if isinstance(loss, type) or not (isinstance(loss, str) or callable(loss)):
        hint = "SparseCategoricalCrossentropy() has brackets"
        raise ConfigError("a loss is a name, a function or a keras.losses.Loss", path="loss", got=repr(loss), hint=hint)
    if isinstance(loss, str):
        try:
            return _found(keras.losses.get(loss))
        except ValueError:
            raise ConfigError("Keras has no such loss", path="loss", got=repr(loss)) from None
    root, options = (loss.func, loss.keywords) if isinstance(loss, functools.partial) and not loss.args else (loss, {})
    if str(getattr(root, "__module__", "")).startswith("keras."):
        camel = "".join(part.capitalize() for part in root.__name__.split("_"))
        if (cls := getattr(keras.losses, camel, None)) is not None:
            return cls(**options)  # Keras's own function as the class of the same name, which says what it is
    return _Rows(loss)


def _column(output: Any, ndim: int) -> Any:
    """An output (n, 1) as one column where targets are (n,): together they would be stretched to (n, n)."""
    return output[..., 0] if len(output.shape) == ndim + 1 and output.shape[-1] == 1 else output
