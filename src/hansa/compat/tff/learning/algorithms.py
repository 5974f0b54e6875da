"""`tff.learning.algorithms`: federated averaging of a Keras model, with FedProx's pull or without, and federated evaluation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np

from hansa.aggregators import MeanFactory, UnweightedMeanFactory, as_weighted_aggregator
from hansa.core.computation import federated_computation
from hansa.core.graph import member_of
from hansa.core.intrinsics import federated_broadcast, federated_eval, federated_map, federated_sum, federated_value, federated_zip
from hansa.core.types import CLIENTS, SERVER, FederatedType, StructType, TensorType, Type
from hansa.errors import ConfigError
from hansa.learning.processes import LearningAlgorithmState, LearningProcess
from hansa.learning.state import LearningProcessOutput
from hansa.learning.step_rules import build_sgdm
from hansa.local import LocalComputation, local_computation
from hansa.templates import AggregationFactory, UnweightedAggregationFactory
from hansa.templates.iterative import called

FLOAT = TensorType(np.float32)


def build_weighted_fed_avg(
    model_fn: Callable[[], Any],
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    model_aggregator: AggregationFactory | None = None,
    loop_implementation: object = None,  # noqa: ARG001  how TFF would trace the loop: there is one way here
) -> LearningProcess:
    """Federated averaging weighted by examples (McMahan 2017): each client makes a pass over its batches.

    Optimizers are those of `tff.learning.optimizers`, or functions without arguments that make Keras optimizers; the server's is
    SGD with learning rate 1 where none is said. `model_aggregator` is any factory of `tff.aggregators`.
    """
    return _averaging(model_fn, client_optimizer_fn, server_optimizer_fn, model_aggregator or MeanFactory())


def build_unweighted_fed_avg(
    model_fn: Callable[[], Any],
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    model_aggregator: UnweightedAggregationFactory | None = None,
    loop_implementation: object = None,  # noqa: ARG001  how TFF would trace the loop: there is one way here
) -> LearningProcess:
    """`build_weighted_fed_avg` in which each client counts the same."""
    return _averaging(model_fn, client_optimizer_fn, server_optimizer_fn, model_aggregator or UnweightedMeanFactory())


def build_weighted_fed_prox(
    model_fn: Callable[[], Any],
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    model_aggregator: AggregationFactory | None = None,
    loop_implementation: object = None,  # noqa: ARG001  how TFF would trace the loop: there is one way here
) -> LearningProcess:
    """`build_weighted_fed_avg` whose clients are pulled towards the server's weights (Li 2020).

    Raises:
        ConfigError: the strength is negative.
    """
    if not proximal_strength >= 0:
        raise ConfigError("a proximal strength is at least 0", path="proximal_strength", got=proximal_strength)
    aggregator = model_aggregator or MeanFactory()
    return _averaging(model_fn, client_optimizer_fn, server_optimizer_fn, aggregator, proximal=proximal_strength)


def build_fed_eval(model_fn: Callable[[], Any]) -> LearningProcess:
    """The metrics of a model at the clients: `metrics.client_work.eval` has those of the round and of all rounds so far."""
    from hansa.adapters.tensorflow import training as tf_training

    initial = tf_training.initial_weights(model_fn)
    weights = initial.type_signature.result
    evaluate = tf_training.local_evaluation(model_fn, weights=weights)
    data = evaluate.local.parameters[1][1]
    sums = evaluate.type_signature.result
    finalized = tf_training.finalize_metrics(model_fn, sums)
    nothing = local_computation(partial(_zeros, sums), returns=sums)
    both = local_computation(partial(_added, sums), sums, sums, returns=sums)

    @federated_computation
    def initialize() -> Any:
        empty = federated_value((), SERVER)
        parts = (federated_eval(initial, SERVER), empty, federated_eval(nothing, SERVER), empty, empty)
        return federated_zip(LearningAlgorithmState(*parts))

    state_type: Type = initialize.type_signature.result

    @federated_computation(state_type, FederatedType(data, CLIENTS))
    def next_round(state: Any, client_data: Any) -> LearningProcessOutput:
        found = federated_map(evaluate, (federated_broadcast(state.global_model_weights), client_data))
        here: Any = federated_sum(found)
        total = federated_map(both, (state.client_work, here))
        told = OrderedDict(
            current_round_metrics=federated_map(finalized, here), total_rounds_metrics=federated_map(finalized, total)
        )
        empty = federated_value((), SERVER)
        after = LearningAlgorithmState(state.global_model_weights, state.distributor, total, state.aggregator, state.finalizer)
        parts = OrderedDict(distributor=empty, client_work=OrderedDict(eval=told), aggregator=empty, finalizer=empty)
        return LearningProcessOutput(federated_zip(after), federated_zip(parts))

    return LearningProcess(initialize, next_round, *_access(member_of(state_type)))


def _averaging(
    model_fn: Callable[[], Any], client_optimizer: Any, server_optimizer: Any, factory: AggregationFactory, *, proximal: float = 0.0
) -> LearningProcess:
    from hansa.adapters.tensorflow import training as tf_training

    client, server = _optimizer(client_optimizer), _optimizer(server_optimizer or build_sgdm(1.0))
    initial = tf_training.initial_weights(model_fn)
    weights = initial.type_signature.result
    hparams = local_computation(lambda: client.get_hparams(client.initialize(tf_training.specs(weights))), backend="tensorflow")
    train = tf_training.local_training(model_fn, client, weights=weights, hparams=hparams.type_signature.result, proximal=proximal)
    data, result = train.local.parameters[2][1], cast(StructType, train.type_signature.result)
    update, sums = result[0], result[2]
    finalized = tf_training.finalize_metrics(model_fn, sums)
    weighted = as_weighted_aggregator(factory) if isinstance(factory, UnweightedAggregationFactory) else factory
    aggregation = weighted.create(update, FLOAT)
    first = tf_training.first_optimizer_state(server, weights)
    step = tf_training.server_step(server, state=first.type_signature.result, weights=weights, update=update)

    @federated_computation
    def initialize() -> Any:
        return federated_zip(
            LearningAlgorithmState(
                federated_eval(initial, SERVER),
                federated_value((), SERVER),
                federated_eval(hparams, SERVER),
                called(aggregation.initialize),
                federated_eval(first, SERVER),
            )
        )

    state_type: Type = initialize.type_signature.result

    @federated_computation(state_type, FederatedType(data, CLIENTS))
    def next_round(state: Any, client_data: Any) -> LearningProcessOutput:
        sent = (federated_broadcast(state.global_model_weights), federated_broadcast(state.client_work), client_data)
        work: Any = federated_map(train, sent)
        added = called(aggregation.next, state.aggregator, work.update, work.update_weight)
        final: Any = federated_map(step, (state.finalizer, state.global_model_weights, added.result))
        told = OrderedDict(
            distributor=federated_value((), SERVER),
            client_work=OrderedDict(train=federated_map(finalized, federated_sum(work.metrics))),
            aggregator=added.measurements,
            finalizer=final[2],
        )
        after = LearningAlgorithmState(final[1], state.distributor, state.client_work, added.state, final[0])
        return LearningProcessOutput(federated_zip(after), federated_zip(told))

    return LearningProcess(initialize, next_round, *_access(member_of(state_type)))


def _optimizer(given: Any) -> Any:
    """Pure functions: as they are, or of a function that makes Keras optimizers."""
    from hansa.adapters.tensorflow.training import KerasOptimizer

    if all(hasattr(given, name) for name in ("initialize", "next", "get_hparams")):
        return given
    if not callable(given):
        hint = "tff.learning.optimizers.build_sgdm(0.02), or lambda: tf.keras.optimizers.SGD(0.02)"
        raise ConfigError("not an optimizer", got=type(given).__name__, hint=hint)
    return KerasOptimizer(given)


def _access(state: Any) -> tuple[LocalComputation, LocalComputation]:
    """`get_model_weights` and `set_model_weights`."""

    def get_model_weights(state: Any) -> Any:
        return state.global_model_weights

    def set_model_weights(state: Any, weights: Any) -> Any:
        return state._replace(global_model_weights=weights)

    weights = state[0]
    return (
        local_computation(get_model_weights, state, returns=weights),
        local_computation(set_model_weights, state, weights, returns=state),
    )


def _zeros(kind: Type) -> Any:
    if isinstance(kind, StructType):
        items = [_zeros(item) for item in kind]
        return OrderedDict(zip(kind.fields(), items, strict=True)) if kind.fields() else items
    return np.zeros([n or 0 for n in kind.shape or ()], kind.dtype) if isinstance(kind, TensorType) else None


def _added(kind: Type, one: Any, other: Any) -> Any:
    if not isinstance(kind, StructType):
        return one + other
    if kind.fields():
        return OrderedDict((name, _added(kind[name], one[name], other[name])) for name in kind.fields())
    return [_added(item, a, b) for item, a, b in zip(kind, one, other, strict=True)]
