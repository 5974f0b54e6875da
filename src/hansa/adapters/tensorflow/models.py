"""Models of Keras as TensorFlow Federated's programs use them: weights in two lists, and a forward pass that gives the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from hansa.core.types import SequenceType, StructType, to_type
from hansa.errors import TraceError


class BatchOutput(NamedTuple):
    """What a forward pass gives: the mean loss, the predictions, and how many examples there were."""

    loss: Any
    predictions: Any
    num_examples: Any


class VariableModel(ABC):
    """A model that holds its weights in variables, and the sums of its metrics in others."""

    @property
    @abstractmethod
    def trainable_variables(self) -> Sequence[Any]:
        """What gradients move."""

    @property
    @abstractmethod
    def non_trainable_variables(self) -> Sequence[Any]:
        """What a forward pass moves, such as running means."""

    @property
    @abstractmethod
    def local_variables(self) -> Sequence[Any]:
        """The sums of the metrics."""

    @property
    @abstractmethod
    def input_spec(self) -> Any:
        """The TensorSpecs of a batch: of x and y."""

    @abstractmethod
    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """The loss on a batch; its metrics are added up."""

    @abstractmethod
    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        """The predictions for x."""

    @abstractmethod
    def report_local_unfinalized_metrics(self) -> OrderedDict[str, Any]:
        """The sums of each metric, by its name."""

    @abstractmethod
    def metric_finalizers(self) -> OrderedDict[str, Callable[[Any], Any]]:
        """For each metric the function from its sums to its value."""

    @abstractmethod
    def reset_metrics(self) -> None:
        """Set all sums to zero."""


def from_keras_model(
    keras_model: Any, loss: Any, input_spec: Any, loss_weights: Any = None, metrics: Sequence[Any] | Callable[[], Any] | None = None
) -> VariableModel:
    """A Keras model with one output as a VariableModel.

    `loss` is a Keras loss or any function (y, predictions) -> number; `input_spec` the specification of a batch: a tuple or list
    (x, y), a mapping with x and y, or a type of Hansa's.

    Raises:
        TraceError: the specification has other than x and y; the model has no weights yet, or several outputs.
    """
    if loss_weights is not None or isinstance(loss, list | dict):
        raise TraceError("a model has one output and one loss here", path="loss", got=repr(loss), hint="write a VariableModel")
    if not getattr(keras_model, "built", True):
        raise TraceError("the Keras model has no weights yet", path="keras_model", hint="begin it with keras.Input, or build it")
    return _Keras(keras_model, loss, input_spec, metrics() if callable(metrics) else list(metrics or ()))


class _Keras(VariableModel):
    def __init__(self, model: Any, loss: Any, input_spec: Any, metrics: Sequence[Any]) -> None:
        kind = to_type(input_spec)
        kind = kind.element if isinstance(kind, SequenceType) else kind
        if not isinstance(kind, StructType) or len(kind) != 2 or set(kind.fields()) - {"x", "y"}:
            raise TraceError("a batch is x and y", path="input_spec", got=kind, expected="a pair, or the fields x and y")
        self._model, self._loss, self._spec, self._own = model, loss, input_spec, list(metrics)
        self._sums = OrderedDict(loss=tf.keras.metrics.Mean(name="loss"))
        self._counts = OrderedDict(
            num_examples=tf.Variable(0, trainable=False, dtype=tf.int64, name="num_examples"),
            num_batches=tf.Variable(0, trainable=False, dtype=tf.int64, name="num_batches"),
        )

    @property
    def trainable_variables(self) -> Sequence[Any]:
        return list(self._model.trainable_variables)

    @property
    def non_trainable_variables(self) -> Sequence[Any]:
        return list(self._model.non_trainable_weights)  # Keras counts random generators to its variables, not to its weights

    @property
    def local_variables(self) -> Sequence[Any]:
        return [v for metric in self._metrics for v in metric.variables] + list(self._counts.values())

    @property
    def input_spec(self) -> Any:
        return self._spec

    @property
    def _metrics(self) -> list[Any]:
        return [*self._own, *self._sums.values()]

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        x, y = (batch_input["x"], batch_input["y"]) if isinstance(batch_input, Mapping) else batch_input
        predictions = self._model(x, training=training)
        loss = tf.reduce_mean(self._loss(y, predictions))
        count = tf.shape(tf.nest.flatten(y)[0])[0]
        for metric in self._own:
            metric.update_state(y, predictions)
        self._sums["loss"].update_state(loss, tf.cast(count, tf.float32))
        self._counts["num_examples"].assign_add(tf.cast(count, tf.int64))
        self._counts["num_batches"].assign_add(1)
        return BatchOutput(loss, predictions, count)

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        return self._model(x, training=training)

    def report_local_unfinalized_metrics(self) -> OrderedDict[str, Any]:
        sums = [(metric.name, [tf.convert_to_tensor(v) for v in metric.variables]) for metric in self._metrics]
        return OrderedDict([*sums, *((name, tf.convert_to_tensor(v)) for name, v in self._counts.items())])

    def metric_finalizers(self) -> OrderedDict[str, Callable[[Any], Any]]:
        finalizers = [(metric.name, _finalizer(metric)) for metric in self._metrics]
        return OrderedDict([*finalizers, *((name, tf.identity) for name in self._counts)])

    def reset_metrics(self) -> None:
        for metric in self._metrics:
            metric.reset_state()
        for count in self._counts.values():
            count.assign(0)


def _finalizer(metric: Any) -> Callable[[Any], Any]:
    """The value of a metric's sums, by a new metric of the same settings."""

    def finalize(sums: Any) -> Any:
        new = type(metric).from_config(metric.get_config())
        for variable, value in zip(new.variables, sums, strict=True):
            variable.assign(value)
        return new.result()

    return finalize
