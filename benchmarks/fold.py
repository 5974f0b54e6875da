"""W5, the weighted mean alone: 10 updates of 1e8 float32 in 50 arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch

from benchmarks.measure import Cost, Figure, Peak, alternate, cost_of, in_child, shown
from hansa.aggregation.mean import Mean
from hansa.core import gate
from hansa.core.rng import generator
from hansa.core.task import Expect, Shareable
from hansa.core.trees import Array, Spec

UPDATES, ARRAYS = 10, 50
COPY = "plain copy of the updates, 1 thread"
WARM = "one after the other, memory in use"  # the sums alone: no memory is asked of the system, and no result is made
WEIGHTS = [float(i + 1) for i in range(UPDATES)]


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload: GB of updates read per second."""
    entries, repeats = (1_000_000, 2) if small else (100_000_000, 5)
    updates = made(entries)
    gigabytes = UPDATES * entries * 4 / 1e9
    works = _works(updates)
    costs = alternate({name: partial(cost_of, work) for name, work in works.items()}, repeats=repeats)
    by_cpu, by_wall = (
        {name: median(gigabytes / (c.wall_s if wall else c.cpu_s) for c in each) for name, each in costs.items()}
        for wall in (False, True)
    )
    details = {
        "runs": shown(costs),
        "GB per wall s": {name: round(value, 2) for name, value in by_wall.items()},
        "GB per CPU s": {name: round(value, 2) for name, value in by_cpu.items()},
        "entries": entries,
        "updates": UPDATES,
    }
    # A thread's own speed is counted by its CPU time, which other programs disturb less; two threads by the wall.
    targets = {"fold, 1 thread": 3.0, "gate and fold, 1 thread": 2.5, "one after the other": 2.0}
    figures = [
        Figure("W5", name, by_cpu[name], "GB per CPU s", f"{COPY}: {by_cpu[COPY]:.2f}", target, ">=", details if i == 0 else {})
        for i, (name, target) in enumerate(targets.items())
    ]
    figures.append(Figure("W5", WARM, by_cpu[WARM], "GB per CPU s", f"{COPY}: {by_cpu[COPY]:.2f}"))
    two = by_wall["fold, 2 threads"]
    figures.append(Figure("W5", "fold, 2 threads", two, "GB per wall s", f"{COPY}: {by_wall[COPY]:.2f}", 4.5, ">="))
    base = _pairs(costs["fold, 1 thread"], costs[COPY])
    figures.append(Figure("W5", "fold, 1 thread, against a copy", base, "x speed of baseline", COPY))
    add = "torch add_, update by update, float32"
    figures.append(
        Figure("W5", "fold, 1 thread, against torch", _pairs(costs["fold, 1 thread"], costs[add]), "x speed of baseline", add)
    )
    extra = in_child(memory, entries)
    figures.append(Figure("W5", "memory of a fold beyond the updates", extra, "x model", "one model", 1.05, "<="))
    return figures


def made(entries: int) -> list[dict[str, Array]]:
    """Updates of normal noise."""
    rng = generator(0, purpose="fold")
    one = rng.standard_normal(entries // ARRAYS, np.float32)
    return [{f"layer{i}.weight": one * np.float32(1 + k + i) for i in range(ARRAYS)} for k in range(UPDATES)]


def memory(entries: int) -> float:
    """The peak of memory during a fold, beyond the updates, in models."""
    updates = made(entries)
    peak = Peak()
    Mean().fold(updates, WEIGHTS, threads=2)
    return peak.mb() / (entries * 4 / 1e6)


def _works(updates: list[dict[str, Array]]) -> dict[str, Callable[[], object]]:
    mean = Mean()
    torch.set_num_threads(1)
    tensors = [{name: torch.from_numpy(leaf) for name, leaf in update.items()} for update in updates]
    room = {name: np.zeros_like(leaf) for name, leaf in updates[0].items()}
    expects = [Expect("", Spec.of(updates[0]))]

    def copy() -> None:
        for update in updates:
            for name, leaf in update.items():
                np.copyto(room[name], leaf)

    def torch_add() -> None:
        total = {name: torch.zeros_like(leaf) for name, leaf in tensors[0].items()}
        for update, weight in zip(tensors, WEIGHTS, strict=True):
            for name, leaf in update.items():
                total[name].add_(leaf, alpha=weight / sum(WEIGHTS))

    def running() -> None:
        acc = mean.zero(updates[0])
        for update, weight in zip(updates, WEIGHTS, strict=True):
            acc = mean.add(acc, update, weight)
        mean.finish(acc)

    kept = [mean.zero(updates[0])]

    def warm() -> None:
        for update, weight in zip(updates, WEIGHTS, strict=True):
            kept[0] = mean.add(kept[0], update, weight)

    def gated() -> None:
        for update in updates:
            gate.admit(Shareable(update), expects)
        mean.fold(updates, WEIGHTS, threads=1)

    return {
        COPY: copy,
        "torch add_, update by update, float32": torch_add,
        "fold, 1 thread": lambda: mean.fold(updates, WEIGHTS, threads=1),
        "fold, 2 threads": lambda: mean.fold(updates, WEIGHTS, threads=2),
        "gate and fold, 1 thread": gated,
        "one after the other": running,
        WARM: warm,
    }


def _pairs(ours: list[Cost], theirs: list[Cost]) -> float:
    return median(b.cpu_s / a.cpu_s for a, b in zip(ours, theirs, strict=True))
