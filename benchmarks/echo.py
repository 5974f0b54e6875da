"""A learner that returns an update without training: what is left is the platform's own cost."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree


class Echo:
    """Leaves of float32 under the given names and shapes. `own`: each client makes its update; else all send the same arrays."""

    metrics: tuple[str, ...] = ()

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], *, own: bool) -> None:
        self._shapes, self._own = dict(shapes), own

    def init(self, rng: np.random.Generator) -> Tree:  # noqa: ARG002  nothing is drawn
        """Zeros."""
        return self.made(0.0)

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:  # noqa: ARG002
        """The update, at once."""
        return Update(self.made(1e-3) if self._own else self._shared, len(data), 1, 0.1, 0.0)

    @cached_property
    def _shared(self) -> dict[str, Array]:
        """Made where it is first sent, not where the job is only loaded."""
        return self.made(1e-3)

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:  # noqa: ARG002  there is nothing to predict
        """Zeros."""
        return Evaluation(np.zeros(len(data)), 0.0)

    def predict(self, model: Tree, x: Array) -> Array:  # noqa: ARG002  there is nothing to predict
        """Zeros."""
        return np.zeros(len(x))

    def made(self, value: float) -> dict[str, Array]:
        """New leaves of that value."""
        return {name: np.full(shape, value, np.float32) for name, shape in self._shapes.items()}
