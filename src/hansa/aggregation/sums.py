"""The sum of updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.aggregation import accumulate
from hansa.aggregation.accumulate import Accumulator
from hansa.core.trees import Tree


@dataclass(frozen=True, slots=True)
class Sum:
    """u_1 + u_2 + ...: each update counts once and weights are ignored. The fold is Mean's: float64, cast once.

    Integer leaves keep their dtype, and a sum out of its range is an error. A boolean leaf is True where any update is.

    >>> import numpy as np
    >>> Sum().fold([{"n": np.array([1, 2])}, {"n": np.array([10, 20])}])
    {'n': array([11, 22])}
    """

    def zero(self, like: Tree) -> Accumulator:
        """An empty accumulator for updates with the leaves of `like`."""
        return accumulate.zero(like)

    def add(self, acc: Accumulator, update: Tree, weight: float = 1.0) -> Accumulator:  # noqa: ARG002  the protocol's; see the class
        """The accumulator with one more update, in the memory of `acc`.

        Raises:
            SpecError: the update has other leaves; nothing was added.
            RunError: a float64 sum overflowed.
        """
        return accumulate.add(acc, update, 1.0)

    def add_many(self, acc: Accumulator, updates: Tree, weights: Sequence[float]) -> Accumulator:
        """The accumulator with several updates more, of which each leaf is stacked: the bits of adding them one by one.

        Raises:
            SpecError: as `add`, of any of them; nothing was added. RunError: a float64 sum overflowed.
        """
        return accumulate.add_many(acc, updates, [1.0] * len(weights))

    def merge(self, left: Accumulator, right: Accumulator) -> Accumulator:
        """The accumulator of both, in the memory of `left`; equals feeding both in turn to rounding."""
        return accumulate.merge(left, right)

    def finish(self, acc: Accumulator) -> dict[str, Any]:
        """The sum of what was added.

        Raises:
            RunError: nothing was added, or a sum is out of its leaf's range.
        """
        return accumulate.finish(acc, 1.0)

    def fold(
        self,
        updates: Sequence[Tree],
        weights: Sequence[float] = (),  # noqa: ARG002  the protocol's; see the class
        *,
        like: Tree | None = None,
        threads: int = 1,
        after: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """The sum of all the updates at once: the bits of zero, add, ..., finish, for any number of threads.

        Raises:
            SpecError: the updates have different leaves.
            RunError: there are no updates, or a sum is out of its leaf's range.
        """
        return accumulate.fold(updates, [1.0] * len(updates), 1.0, like=like, threads=threads, after=after)
