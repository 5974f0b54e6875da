"""Clients trained together get what a plain loop in float64 gives each of them, whatever their sizes and settings."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.adapters.numpy import softmax
from hansa.core import trees
from hansa.core.protocols import FitConfig
from hansa.core.rng import generator
from hansa.core.trees import Array
from hansa.testing.contracts import SplitRows, blobs


def plain_loop(data: SplitRows, rng: np.random.Generator, *, lr: float, steps: int, batch: int) -> tuple[Array, Array]:
    w, b, n = np.zeros((4, 2)), np.zeros(2), len(data)
    rows: list[Array] = []
    while len(rows) < steps:
        order = rng.permutation(n) if batch else np.arange(n)
        rows += [order[first : first + (batch or n)] for first in range(0, n, batch or n)]
    for chosen in rows[:steps]:
        x = data.x[chosen].astype(np.float64)
        p = np.exp(x @ w + b)
        error = (p / p.sum(axis=1, keepdims=True) - np.eye(2)[data.y[chosen]]) / len(chosen)
        w, b = w - lr * x.T @ error, b - lr * error.sum(axis=0)
    return w, b


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    batch=st.integers(0, 12),
    steps=st.integers(1, 8),
    rates=st.lists(st.floats(0.01, 0.5), min_size=6, max_size=6),
)
def test_batched_training_is_the_plain_loop(sizes: list[int], batch: int, steps: int, rates: list[float]) -> None:
    learner = softmax(2, 4)
    model, datasets = learner.init(generator(0)), [blobs(n, seed=n) for n in sizes]
    configs = [FitConfig(lr=lr, steps=steps, batch=batch) for lr in rates[: len(sizes)]]
    updates = learner.fit_many([model] * len(sizes), datasets, configs, rngs=[generator(1, slot=i) for i in range(len(sizes))])
    for i, (data, config, update) in enumerate(zip(datasets, configs, updates, strict=True)):
        w, b = plain_loop(data, generator(1, slot=i), lr=config.lr or 0.0, steps=steps, batch=batch)
        want = {"weight": w, "bias": b}
        assert update.steps == steps
        assert trees.norm(trees.map(np.subtract, update.delta, want)) <= 1e-5 * trees.norm(want)
