"""The weighted mean of updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.aggregation import accumulate
from hansa.aggregation.accumulate import Accumulator
from hansa.core.trees import Tree
from hansa.errors import WeightError


@dataclass(frozen=True, slots=True)
class Mean:
    """sum(w_i u_i) / sum(w_i): the sequential float64 fold in the order of feeding, cast once to each leaf's dtype.

    Floats of any width are accumulated in float64, complex leaves in complex128. Integer leaves keep their dtype and round half to
    even (an int64 beyond 2^53 in size counts as its nearest float64). Boolean leaves give the weighted majority; a tie is False.

    >>> import numpy as np
    >>> mean = Mean()
    >>> acc = mean.zero({"w": np.zeros(2, np.float32)})
    >>> acc = mean.add(acc, {"w": np.array([1, 2], np.float32)}, 1.0)
    >>> acc = mean.add(acc, {"w": np.array([4, 8], np.float32)}, 2.0)
    >>> mean.finish(acc)
    {'w': array([3., 6.], dtype=float32)}
    """

    def zero(self, like: Tree) -> Accumulator:
        """An empty accumulator for updates with the leaves of `like`."""
        return accumulate.zero(like)

    def add(self, acc: Accumulator, update: Tree, weight: float) -> Accumulator:
        """The accumulator with one more update, in the memory of `acc`.

        Raises:
            SpecError: the update has other leaves; nothing was added.
            WeightError: the weight is not finite or not positive; nothing was added.
            RunError: a float64 sum overflowed.
        """
        return accumulate.add(acc, update, weight)

    def add_many(self, acc: Accumulator, updates: Tree, weights: Sequence[float]) -> Accumulator:
        """The accumulator with several updates more, of which each leaf is stacked: the bits of adding them one by one.

        Raises:
            SpecError, WeightError: as `add`, of any of them; nothing was added. RunError: a float64 sum overflowed.
        """
        return accumulate.add_many(acc, updates, weights)

    def merge(self, left: Accumulator, right: Accumulator) -> Accumulator:
        """The accumulator of both, in the memory of `left`; equals feeding both in turn to rounding."""
        return accumulate.merge(left, right)

    def finish(self, acc: Accumulator) -> dict[str, Any]:
        """The mean of what was added.

        Raises:
            RunError: nothing was added.
        """
        return accumulate.finish(acc, acc.weight)

    def fold(
        self,
        updates: Sequence[Tree],
        weights: Sequence[float],
        *,
        like: Tree | None = None,
        threads: int = 1,
        after: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """The mean of all the updates at once: the bits of zero, add, ..., finish, for any number of threads.

        Memory beyond the updates is one result and a few blocks. For `like` and `after` see accumulate.fold.

        >>> import numpy as np
        >>> Mean().fold([{"n": np.array([1])}, {"n": np.array([2])}], [1.0, 1.0])
        {'n': array([2])}

        Raises:
            SpecError: the updates have different leaves.
            WeightError: a weight is not finite or not positive, or there is not one for each update.
            RunError: there are no updates, or a result is out of its leaf's range.
        """
        if len(weights) != len(updates):
            raise WeightError("not one weight for each update", expected=len(updates), got=len(weights))
        weights = [accumulate.checked_weight(weight) for weight in weights]
        total = 0.0
        for weight in weights:  # one after the other, as `add` does: sum() compensates from Python 3.12 on
            total = accumulate.total_weight(total, weight)
        return accumulate.fold(updates, weights, total, like=like, threads=threads, after=after)
