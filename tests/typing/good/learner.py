"""A learner is any class with the four methods; nothing is inherited."""

import numpy as np

from hansa import FitConfig, Learner, Signal, Tree, Update
from hansa.core.protocols import Dataset, Evaluation
from hansa.core.trees import Array


class Constant:
    """Learns nothing."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("loss",)

    def init(self, rng: np.random.Generator) -> Tree:
        return {"value": rng.normal(size=1)}

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        return Update(delta=model, examples=len(data), steps=0, lr=config.lr or 0.0, loss=0.0)

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        return Evaluation(self.predict(model, data.x), 0.0)

    def predict(self, model: Tree, x: Array) -> Array:
        return np.zeros(len(x))


learner: Learner = Constant()
