"""W2, few silos with a network: 8 clients of 1000 rows, a CNN, an epoch of Adam in batches of 32."""

from __future__ import annotations

import torch

from benchmarks import fashion, plain
from benchmarks.many_clients import Marked, rounds_of
from benchmarks.measure import Cost, Figure, Stopwatch, alternate, in_child, ratio, shown
from hansa.adapters.torch import TorchLearner
from hansa.core.job import Job
from hansa.simulation.engine import simulate

CLIENTS, BATCH, LR, WORKERS = 8, 32, 1e-3, 2
PLAIN = "plain torch loop, 1 thread"


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload. Each run has a fresh process; its first round, which warms up, is not counted."""
    each, rounds, repeats = (64, 2, 1) if small else (1000, 3, 3)
    costs = alternate(
        {
            PLAIN: lambda: in_child(by_hand, each, rounds),
            "pool of 2": lambda: in_child(pool, each, rounds),
        },
        repeats=repeats,
    )
    details = {"per round": shown(costs), "data": fashion.source(), "clients": CLIENTS, "rows each": each}
    cpu, wall = (ratio(costs["pool of 2"], costs[PLAIN], wall=wall) for wall in (False, True))
    return [
        Figure("W2", "CNN, pool of 2 workers, CPU", cpu, "x CPU of baseline", PLAIN, 1.03, "<=", details),
        Figure("W2", "CNN, pool of 2 workers, wall", wall, "x wall of baseline", PLAIN, 0.55, "<="),
    ]


def by_hand(each: int, rounds: int) -> Cost:
    """A round of the baseline."""
    x, y = (torch.from_numpy(part) for part in fashion.rows(CLIENTS * each))
    shards = [(x[i : i + each], y[i : i + each]) for i in range(0, len(x), each)]
    marks: list[Stopwatch] = []
    plain.federated_averaging(
        plain.cnn,
        shards,
        rounds=rounds,
        cohort=CLIENTS,
        batch=BATCH,
        optimizer=lambda p: torch.optim.Adam(p, lr=LR),
        round_done=lambda: marks.append(Stopwatch()),
    )
    return marks[0].until(marks[-1]) / (rounds - 1)


def pool(each: int, rounds: int) -> Cost:
    """A round of Hansa on two worker processes."""
    x, y = fashion.rows(CLIENTS * each)
    learner = TorchLearner(plain.cnn, loss=torch.nn.functional.cross_entropy, lr=LR, batch=BATCH, optimizer="adam", device="cpu")
    marked = Marked(rounds_of(learner, rounds, None))
    simulate(Job("w2", marked), fashion.clients(x, y, each=each), seed=0, engine="pool", workers=WORKERS)
    later = marked.costs[1:]
    return Cost(sum(c.cpu_s for c in later), sum(c.wall_s for c in later)) / len(later)
