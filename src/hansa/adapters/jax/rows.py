"""A site's rows padded to few different shapes, since JAX compiles once for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hansa.adapters.training import Plan, inputs, order, targets
from hansa.core.protocols import Dataset
from hansa.core.trees import Array


@dataclass(frozen=True, slots=True)
class Part:
    """One client's rows and steps: `order` (steps, batch) names the rows of each step, `share` what each counts for in its mean.

    A short batch is filled up with its first row at share 0.
    """

    x: Array
    y: Array
    order: Array
    share: Array

    @property
    def steps(self) -> int:
        return len(self.order)

    @staticmethod
    def of(data: Dataset, plan: Plan, rng: np.random.Generator, floats: np.dtype[np.floating]) -> Part:
        """The part of a client's training rows, in the order that its stream draws.

        Raises:
            DataError: rows or targets are not numbers.
        """
        x, y = inputs(data.x, floats), targets(data.y, floats)
        each = list(order(len(x), batch=plan.batch, steps=plan.count(len(x)), rng=rng))
        width = max(map(len, each))
        rows, share = np.zeros((len(each), width), np.int32), np.zeros((len(each), width), floats)
        for step, index in enumerate(each):
            rows[step], rows[step, : len(index)], share[step, : len(index)] = index[0], index, 1 / len(index)
        return Part(x, y, rows, share)
