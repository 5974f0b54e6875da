"""W1, many tiny clients: 1000 clients of 60 rows, softmax 784x10, 100 sampled a round, an epoch of SGD in batches of 20."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import fashion, plain
from benchmarks.echo import Echo
from benchmarks.measure import Cost, Figure, Stopwatch, alternate, cost_of, middle, ratio, shown
from hansa.adapters.numpy import softmax
from hansa.adapters.torch import TorchLearner
from hansa.core.job import Job
from hansa.core.protocols import Federation, Learner
from hansa.core.workflow import Outcome
from hansa.data.federated import FederatedRows
from hansa.learning.fedavg import fedavg
from hansa.learning.rounds import Rounds
from hansa.simulation.engine import simulate

EACH, BATCH, LR = 60, 20, 0.01
PLAIN = "plain torch loop, 1 thread"


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload."""
    registered, cohort, rounds, repeats = (200, 20, 3, 2) if small else (1000, 100, 20, 7)
    x, y = fashion.rows(registered * EACH)
    shards = [(torch.from_numpy(x[i : i + EACH]), torch.from_numpy(y[i : i + EACH])) for i in range(0, registered * EACH, EACH)]
    data = fashion.clients(x, y, each=EACH)
    torch_learner = TorchLearner(plain.softmax_net, loss=torch.nn.functional.cross_entropy, lr=LR, batch=BATCH, device="cpu")
    numpy_learner = softmax(classes=10, features=784, lr=LR, batch=BATCH)

    def by_hand() -> None:
        plain.federated_averaging(
            plain.softmax_net, shards, rounds=rounds, cohort=cohort, batch=BATCH, optimizer=lambda p: torch.optim.SGD(p, lr=LR)
        )

    def hansa(learner: Learner, engine: str) -> None:
        simulate(Job("w1", rounds_of(learner, rounds, cohort)), data, seed=0, engine=engine)

    works: dict[str, Callable[[], object]] = {
        PLAIN: by_hand,
        "torch, loop": lambda: hansa(torch_learner, "loop"),
        "torch, vectorised": lambda: hansa(torch_learner, "vectorised"),
        "numpy, loop": lambda: hansa(numpy_learner, "loop"),
        "numpy, vectorised": lambda: hansa(numpy_learner, "vectorised"),
    }
    for work in works.values():  # the first call of a kernel or a compiled function is dearer
        work()
    costs = alternate({name: partial(cost_of, work, rounds) for name, work in works.items()}, repeats=repeats)
    details = {"per round": shown(costs), "data": fashion.source(), "clients": registered, "cohort": cohort, "rounds": rounds}
    base = costs[PLAIN]
    return [
        Figure("W1", "torch model, loop", ratio(costs["torch, loop"], base), "x CPU of baseline", PLAIN, 1.1, "<=", details),
        Figure("W1", "torch model, vectorised", ratio(base, costs["torch, vectorised"]), "x faster (CPU)", PLAIN, 3.0, ">="),
        Figure("W1", "numpy softmax, loop", ratio(base, costs["numpy, loop"]), "x faster (CPU)", PLAIN, 5.0, ">="),
        Figure("W1", "numpy softmax, vectorised", ratio(base, costs["numpy, vectorised"]), "x faster (CPU)", PLAIN, 5.0, ">="),
        _overhead(data, cohort=cohort, rounds=rounds, repeats=repeats),
        _population(x, y, cohort=cohort, rounds=rounds, repeats=repeats, small=small),
    ]


def rounds_of(learner: Learner, rounds: int, cohort: int | None) -> Rounds:
    """Training alone, as the baseline does: nobody evaluates."""
    return fedavg(learner, rounds=rounds, cohort=cohort, metrics=[], evaluate_sites="none")


class Marked:
    """A workflow whose rounds are timed: what each took."""

    def __init__(self, inner: Rounds) -> None:
        self._inner = inner
        self.computations = inner.computations
        self.costs: list[Cost] = []

    def __call__(self, federation: Federation) -> Outcome:
        """Run the rounds."""
        return self._inner(_Reporting(federation, self.costs))


class _Reporting:
    def __init__(self, federation: Federation, costs: list[Cost]) -> None:
        self._federation, self._costs, self._watch = federation, costs, Stopwatch()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._federation, name)

    def report(self, record: Any) -> None:
        self._federation.report(record)
        self._costs.append(self._watch.cost())
        self._watch = Stopwatch()


def _overhead(data: FederatedRows, *, cohort: int, rounds: int, repeats: int) -> Figure:
    """What a client costs besides `Learner.fit`: a model of the same shape, and a learner that does nothing."""
    still = Echo({"weight": (784, 10), "bias": (10,)}, own=False)

    def nothing() -> None:
        simulate(Job("w1", rounds_of(still, rounds, cohort)), data, seed=0)

    nothing()
    costs = [cost_of(nothing, rounds * cohort) for _ in range(repeats)]
    details = {"per client": shown({"loop": costs}, scale=1e6, unit="us")}
    return Figure("W1", "overhead a client, loop", middle(costs).cpu_s * 1e3, "CPU ms", "none", 0.12, "<=", details)


def _population(x: Any, y: Any, *, cohort: int, rounds: int, repeats: int, small: bool) -> Figure:
    few, many = (200, 100_000) if small else (1000, 1_000_000)
    sets: dict[str, FederatedRows] = {f"{n:,} registered": fashion.clients(x, y, each=EACH, registered=n) for n in (few, many)}
    learner = softmax(classes=10, features=784, lr=LR, batch=BATCH)

    def round_cost(data: FederatedRows) -> Cost:
        marked = Marked(rounds_of(learner, rounds, cohort))
        simulate(Job("w1", marked), data, seed=0)
        later = marked.costs[1:]  # the first round is timed with the start of the run
        return Cost(sum(c.cpu_s for c in later), sum(c.wall_s for c in later)) / len(later)

    costs = alternate({name: partial(round_cost, data) for name, data in sets.items()}, repeats=repeats)
    base, ours = costs.values()
    name = f"round with {many:,} registered clients"
    return Figure(
        "W1", name, ratio(ours, base), "x CPU of baseline", f"{few:,} registered", 1.05, "<=", {"per round": shown(costs)}
    )
