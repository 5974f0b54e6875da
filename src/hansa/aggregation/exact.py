"""Fixed-point sums: each term is rounded to a stated step once, and from there on the arithmetic is that of whole numbers.

Order and grouping cannot change a bit, so relays may merge in any tree, and masks that cancel modulo 2^64 can be added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hansa.aggregation import accumulate
from hansa.core import trees
from hansa.core.trees import Array, Spec, Tree
from hansa.errors import ConfigError, NotFiniteError, RunError, SpecError, UpdateError, WeightError

BLOCK = 32_768


@dataclass(frozen=True, slots=True)
class ExactAccumulator:
    """A sum under way: `sums[path]` is flat int64 in units of the step; `weight` is a whole number of weight steps."""

    spec: Spec
    sums: dict[str, Array]
    weight: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """How terms become whole numbers, and the bounds that make an overflow impossible.

    bound: the largest |entry| of an update. weight: the largest weight. count: the most updates in one aggregate.
    bits: size of the largest possible sum; at most 62, so that rounding never reaches the sign bit of int64.
    """

    bound: float
    weight: float = 1.0
    count: int = 1_000_000
    bits: int = 62

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing, where they are written."""
        for name in ("bound", "weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError("not a bound", path=name, expected="a finite number > 0", got=value)
        if not 1 <= self.count <= 2**40:
            raise ConfigError("not a number of updates", path="count", expected="1 to 2^40", got=self.count)
        if not 1 <= self.bits <= 62:
            raise ConfigError("not a number of bits", path="bits", expected="1 to 62", got=self.bits)
        if not (math.isfinite(self.bound * self.weight) and abs(self.fraction_bits) <= 1000 and abs(self.weight_bits) <= 1000):
            raise ConfigError("the bounds leave the range of float64", path="bound", got=f"{self.bound:g} times {self.weight:g}")

    @property
    def fraction_bits(self) -> int:
        """Binary places of a term: a term w u is rounded half to even to a multiple of `step` = 2^-fraction_bits."""
        return self.bits - math.ceil(math.log2(self.bound) + math.log2(self.weight) + math.log2(self.count))

    @property
    def step(self) -> float:
        """The distance of neighbouring fixed-point values of a term."""
        return math.ldexp(1.0, -self.fraction_bits)

    @property
    def weight_bits(self) -> int:
        """Binary places of a weight; whole weights below 2^21 are exact with up to 2^40 updates."""
        return 62 - math.ceil(math.log2(self.weight) + math.log2(self.count))


@dataclass(frozen=True, slots=True)
class ExactMean:
    """sum(w_i u_i) / sum(w_i) in fixed point: the same bits for every order and grouping of the updates.

    Differs from the mean of real numbers by at most step * count / (2 * total weight), and a rounding of float64. Leaves come back
    in their own dtype, integers rounded half to even, booleans by weighted majority with a tie False.

    >>> mean = ExactMean(FixedPoint(bound=8.0, weight=4.0, count=1000))
    >>> a = mean.add(mean.zero({"w": np.zeros(1)}), {"w": np.array([1.0])}, 1.0)
    >>> b = mean.add(mean.zero({"w": np.zeros(1)}), {"w": np.array([5.0])}, 3.0)
    >>> mean.finish(mean.merge(b, a))
    {'w': array([4.])}
    """

    point: FixedPoint

    def zero(self, like: Tree) -> ExactAccumulator:
        """An empty accumulator for updates with the leaves of `like`."""
        return _zero(like)

    def add(self, acc: ExactAccumulator, update: Tree, weight: float) -> ExactAccumulator:
        """The accumulator with one more update, in the memory of `acc`.

        Raises:
            SpecError, NotFiniteError, WeightError: as at the gate; nothing was added.
            UpdateError: an entry is over `bound`; nothing was added.
            RunError: more than `count` updates.
        """
        if not (math.isfinite(weight) and 0 < weight <= self.point.weight):
            raise WeightError("not a weight", expected=f"a number > 0 and <= {self.point.weight:g}", got=weight)
        units = round(math.ldexp(weight, self.point.weight_bits))
        if units == 0:
            raise WeightError("a weight is below the fixed-point step", got=weight, expected=f">= 2^-{self.point.weight_bits}")
        return _add(acc, update, self.point, math.ldexp(units, -self.point.weight_bits), units)

    def merge(self, left: ExactAccumulator, right: ExactAccumulator) -> ExactAccumulator:
        """The accumulator of both, in the memory of `left`; associative and commutative, bit for bit."""
        return _merge(left, right, self.point)

    def finish(self, acc: ExactAccumulator) -> dict[str, Any]:
        """The mean of what was added.

        Raises:
            RunError: nothing was added.
        """
        return _finish(acc, self.point, math.ldexp(acc.weight, -self.point.weight_bits))


@dataclass(frozen=True, slots=True)
class ExactSum:
    """u_1 + u_2 + ... in fixed point: each update counts once, weights are ignored; off by at most step * count / 2.

    >>> total = ExactSum(FixedPoint(bound=8.0, count=1000))
    >>> acc = total.add(total.zero({"w": np.zeros(1)}), {"w": np.array([0.5])})
    >>> total.finish(total.add(acc, {"w": np.array([0.25])}))
    {'w': array([0.75])}
    """

    point: FixedPoint

    def zero(self, like: Tree) -> ExactAccumulator:
        """An empty accumulator for updates with the leaves of `like`."""
        return _zero(like)

    def add(self, acc: ExactAccumulator, update: Tree, weight: float = 1.0) -> ExactAccumulator:  # noqa: ARG002  the protocol's
        """The accumulator with one more update, in the memory of `acc`; raises as ExactMean does, but for the weight."""
        return _add(acc, update, self.point, 1.0, 1)

    def merge(self, left: ExactAccumulator, right: ExactAccumulator) -> ExactAccumulator:
        """The accumulator of both, in the memory of `left`; associative and commutative, bit for bit."""
        return _merge(left, right, self.point)

    def finish(self, acc: ExactAccumulator) -> dict[str, Any]:
        """The sum of what was added.

        Raises:
            RunError: nothing was added, or a sum is out of its leaf's range.
        """
        return _finish(acc, self.point, 1.0)


def _zero(like: Tree) -> ExactAccumulator:
    accumulate.check_dtypes(like)
    sums = {path: np.zeros(_line(leaf).size, np.int64) for path, leaf in trees.leaves(like)}
    return ExactAccumulator(Spec.of(like), sums)


def _add(acc: ExactAccumulator, update: Tree, point: FixedPoint, weight: float, units: int) -> ExactAccumulator:
    acc.spec.check(update)
    _check_count(acc.count + 1, point)
    lines = {path: _line(leaf) for path, leaf in trees.leaves(update)}
    for path, line in lines.items():  # all checks before the first addition
        _check_bound(line, point.bound, path)
    for path, line in lines.items():
        total = acc.sums[path]
        for part in _blocks(line.size):
            # Scaling by a power of two is exact, so a term is rounded in the product and once more to the step.
            term = np.multiply(line[part], weight, dtype=np.float64, casting="unsafe")
            total[part] += np.rint(np.ldexp(term, point.fraction_bits)).astype(np.int64)
    return replace(acc, weight=acc.weight + units, count=acc.count + 1)


def _merge(left: ExactAccumulator, right: ExactAccumulator, point: FixedPoint) -> ExactAccumulator:
    if left.spec != right.spec:
        raise SpecError("accumulators of different leaves cannot be merged", expected=left.spec, got=right.spec)
    _check_count(left.count + right.count, point)
    for path, line in left.sums.items():
        np.add(line, right.sums[path], out=line)
    return replace(left, weight=left.weight + right.weight, count=left.count + right.count)


def _finish(acc: ExactAccumulator, point: FixedPoint, divisor: float) -> dict[str, Any]:
    if acc.count == 0:
        raise RunError("nothing was added to this aggregate", expected="at least one update", got="none")
    shapes = dict(acc.spec.items)
    out = {path: np.empty(shapes[path].shape, shapes[path].dtype) for path in acc.sums}
    at = [""]
    with accumulate.overflow_named(at):
        for at[0], line in acc.sums.items():
            target = _line(out[at[0]])
            for part in _blocks(line.size):
                wide = np.ldexp(line[part].astype(np.float64), -point.fraction_bits)
                accumulate.narrow(np.divide(wide, divisor, out=wide), target[part], at[0])
    return trees.unflatten(out)


def _check_count(count: int, point: FixedPoint) -> None:
    if count > point.count:
        raise RunError("more updates than the fixed point was made for", expected=f"at most {point.count}", got=count)


def _check_bound(line: Array, bound: float, path: str) -> None:
    for part in _blocks(line.size):
        wide = line[part].astype(np.float64)
        largest = float(np.abs(wide).max())
        if not math.isfinite(largest):
            raise NotFiniteError("an entry is not finite", path=path, expected="finite numbers", got=f"{largest:g}")
        if largest > bound:
            hint = "clip the update at the site, or state a larger bound"
            raise UpdateError(
                "an entry is over the fixed-point bound", path=path, expected=f"|x| <= {bound:g}", got=largest, hint=hint
            )


def _line(leaf: Array) -> Array:
    line = np.asarray(leaf).reshape(-1)
    return line.view(line.real.dtype) if line.dtype.kind == "c" else line


def _blocks(size: int) -> Iterator[slice]:
    for low in range(0, size, BLOCK):
        yield slice(low, low + BLOCK)
