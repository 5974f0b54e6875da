"""The digits of examples/digits.py as a Keras model, on TensorFlow, torch or JAX: KERAS_BACKEND=jax python digits_keras.py."""

import sys
from typing import Any

import keras

import hansa as hs
from hansa.adapters.keras import KerasLearner
from hansa.data import datasets, partition
from hansa.learning import fedavg


def net() -> Any:
    hidden = keras.layers.Dense(32, activation="relu")
    return keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), hidden, keras.layers.Dense(10)])


learner = KerasLearner(net, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), lr=0.2, batch=16)
job = hs.Job("digits-keras", fedavg(learner, rounds=2 if "--small" in sys.argv else 20, cohort=10), data="digits")

if __name__ == "__main__":
    shards = partition.dirichlet(datasets.digits(), sites=100, alpha=0.3, seed=0)
    result = hs.simulate(job, {"digits": shards}, seed=0)
    print(result.metrics[-1])

    model = net()
    learner.load(model, result.model)  # your own Keras model, trained
    print(keras.ops.shape(model(datasets.digits().x[:3])))
