"""What every Aggregator must do: inherit AggregatorContract in a test class and say how yours is made."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from hansa.core import trees
from hansa.core.protocols import Aggregator
from hansa.core.rng import generator
from hansa.core.trees import Tree


class AggregatorContract:
    """Seven laws. An implementation is done when its subclass passes.

    exact: merging equals feeding, bit for bit. order_free: so does feeding in another order. Updates are within [-1, 1], weights
    are 1 to 9, and there are at most 16 of them.
    """

    exact = False
    order_free = False

    def aggregator(self) -> Aggregator[Any]:
        """The implementation under test."""
        raise NotImplementedError

    def updates(self, count: int = 5) -> list[tuple[Tree, float]]:
        """Updates of one Spec with their weights: replace this for an aggregator of other trees."""
        rng = generator(11, purpose="aggregator contract")
        return [
            (
                {
                    "layer": {"weight": rng.uniform(-1, 1, (3, 4)).astype(np.float32), "bias": rng.uniform(-1, 1, 4)},
                    "half": rng.uniform(-1, 1, 5).astype(np.float16),
                    "scale": np.asarray(rng.uniform(-1, 1), dtype=np.float32),
                },
                float(rng.integers(1, 10)),
            )
            for _ in range(count)
        ]

    def test_feeding_the_same_sequence_gives_the_same_bits(self) -> None:
        """finish depends on the sequence of (update, weight) alone."""
        _same(self._fed(self.updates()), self._fed(self.updates()))

    def test_a_result_has_the_leaves_of_the_updates(self) -> None:
        """Names, dtypes and shapes come back as they went in."""
        fed = self.updates()
        np.testing.assert_equal(str(trees.Spec.of(self._fed(fed))), str(trees.Spec.of(fed[0][0])))

    def test_merging_equals_feeding_both(self) -> None:
        """merge(add(zero, u), add(zero, v)) finishes as both added do."""
        fed = self.updates()
        merged = self._merged(self._accumulated(fed[:2]), self._accumulated(fed[2:]))
        (_same if self.exact else _close)(merged, self._fed(fed))

    def test_merging_with_zero_changes_nothing(self) -> None:
        """Zero is neutral on either side."""
        fed = self.updates()
        zero = self.aggregator().zero
        _same(self._merged(zero(fed[0][0]), self._accumulated(fed)), self._fed(fed))
        _same(self._merged(self._accumulated(fed), zero(fed[0][0])), self._fed(fed))

    def test_order_changes_nothing_but_rounding(self) -> None:
        """Fed backwards the result is the same: to the bit where `order_free`."""
        fed = self.updates()
        (_same if self.order_free else _close)(self._fed(fed[::-1]), self._fed(fed))

    def test_updates_are_neither_kept_nor_changed(self) -> None:
        """What a caller does with an update after `add` is the caller's business."""
        fed = self.updates()
        before = copy.deepcopy(fed)
        expected = self._fed(before)
        acc = self._accumulated(fed)
        for (update, _), (original, _) in zip(fed, before, strict=True):
            _same(update, original)
            for _, leaf in trees.leaves(update):
                leaf[...] = 0
        _same(self.aggregator().finish(acc), expected)

    def test_finishing_twice_gives_the_same_bits(self) -> None:
        """finish reads the accumulator and leaves it whole."""
        acc = self._accumulated(self.updates())
        first = trees.copy(self.aggregator().finish(acc))
        _same(self.aggregator().finish(acc), first)

    def _accumulated(self, fed: list[tuple[Tree, float]]) -> Any:
        aggregator = self.aggregator()
        acc = aggregator.zero(fed[0][0])
        for update, weight in fed:
            acc = aggregator.add(acc, update, weight)
        return acc

    def _fed(self, fed: list[tuple[Tree, float]]) -> Tree:
        return self.aggregator().finish(self._accumulated(fed))

    def _merged(self, left: Any, right: Any) -> Tree:
        aggregator = self.aggregator()
        return aggregator.finish(aggregator.merge(left, right))


def _same(left: Tree, right: Tree) -> None:
    np.testing.assert_equal(trees.equal(left, right), True, err_msg=f"the bits differ:\n{left}\n{right}")


def _close(left: Tree, right: Tree) -> None:
    np.testing.assert_equal(str(trees.Spec.of(left)), str(trees.Spec.of(right)))
    for (_, a), (_, b) in zip(sorted(trees.leaves(left)), sorted(trees.leaves(right)), strict=True):
        step = float(np.finfo(a.dtype).eps) if a.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(a.astype(np.complex128), b.astype(np.complex128), rtol=4 * step, atol=4 * step)
