"""W8 in JAX: the tutorial's round as a fold of a typed step, against a plain loop with the same step jitted."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import cost_of
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_broadcast, federated_map, federated_mean
from hansa.core.types import CLIENTS, SERVER, FederatedType, SequenceType, Type
from hansa.local import local_computation
from hansa.sequences import sequence_reduce


def step(weights: Any, batch: Any) -> Any:
    """A step of softmax regression, step size 0.01."""
    x, y = batch

    def loss(w: Any) -> Any:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x @ w[0] + w[1]), y[:, None], axis=1))

    return jax.tree.map(lambda w, g: w - 0.01 * g, weights, jax.grad(loss)(weights))


def typed(model: Type, data: SequenceType) -> Any:
    """The round, traced."""
    typed_step = local_computation(step, model, data.element, backend="jax")
    trained = federated_computation(lambda w, batches: sequence_reduce(batches, w, typed_step), model, data)
    return federated_computation(
        lambda w, rows: federated_mean(federated_map(trained, (federated_broadcast(w), rows))),
        FederatedType(model, SERVER),
        FederatedType(data, CLIENTS),
    )


def works(model: Type, data: SequenceType, weights: Any, clients: Any) -> dict[str, Any]:
    """What is measured in alternation; each is compiled before."""
    compiled, traced = jax.jit(step), typed(model, data)

    def plain() -> Any:
        sums = [np.zeros(w.shape) for w in weights]
        made = []
        for batches in clients:
            own = weights
            for batch in batches:
                own = compiled(own, batch)
            made.append(own)
        for own in made:
            for total, w in zip(sums, own, strict=True):
                total += np.asarray(w)
        return [(total / len(clients)).astype(np.float32) for total in sums]

    def rounds() -> Any:
        return traced(weights, clients)

    if not all(np.allclose(a, b, atol=1e-6) for a, b in zip(plain(), rounds(), strict=True)):
        raise SystemExit("the two rounds differ")
    return {
        "plain, JAX": partial(cost_of, lambda: [plain() for _ in range(10)], 10),
        "typed, JAX": partial(cost_of, lambda: [rounds() for _ in range(10)], 10),
    }
