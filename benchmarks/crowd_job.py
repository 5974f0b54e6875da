"""The jobs of W6: every site answers at once with an update of its own, and computes nothing."""

from __future__ import annotations

import numpy as np

from benchmarks.echo import Echo
from benchmarks.many_clients import rounds_of
from hansa.core.job import Job
from hansa.core.protocols import Dataset, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Tree

ROUNDS = {"small": 10, "large": 5, "few": 3}


class Unlike(Echo):
    """Updates that differ in one entry, so that none of them is at the server already."""

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """The update, at once."""
        update = super().fit(model, data, config, rng=rng, abort=abort)
        weight = np.array(update.delta["weight"])
        weight[0] = rng.random()
        return update._replace(delta={"weight": weight})


def _job(kind: str, entries: int) -> Job:
    return Job(f"crowd-{kind}", rounds_of(Unlike({"weight": (entries,)}, own=False), ROUNDS[kind], None), data="crowd")


small = _job("small", 2_500)  # 10 kB
large = _job("large", 250_000)  # 1 MB
few = _job("few", 2_500)
