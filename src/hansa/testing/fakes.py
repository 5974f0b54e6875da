"""Small stand-ins for data, site memory and learners, whose results a test can work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.core import trees
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.rng import generator
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.data.rows import Rows


def rows(n: int, d: int = 4, classes: int = 2, seed: int = 0, *, valid: int = 0, test: int = 0) -> Rows:
    """A Dataset that a linear model can learn: `x` (n, d) float32, standard normal; `y` (n,) int64 in [0, classes).

    The last `test` rows are for testing, the `valid` rows before them for validation, the others for training.

    >>> data = rows(10, d=3, test=2)
    >>> data.x.shape, len(data.part("train")), len(data.part("test"))
    ((10, 3), 8, 2)
    """
    rng = generator(seed, purpose="rows")
    x = rng.standard_normal((n, d)).astype(np.float32)
    y = np.argmax(x @ rng.standard_normal((d, classes)).astype(np.float32), axis=1).astype(np.int64)
    parts = np.repeat([0, 1, 2], [n - valid - test, valid, test]).astype(np.int8)
    return Rows(x, y, parts=parts)


class InMemorySiteMemory:
    """A SiteMemory in a dict. A task sees what it has put; `commit` keeps it, as a counted reply would, `rollback` forgets it.

    >>> memory = InMemorySiteMemory()
    >>> memory.put("control", {"w": np.ones(2)})
    >>> memory.rollback()
    >>> memory.get("control") is None
    True
    """

    def __init__(self) -> None:
        self.kept: dict[str, Tree] = {}
        self._put: dict[str, Tree] = {}

    def get(self, name: str) -> Tree | None:
        """A copy of the tree of this name, the task's own first."""
        found = self._put.get(name, self.kept.get(name))
        return None if found is None else trees.copy(found)

    def put(self, name: str, tree: Tree) -> None:
        """Hold a copy until `commit` or `rollback`."""
        self._put[name] = trees.copy(tree)

    def commit(self) -> None:
        """Keep what was put."""
        self.kept.update(self._put)
        self._put.clear()

    def rollback(self) -> None:
        """Forget what was put since the last commit."""
        self._put.clear()


class ConstantLearner:
    """A Learner whose every fit gives the same `delta`, with as many examples as the data has rows in all; one step, loss `loss`.

    A model starts at zero; it predicts 0 everywhere and its loss on any rows is `loss`.

    >>> learner = ConstantLearner({"w": np.array([1.0, 2.0])})
    >>> learner.fit(learner.init(generator(0)), rows(5), FitConfig(), rng=generator(0), abort=Signal()).examples
    5
    """

    metrics = ("loss",)

    def __init__(self, delta: Tree, *, lr: float = 1.0, loss: float = 0.5) -> None:
        self.delta = trees.copy(delta)
        self.lr = lr
        self.loss = loss

    def init(self, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002  the protocol's
        """Zeros in the shape of the delta."""
        return trees.zeros(self.delta)

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:  # noqa: ARG002
        """The constant update, once `abort` has been asked."""
        abort.check()
        lr = self.lr if config.lr is None else config.lr
        return Update(trees.copy(self.delta), examples=len(data), steps=1, lr=lr, loss=self.loss)

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """Scores of zero (n,), and the constant loss; nan without rows."""
        return Evaluation(self.predict(model, data.x), self.loss if len(data) else float("nan"))

    def predict(self, model: Tree, x: Array) -> Array:  # noqa: ARG002  the protocol's
        """Zeros (n,)."""
        return np.zeros(len(x))
