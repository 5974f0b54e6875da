"""A job that can be worked out by hand: site k has k + 1 rows and sends k + 1 in both entries of its update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import hansa as hs
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.learning.fedavg import fedavg

Change = Callable[[Update], Update]


def sites(*keys: int) -> FederatedRows:
    """Sites named by letters: `sites(0, 2)` are a and c, with 1 and 3 rows. All rows are for training and hold the key."""
    rows = [Rows(np.full((key + 1, 1), key, np.float32), np.zeros(key + 1), parts=np.zeros(key + 1, np.int8)) for key in keys]
    return FederatedRows([chr(ord("a") + key) for key in keys], rows.__getitem__)


@dataclass
class Means:
    """A Learner with the leaf `w`, float32[2]. `changes` says what the sites with these keys do to their updates."""

    changes: Mapping[int, Change] = field(default_factory=dict, repr=False)
    metrics: tuple[str, ...] = ("loss",)

    def init(self, rng: np.random.Generator) -> Tree:
        return {"w": np.zeros(2, np.float32)}

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        key = int(data.x[0, 0])
        update = Update({"w": np.full(2, key + 1, np.float32)}, examples=len(data), steps=1, lr=1.0, loss=float(key))
        return self.changes[key](update) if key in self.changes else update

    def fit_many(
        self,
        models: Sequence[Tree],
        datasets: Sequence[Dataset],
        configs: Sequence[FitConfig],
        *,
        rngs: Sequence[np.random.Generator],
    ) -> list[Update]:
        each = zip(models, datasets, configs, rngs, strict=True)
        return [self.fit(model, data, config, rng=rng, abort=Signal()) for model, data, config, rng in each]

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        return Evaluation(self.predict(model, data.x), float("nan"))

    def predict(self, model: Tree, x: Array) -> Array:
        return np.zeros(len(x))


def job(changes: Mapping[int, Change] | None = None, *, rounds: int = 1, **options: Any) -> hs.Job:
    """FedAvg on `Means`, without evaluation unless asked for."""
    options.setdefault("evaluate_sites", "none")
    return hs.Job("means", fedavg(Means(changes or {}), rounds=rounds, **options))


def raising(error: BaseException) -> Change:
    """A site whose code raises."""

    def fail(update: Update) -> Update:
        raise error

    return fail
