"""A function that builds its model begins with a new one in each call, traced once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from hansa.adapters.tensorflow.variables import fresh_variables  # noqa: E402  TensorFlow first, or there is nothing to test


def test_a_keras_model_and_its_optimizer_are_built_anew_in_each_call_of_one_graph() -> None:
    traced = []

    def step(x: Any, y: Any) -> Any:
        traced.append(x)
        model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1, kernel_initializer="ones")])
        optimizer = tf.keras.optimizers.SGD(0.1, momentum=0.9)
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))
        return [tf.convert_to_tensor(v) for v in (*model.trainable_variables, optimizer.iterations)]

    def fresh(x: Any, y: Any) -> Any:
        with fresh_variables():
            return step(x, y)

    graph = tf.function(fresh, autograph=False)
    x, y = tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[5.0], [6.0]])
    first, second = graph(x, y), graph(x, y)
    assert len(traced) == 1
    for one, other, eager in zip(first, second, step(x, y), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, eager, rtol=1e-6)
    assert int(first[2]) == 2


def test_a_variable_that_is_made_where_nothing_is_traced_is_an_ordinary_one() -> None:
    with fresh_variables():
        kept = tf.Variable(1.0)
    kept.assign_add(1.0)
    assert float(kept) == 2.0
