"""KerasLearner against the suite of every Learner: a softmax regression, and a deep binary model.

On the framework that KERAS_BACKEND names; test_keras.py runs this file on the others.
"""

from typing import Any

import pytest

keras = pytest.importorskip("keras", reason="the keras extra is not installed")

from hansa.adapters.keras import KerasLearner  # noqa: E402  after importorskip
from hansa.core.protocols import Learner  # noqa: E402
from hansa.testing.contracts import LearnerContract  # noqa: E402


def linear() -> Any:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def deep() -> Any:
    x = keras.Input((4,))
    hidden = keras.layers.Dense(8, activation="tanh")(x)
    return keras.Model(x, keras.layers.Dense(1, activation="sigmoid")(hidden))


class TestASoftmaxRegression(LearnerContract):
    def learner(self) -> Learner:
        return KerasLearner(linear, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), lr=0.1)


class TestADeepBinaryModel(LearnerContract):
    def learner(self) -> Learner:
        return KerasLearner(deep, loss="binary_crossentropy", lr=0.1)
