"""W3, what a round costs besides training: clients that return 50 arrays, 100 MB in all, without computing anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.echo import Echo
from benchmarks.many_clients import Marked, rounds_of
from benchmarks.measure import Cost, Figure, Peak, alternate, cost_of, in_child, middle, ratio, shown
from hansa.core.job import Job
from hansa.core.trees import Array
from hansa.data.federated import FederatedRows, Rows, population
from hansa.simulation.engine import simulate

ARRAYS, CLIENTS = 50, 4
PLAIN = "float32 mean of 4 updates by hand, in numpy"


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload."""
    megabytes, rounds, repeats = (5, 3, 2) if small else (100, 6, 5)
    costs = alternate(
        {PLAIN: lambda: in_child(by_hand, megabytes, rounds), "hansa": lambda: in_child(exchange, megabytes, rounds)},
        repeats=repeats,
    )
    details = {"per round": shown(costs), "megabytes": megabytes, "arrays": ARRAYS, "clients": CLIENTS}
    few, many = (in_child(memory, megabytes, cohort, rounds) for cohort in (4, 16))
    peaks = {"cohort of 4, MB": round(few, 1), "cohort of 16, MB": round(many, 1), "model, MB": megabytes}
    return [
        Figure(
            "W3", f"round of {CLIENTS} x {megabytes} MB, loop", middle(costs["hansa"]).cpu_s, "CPU s", PLAIN, 0.3, "<=", details
        ),
        Figure("W3", "the same, as a ratio", ratio(costs["hansa"], costs[PLAIN]), "x CPU of baseline", PLAIN),
        Figure("W3", "peak memory, cohort of 16", many / few, "x cohort of 4", "cohort of 4", 1.05, "<=", peaks),
    ]


def shapes(megabytes: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a model of that size."""
    return {f"layer{i}.weight": (megabytes * 250_000 // ARRAYS,) for i in range(ARRAYS)}


def clients(count: int) -> FederatedRows:
    """Clients of one row."""
    return population(count, lambda _: Rows(np.zeros((1, 1), np.float32), np.zeros(1)))


def exchange(megabytes: int, rounds: int) -> Cost:
    """A round of Hansa."""
    marked = Marked(rounds_of(Echo(shapes(megabytes), own=False), rounds, None))
    simulate(Job("w3", marked), clients(CLIENTS), seed=0)
    return middle(marked.costs[1:])


def by_hand(megabytes: int, rounds: int) -> Cost:
    """A round without any check: a running float32 sum, divided, added to the model."""
    echo = Echo(shapes(megabytes), own=False)
    update, model = echo.made(1e-3), echo.made(0.0)
    updates: Sequence[dict[str, Array]] = [update] * CLIENTS

    def one_round() -> None:
        for name in model:
            total = np.zeros_like(model[name])
            for each in updates:
                total += each[name] * np.float32(1.0)
            model[name] = model[name] + total / np.float32(len(updates))

    return middle([cost_of(one_round) for _ in range(rounds)][1:])


def memory(megabytes: int, cohort: int, rounds: int) -> float:
    """MB at the peak of a run whose clients each make their own update, beyond what the process held before it."""
    peak = Peak()
    simulate(Job("w3", rounds_of(Echo(shapes(megabytes), own=True), rounds, None)), clients(cohort), seed=0)
    return peak.mb()
