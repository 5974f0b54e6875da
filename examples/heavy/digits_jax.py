"""The digits of examples/digits.py in JAX: a model is two functions, and a site's whole training is one compiled call."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

import hansa as hs
from hansa.adapters.jax import JaxLearner
from hansa.data import datasets, partition
from hansa.learning import fedavg


def init(key: Any) -> dict[str, Any]:
    return {"weight": 0.01 * jax.random.normal(key, (64, 10)), "bias": jnp.zeros(10)}


def apply(params: dict[str, Any], x: Any) -> Any:
    return x.reshape(len(x), -1) @ params["weight"] + params["bias"]


learner = JaxLearner(init, apply, loss=optax.softmax_cross_entropy_with_integer_labels, lr=0.1, epochs=1)
job = hs.Job("digits-jax", fedavg(learner, rounds=2 if "--small" in sys.argv else 20, cohort=10), data="digits")

if __name__ == "__main__":
    shards = partition.dirichlet(datasets.digits(), sites=100, alpha=0.3, seed=0)
    print(hs.simulate(job, {"digits": shards}, seed=0).metrics[-1])
