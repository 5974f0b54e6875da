"""W8, the typed path: what tracing and planning cost, and a round of the tutorial's program against the same loop by hand."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure import Cost, Figure, alternate, cost_of, middle, shown
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_broadcast, federated_map, federated_mean, federated_sum
from hansa.core.plan import plan
from hansa.core.rng import generator
from hansa.core.trees import Array
from hansa.core.types import CLIENTS, SERVER, FederatedType, SequenceType, to_type
from hansa.document import planned
from hansa.local import local_computation

CLIENTS_OF_A_ROUND, BATCHES, ROWS, TENSORS = 10, 5, 20, 500
f32, i32 = np.float32, np.int32
WEIGHTS = to_type([(f32, [784, 10]), (f32, [10])])
DATA = SequenceType([(f32, [None, 784]), (i32, [None])])
Weights = list[Array]


def trained(weights: Weights, batches: Any) -> Weights:
    """A client's step for each batch: softmax regression, step size 0.01."""
    w, b = weights[0].copy(), weights[1].copy()
    for x, y in batches:
        scores = x @ w + b
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        error = scores / scores.sum(axis=1, keepdims=True)
        error[np.arange(len(y)), y] -= 1
        w -= f32(0.01 / len(y)) * (x.T @ error)
        b -= f32(0.01) * error.mean(axis=0)
    return [w, b]


def next_round() -> Any:
    """The tutorial's round, traced."""

    @local_computation(WEIGHTS, DATA)
    def client_update(weights: Any, batches: Any) -> [(f32, [784, 10]), (f32, [10])]:  # type: ignore[valid-type]  # a type of ours
        return trained(weights, batches)

    @federated_computation(FederatedType(WEIGHTS, SERVER), FederatedType(DATA, CLIENTS))
    def next_fn(server_weights: Any, federated_dataset: Any) -> Any:
        return federated_mean(federated_map(client_update, (federated_broadcast(server_weights), federated_dataset)))

    return next_fn


def by_hand(weights: Weights, clients: Any) -> Weights:
    """The same round as a plain loop, folded in float64."""
    totals = [np.zeros(w.shape) for w in weights]
    for batches in clients:
        for total, w in zip(totals, trained(weights, batches), strict=True):
            total += w
    return [(total / len(clients)).astype(f32) for total in totals]


def struct_of_many() -> None:
    """A struct of many tensors, traced and unpacked."""
    kind = FederatedType([(f"t{i}", (f32, [2])) for i in range(TENSORS)], CLIENTS)
    federated_computation(lambda x: federated_mean(list(x)), kind)


def round_of_many() -> None:
    """A round whose model has many tensors, traced and planned."""
    kind = [(f"t{i}", (f32, [2])) for i in range(TENSORS)]

    def body(model: Any, data: Any) -> Any:
        moved = federated_map(lambda own, other: {**own, **other}, (federated_broadcast(model), data))
        return federated_mean(list(data)), federated_sum(moved)

    planned(plan(federated_computation(body, FederatedType(kind, SERVER), FederatedType(kind, CLIENTS))))


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload, in CPU ms."""
    repeats = 3 if small else 25
    rng = generator(0, purpose="W8")
    weights = [np.zeros((784, 10), f32), np.zeros(10, f32)]
    clients = [
        [(rng.normal(size=(ROWS, 784)).astype(f32), rng.integers(0, 10, ROWS).astype(i32)) for _ in range(BATCHES)]
        for _ in range(CLIENTS_OF_A_ROUND)
    ]
    traced = next_round()
    works = {
        "typed": partial(cost_of, lambda: [traced(weights, clients) for _ in range(10)], 10),
        "by hand": partial(cost_of, lambda: [by_hand(weights, clients) for _ in range(10)], 10),
        "trace": partial(cost_of, lambda: [planned(plan(next_round())) for _ in range(10)], 10),
        "unpack": partial(cost_of, struct_of_many),
        "plan": partial(cost_of, round_of_many),
    }
    costs: dict[str, list[Cost]] = alternate(works, repeats=repeats)
    if importlib.util.find_spec("jax"):
        from benchmarks import tracing_jax

        costs |= alternate(tracing_jax.works(WEIGHTS, DATA, weights, clients), repeats=repeats)
    ms = {name: middle(each).cpu_s * 1e3 for name, each in costs.items()}
    details = {"runs": shown(costs)}
    in_jax = ms.get("typed, JAX", 0) / ms.get("plain, JAX", 1)
    loop = "the same loop with a jitted step"
    return [
        *([Figure("W8", "tutorial's round in JAX, typed", in_jax, "x of the loop", loop, 1.3)] if in_jax else []),
        Figure("W8", "tutorial's round, trace and plan", ms["trace"], "CPU ms", "", 50, details=details),
        Figure("W8", f"struct of {TENSORS} tensors, trace and unpack", ms["unpack"], "CPU ms", "", 100),
        Figure("W8", f"round of {TENSORS} tensors, trace and plan", ms["plan"], "CPU ms", "", 50),
        Figure("W8", "tutorial's round, typed", ms["typed"] / ms["by hand"], "x of the loop", "the same loop by hand", 1.1),
        Figure("W8", "tutorial's rounds in NumPy", 1e3 / ms["typed"], "a CPU second", "", 150, ">="),
    ]
