"""Local training and evaluation of a VariableModel as local computations: what a round of learning does at a client."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from hansa.adapters.tensorflow.models import VariableModel
from hansa.core.types import SequenceType, StructType, TensorType, Type, to_type
from hansa.errors import TraceError
from hansa.local import LocalComputation, local_computation

ModelFn = Callable[[], VariableModel]


class ModelWeights(NamedTuple):
    """A model's weights in their order: what gradients move, and what they do not."""

    trainable: Sequence[Any]
    non_trainable: Sequence[Any]

    @staticmethod
    def from_model(model: Any) -> ModelWeights:
        """The weights of a VariableModel or of a Keras model."""
        kept = model.non_trainable_variables if isinstance(model, VariableModel) else model.non_trainable_weights
        return ModelWeights(list(model.trainable_variables), list(kept))

    def assign_weights_to(self, model: Any) -> None:
        """Set the weights of a VariableModel or of a Keras model.

        Raises:
            TraceError: the model has other weights.
        """
        for mine, theirs in zip(self, ModelWeights.from_model(model), strict=True):
            if len(mine) != len(theirs):
                raise TraceError("the model has another number of weights", expected=len(theirs), got=len(mine))
            for value, variable in zip(mine, theirs, strict=True):
                variable.assign(value)


class Trained(NamedTuple):
    """What leaves a client: the change of the trainable weights, its weight, and the sums of the metrics."""

    update: Any
    update_weight: Any
    metrics: Any


class Optimizer(Protocol):
    """Pure functions on lists of tensors, such as `hansa.learning.step_rules` makes."""

    def initialize(self, specs: Sequence[Any], /) -> Any: ...
    def next(self, state: Any, weights: Sequence[Any], gradients: Sequence[Any], /) -> tuple[Any, list[Any]]: ...
    def get_hparams(self, state: Any, /) -> Any: ...
    def set_hparams(self, state: Any, hparams: Any, /) -> Any: ...


class KerasOptimizer:
    """A Keras optimizer as pure functions: its variables are the state. It has no hyper-parameters that a server could set."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def initialize(self, specs: Sequence[Any]) -> Any:
        """The first values of its variables."""
        return [tf.convert_to_tensor(v) for v in self._built([tf.zeros(spec.shape, spec.dtype) for spec in specs])[0].variables]

    def next(self, state: Any, weights: Sequence[Any], gradients: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The values of its variables and the weights after a step."""
        optimizer, moved = self._built(weights)
        for variable, value in zip(optimizer.variables, state, strict=True):
            variable.assign(value)
        optimizer.apply_gradients(zip(gradients, moved, strict=True))
        return [tf.convert_to_tensor(v) for v in optimizer.variables], [tf.convert_to_tensor(v) for v in moved]

    def get_hparams(self, state: Any) -> Any:  # noqa: ARG002  of the protocol
        """Nothing."""
        return ()

    def set_hparams(self, state: Any, hparams: Any) -> Any:  # noqa: ARG002  of the protocol
        """The state as it is."""
        return state

    def _built(self, weights: Sequence[Any]) -> tuple[Any, list[Any]]:
        moved = [tf.Variable(w) for w in weights]
        optimizer = self._make()
        optimizer.build(moved)
        return optimizer, moved


def initial_weights(model_fn: ModelFn) -> LocalComputation:
    """`( -> <trainable=<...>,non_trainable=<...>>)`: the weights of a new model."""

    def initial_model_weights() -> ModelWeights:
        return ModelWeights.from_model(model_fn())

    made: LocalComputation = local_computation(initial_model_weights, backend="tensorflow")
    return made


def data_type(model_fn: ModelFn) -> Type:
    """The type of a client's data: a sequence of batches."""
    kind = to_type(model_fn().input_spec)
    return kind if isinstance(kind, SequenceType) else SequenceType(kind)


def local_training(
    model_fn: ModelFn, optimizer: Optimizer, *, weights: Type, hparams: Type, proximal: float = 0.0
) -> LocalComputation:
    """`(<weights=W,hparams=H,data=D*> -> <update=U,update_weight=float32,metrics=M>)`: a pass over a client's batches.

    `proximal` pulls towards the server's weights (FedProx's mu). A change that is not finite counts nothing.
    """

    def client_work(weights: Any, hparams: Any, data: Any) -> Trained:
        model = model_fn()
        start = ModelWeights(*weights)
        start.assign_weights_to(model)
        trained = list(model.trainable_variables)

        def step(flat: Any, batch: Any) -> Any:
            state = tf.nest.pack_sequence_as(first, flat)
            now = [tf.convert_to_tensor(v) for v in trained]
            with tf.GradientTape() as tape:
                loss = model.forward_pass(batch, training=True).loss
            gradients = tape.gradient(loss, trained)
            if proximal:
                gradients = [g + proximal * (w - w0) for g, w, w0 in zip(gradients, now, start.trainable, strict=True)]
            state, moved = optimizer.next(state, now, gradients)
            for variable, value in zip(trained, moved, strict=True):
                variable.assign(value)
            return tuple(tf.nest.flatten(state))

        first = optimizer.set_hparams(optimizer.initialize(start.trainable), hparams)
        flat = tuple(tf.convert_to_tensor(each) for each in tf.nest.flatten(first))  # to tf.data a list is one tensor
        done = data.reduce(flat, step)
        with tf.control_dependencies(tf.nest.flatten(done)):
            after = [tf.convert_to_tensor(v) for v in trained]
        change = [new - old for new, old in zip(after, start.trainable, strict=True)]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in change])
        metrics = model.report_local_unfinalized_metrics()
        examples = tf.cast(metrics["num_examples"], tf.float32)
        return Trained([tf.where(finite, each, tf.zeros_like(each)) for each in change], tf.where(finite, examples, 0.0), metrics)

    made: LocalComputation = local_computation(client_work, weights, hparams, data_type(model_fn), backend="tensorflow")
    return made


def local_evaluation(model_fn: ModelFn, *, weights: Type) -> LocalComputation:
    """`(<weights=W,data=D*> -> M)`: the sums of the metrics over a client's batches."""

    def evaluation(weights: Any, data: Any) -> Any:
        model = model_fn()
        ModelWeights(*weights).assign_weights_to(model)

        def step(count: Any, batch: Any) -> Any:
            model.forward_pass(batch, training=False)
            return count + 1

        with tf.control_dependencies([data.reduce(tf.constant(0), step)]):
            return model.report_local_unfinalized_metrics()

    made: LocalComputation = local_computation(evaluation, weights, data_type(model_fn), backend="tensorflow")
    return made


def finalize_metrics(model_fn: ModelFn, sums: Type) -> LocalComputation:
    """`(M -> <loss=float32,...>)`: the values of the metrics' sums."""

    def finalized(sums: Any) -> Any:
        return OrderedDict((name, finalizer(sums[name])) for name, finalizer in model_fn().metric_finalizers().items())

    made: LocalComputation = local_computation(finalized, sums, backend="tensorflow")
    return made


def first_optimizer_state(optimizer: Optimizer, weights: Type) -> LocalComputation:
    """`( -> S)`: the state of an optimizer for trainable weights of this type."""

    def optimizer_state() -> Any:
        return optimizer.initialize(specs(weights))

    made: LocalComputation = local_computation(optimizer_state, backend="tensorflow")
    return made


def server_step(optimizer: Optimizer, *, state: Type, weights: Type, update: Type) -> LocalComputation:
    """`(<state=S,weights=W,update=U> -> <S,W,<update_non_finite=int32>>)`: a step along the update, none where it is not finite."""

    def finalizer(state: Any, weights: Any, update: Any) -> Any:
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in update])
        after, moved = optimizer.next(state, weights.trainable, [-each for each in update])
        chosen = tf.nest.map_structure(
            lambda new, old: tf.where(finite, new, old), [after, moved], [state, list(weights.trainable)]
        )
        told = OrderedDict(update_non_finite=tf.cast(tf.logical_not(finite), tf.int32))
        return chosen[0], ModelWeights(chosen[1], weights.non_trainable), told

    made: LocalComputation = local_computation(finalizer, state, weights, update, backend="tensorflow")
    return made


def specs(weights: Type) -> list[Any]:
    """The TensorSpecs of the trainable weights."""
    trainable = weights[0] if isinstance(weights, StructType) else weights
    kinds = [kind for kind in trainable.children() if isinstance(kind, TensorType)]
    return [tf.TensorSpec(kind.shape, tf.as_dtype(kind.dtype)) for kind in kinds]
