"""JaxLearner against the suite of every Learner: a softmax regression, a deep binary model, and each step rule."""

from typing import Any

import pytest

jax = pytest.importorskip("jax", reason="the jax extra is not installed")

import jax.numpy as jnp  # noqa: E402  after importorskip
import optax  # noqa: E402

from hansa.adapters.jax import JaxLearner  # noqa: E402
from hansa.core.protocols import Learner  # noqa: E402
from hansa.testing.contracts import LearnerContract  # noqa: E402


def linear(key: Any) -> Any:
    return {"weight": 0.1 * jax.random.normal(key, (4, 2)), "bias": jnp.zeros(2)}


def logits(params: Any, x: Any) -> Any:
    return x @ params["weight"] + params["bias"]


def layers(key: Any) -> Any:
    first, second = jax.random.split(key)
    deep = [(jax.random.normal(first, (4, 8)), jnp.zeros(8)), (jax.random.normal(second, (8, 1)), jnp.zeros(1))]
    return {"layers": deep, "calls": jnp.zeros((), jnp.int32)}


def one_logit(params: Any, x: Any) -> Any:
    (w1, b1), (w2, b2) = params["layers"]
    return jnp.tanh(x @ w1 + b1) @ w2 + b2


class TestASoftmaxRegression(LearnerContract):
    def learner(self) -> Learner:
        return JaxLearner(linear, logits, loss=optax.softmax_cross_entropy_with_integer_labels, lr=0.1)


class TestADeepBinaryModelWithACounter(LearnerContract):
    def learner(self) -> Learner:
        return JaxLearner(layers, one_logit, loss=optax.sigmoid_binary_cross_entropy, lr=0.1)
