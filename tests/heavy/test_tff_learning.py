"""`tff.learning` over Keras models: TensorFlow Federated's types and values."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

import hansa.compat.tff as tff
from hansa.errors import HansaError

SPEC = (tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((None, 1), tf.float32))
A = [([[1.0, 2.0]], [[5.0]]), ([[3.0, 4.0]], [[6.0]])]
B = [([[1.0, 2.0]], [[5.0]])]
SGD = tff.learning.optimizers.build_sgdm
algorithms = tff.learning.algorithms


def model_fn() -> Any:
    layers = [tf.keras.Input((2,)), tf.keras.layers.Dense(1, kernel_initializer="zeros")]
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(layers), loss=tf.keras.losses.MeanSquaredError(), input_spec=SPEC
    )


def after(process: Any, rounds: int) -> list[float]:
    state = process.initialize()
    for _ in range(rounds):
        state = process.next(state, [A, B]).state
    w, b = process.get_model_weights(state).trainable
    return [*w[:, 0].tolist(), *b.tolist()]


def test_federated_averaging_has_tffs_types() -> None:
    process = algorithms.build_weighted_fed_avg(model_fn, SGD(0.1))
    weights = "<trainable=<float32[2,1],float32[1]>,non_trainable=<>>"
    state = (
        f"<global_model_weights={weights},distributor=<>,client_work=<learning_rate=float32>,"
        "aggregator=<value_sum_process=<>,weight_sum_process=<>>,finalizer=<learning_rate=float32>>@SERVER"
    )
    metrics = (
        "<distributor=<>,client_work=<train=<loss=float32,num_examples=int64,num_batches=int64>>,"
        "aggregator=<mean_value=<>,mean_weight=<>>,finalizer=<update_non_finite=int32>>@SERVER"
    )
    assert str(process.initialize.type_signature) == f"( -> {state})"
    assert str(process.next.type_signature.result) == f"<state={state},metrics={metrics}>"
    output = process.next(process.initialize(), [A, B])
    assert float(output.metrics["client_work"]["train"]["loss"]) == pytest.approx(28.666666, rel=1e-6)
    assert int(output.metrics["client_work"]["train"]["num_examples"]) == 3
    again = process.next(output.state, [A, B])
    assert float(again.metrics["client_work"]["train"]["loss"]) == pytest.approx(60.675213, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: algorithms.build_weighted_fed_avg(model_fn, SGD(0.1)), [-2.016, -0.874667, 1.141333]),
        (lambda: algorithms.build_weighted_fed_avg(model_fn, lambda: tf.keras.optimizers.SGD(0.1)), [-2.016, -0.874667, 1.141333]),
        (lambda: algorithms.build_unweighted_fed_avg(model_fn, SGD(0.1)), [-1.144, -0.032001, 1.112]),
        (
            lambda: algorithms.build_weighted_fed_avg(model_fn, SGD(0.1), tff.learning.optimizers.build_adam(0.1)),
            [-0.199778, -0.199464, 0.199887],
        ),
        (
            lambda: algorithms.build_weighted_fed_avg(model_fn, SGD(0.1), lambda: tf.keras.optimizers.SGD(1.0, momentum=0.9)),
            [-3.276, -1.954667, 1.321333],
        ),
    ],
    ids=["weighted", "keras optimizers", "unweighted", "server adam", "server momentum of keras"],
)
def test_two_rounds_end_where_tffs_end(make: Any, expected: list[float]) -> None:
    assert after(make(), 2) == pytest.approx(expected, abs=2e-5)


def test_the_proximal_term_pulls_towards_the_servers_weights() -> None:
    # A's second gradient is [36, 48] and 12, and its weights before it are [1, 2] and 1: half of those is added.
    expected = [(2 * (1 - 3.65) + 1) / 3, (2 * (2 - 4.9) + 2) / 3, (2 * (1 - 1.25) + 1) / 3]
    assert after(algorithms.build_weighted_fed_prox(model_fn, 0.5, SGD(0.1)), 1) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(HansaError, match="proximal_strength"):
        algorithms.build_weighted_fed_prox(model_fn, -1.0, SGD(0.1))


def test_weights_go_to_a_keras_model_and_come_from_one_and_are_evaluated_at_the_clients() -> None:
    process, evaluation = algorithms.build_weighted_fed_avg(model_fn, SGD(0.1)), algorithms.build_fed_eval(model_fn)
    state = process.next(process.initialize(), [A, B]).state
    keras_model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    process.get_model_weights(state).assign_weights_to(keras_model)
    np.testing.assert_allclose(keras_model.predict(np.array([[1.0, 2.0]]), verbose=0), [[-1.4 - 2 * 1.2 + 0.2]], rtol=1e-5)

    first = evaluation.initialize()
    asked = evaluation.set_model_weights(first, process.get_model_weights(state))
    once = evaluation.next(asked, [A, B])
    twice = evaluation.next(evaluation.set_model_weights(once.state, process.get_model_weights(process.initialize())), [B])
    now, total = (twice.metrics["client_work"]["eval"][name] for name in ("current_round_metrics", "total_rounds_metrics"))
    assert float(now["loss"]) == 25.0
    assert (int(now["num_examples"]), int(total["num_examples"])) == (1, 4)
    losses = [(y[0][0] - (-1.4 * x[0][0] - 1.2 * x[0][1] + 0.2)) ** 2 for x, y in [*A, *B]]
    assert float(total["loss"]) == pytest.approx((sum(losses) + 25.0) / 4, rel=1e-5)

    other = process.set_model_weights(
        state, tff.learning.models.ModelWeights([np.ones((2, 1), np.float32), np.zeros(1, np.float32)], [])
    )
    assert float(process.get_model_weights(other).trainable[0].sum()) == 2.0


def test_a_client_whose_training_is_not_finite_counts_nothing() -> None:
    process = algorithms.build_weighted_fed_avg(model_fn, SGD(0.1))
    broken = [([[np.inf, 1.0]], [[1.0]])]
    one = process.next(process.initialize(), [B]).state.global_model_weights.trainable
    two = process.next(process.initialize(), [B, broken]).state.global_model_weights.trainable
    np.testing.assert_allclose(one[0], two[0], rtol=1e-6)


def test_a_model_whose_specification_is_not_x_and_y_is_refused() -> None:
    keras_model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    with pytest.raises(TypeError, match="a batch is x and y"):
        tff.learning.from_keras_model(keras_model, loss=tf.keras.losses.MeanSquaredError(), input_spec=SPEC[:1])
    with pytest.raises(HansaError, match=r"not an optimizer.*build_sgdm"):
        algorithms.build_weighted_fed_avg(model_fn, 0.1)


def test_a_process_composed_of_four_parts_with_a_clients_work_of_ones_own() -> None:
    templates, weights = tff.learning.templates, tff.tf_computation(lambda: tff.learning.models.ModelWeights.from_model(model_fn()))
    kind, data = cast(tff.StructType, weights.type_signature.result), tff.SequenceType(SPEC)

    @tff.tf_computation(kind, data)
    def clipped_training(weights: Any, dataset: Any) -> Any:
        model = model_fn()
        weights.assign_weights_to(model)
        variables = model.trainable_variables
        for batch in dataset:
            with tf.GradientTape() as tape:
                loss = model.forward_pass(batch).loss
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 1.0)
            for variable, gradient in zip(variables, gradients, strict=True):
                variable.assign_sub(0.1 * gradient)
        return templates.ClientResult([new - old for new, old in zip(variables, weights.trainable, strict=True)], tf.constant(1.0))

    @tff.federated_computation
    def nothing() -> Any:
        return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(tff.type_at_server(()), tff.type_at_clients(kind), tff.type_at_clients(data))
    def work(state: Any, weights: Any, client_data: Any) -> Any:
        result = tff.federated_map(clipped_training, (weights, client_data))
        return tff.templates.MeasuredProcessOutput(state, result, tff.federated_value((), tff.SERVER))

    process = templates.compose_learning_process(
        weights,
        templates.build_broadcast_process(kind),
        templates.ClientWorkProcess(nothing, work),
        tff.aggregators.MeanFactory().create(kind[0], tff.to_type(tf.float32)),
        templates.build_apply_optimizer_finalizer(SGD(1.0), kind),
    )
    output = process.next(process.initialize(), [A, B])
    assert (output.state.client_work, output.state.finalizer) == ((), OrderedDict(learning_rate=1.0))
    assert output.metrics == OrderedDict(
        distributor=(),
        client_work=(),
        aggregator=OrderedDict(mean_value=(), mean_weight=()),
        finalizer=OrderedDict(update_non_finite=0),
    )
    # Each first gradient is [-10, -20] and -10, of norm sqrt(600); A's second is clipped as well.
    first = 0.1 * np.array([10.0, 20.0, 10.0]) / np.sqrt(600)
    error = first @ [3.0, 4.0, 1.0] - 6.0
    second = -0.1 * np.sign(error) * np.array([3.0, 4.0, 1.0]) / np.sqrt(26.0)
    assert after(process, 1) == pytest.approx(first + second / 2, abs=1e-6)
    with pytest.raises(HansaError, match="not the type of model weights"):
        templates.build_apply_optimizer_finalizer(SGD(1.0), kind[0])
