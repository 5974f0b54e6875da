"""Values rounded to a grid before they are added, so that they are integers or fewer bits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hansa.aggregation.accumulate import Accumulator
from hansa.aggregation.sums import Sum
from hansa.aggregators.leaves import (
    FLOAT32,
    floats,
    is_float,
    local,
    on_leaves,
    process,
    run,
    start,
    tree_of,
    typed,
    value_of,
    with_dtypes,
)
from hansa.aggregators.means import nothing
from hansa.aggregators.quantile import positive
from hansa.core import trees
from hansa.core.intrinsics import (
    federated_aggregate,
    federated_broadcast,
    federated_eval,
    federated_map,
    federated_sum,
    federated_zip,
)
from hansa.core.round import is_count
from hansa.core.task import FLContext
from hansa.core.trees import Array, Tree
from hansa.core.types import SERVER, TREE, ObjectType, TensorType, Type, contains
from hansa.errors import ConfigError, NotFiniteError, SpecError
from hansa.templates import AggregationProcess, MeasuredProcessOutput, UnweightedAggregationFactory

INT64 = TensorType(np.int64)
MOST = 2**31 - 1


@dataclass(frozen=True)
class DeterministicDiscretizationFactory(UnweightedAggregationFactory):
    """The inner aggregation of each value as a whole number (int32) of steps, rounded half to even.

    A sum of them wraps beyond 2^31 - 1, as sums of int32 do: the step must be wide enough for all clients' values together.

    >>> from hansa.aggregators.means import SumFactory
    >>> process = DeterministicDiscretizationFactory(0.5, SumFactory()).create(TensorType(np.float32))
    >>> print(process.next(process.initialize(), [0.6, 0.8]).result)
    1.5

    Raises:
        ConfigError: the step is not a finite number > 0.
    """

    step_size: float
    inner_agg_factory: UnweightedAggregationFactory

    def __post_init__(self) -> None:
        positive(self.step_size, "step_size")

    def create(self, value_type: Type) -> AggregationProcess:
        """The process; its state is `<step_size=float32,inner_agg_process=...>`."""
        return _discretised("deterministic_discretization", False, self.step_size, self.inner_agg_factory, value_type)


@dataclass(frozen=True)
class StochasticDiscretizationFactory(UnweightedAggregationFactory):
    """As DeterministicDiscretizationFactory, rounded up or down at random so that the mean is right.

    The random numbers are the run's own, by round and site.

    Raises:
        ConfigError: the step is not a finite number > 0.
    """

    step_size: float
    inner_agg_factory: UnweightedAggregationFactory

    def __post_init__(self) -> None:
        positive(self.step_size, "step_size")

    def create(self, value_type: Type) -> AggregationProcess:
        """The process; its state is `<step_size=float32,inner_agg_process=...>`."""
        return _discretised("stochastic_discretization", True, self.step_size, self.inner_agg_factory, value_type)


@dataclass(frozen=True)
class QuantizedSumFactory(UnweightedAggregationFactory):
    """The sum of values whose tensors of more than `threshold` entries travel as levels between their least and greatest entry.

    A level has `quantization_bits` bits and travels in one byte, or two above 8 bits; entries are rounded to a level at random so
    that the mean is right, by the run's own random numbers. An entry is off by at most (greatest - least) / (2^bits - 1). Measured
    is `aggregated_bits`: of all clients' values as they travelled, with the ends of each tensor's range.

    >>> process = QuantizedSumFactory(quantization_bits=8, threshold=2).create(TensorType(np.float32, [5]))
    >>> done = process.next(process.initialize(), [[0.0, 0.2, 0.4, 0.6, 1.0]] * 2)
    >>> print(done.result.round(2), done.measurements["aggregated_bits"])
    [0.  0.4 0.8 1.2 2. ] 208

    Raises:
        ConfigError: not 1 to 16 bits, or a negative threshold.
    """

    quantization_bits: int = 8
    threshold: int = 20_000

    def __post_init__(self) -> None:
        if not (is_count(self.quantization_bits) and self.quantization_bits <= 16):
            raise ConfigError("a level has 1 to 16 bits", path="quantization_bits", got=repr(self.quantization_bits))
        if not (self.threshold == 0 or is_count(self.threshold)):
            raise ConfigError("threshold counts entries", path="threshold", expected="at least 0", got=repr(self.threshold))

    def create(self, value_type: Type) -> AggregationProcess:
        """The process: no state."""
        floats(value_type)

        code = Levels(self.quantization_bits, self.threshold)
        about = f"{self.quantization_bits} bits above {self.threshold} entries"

        def encoded(value: Any, *, ctx: FLContext) -> dict[str, Any]:
            return code.encoded(tree_of(value), ctx.rng("quantize"))

        encode = local("quantize", encoded, {"value": value_type}, TREE, "ctx", about=about)
        bits = local("bits", lambda tree: np.int64(8 * trees.nbytes(tree)), {"tree": TREE}, INT64)
        decode = local(
            "dequantized", lambda tree: typed(value_of(tree_of(tree), value_type), value_type), {"tree": TREE}, value_type
        )

        def step(state: Any, value: Any) -> MeasuredProcessOutput:
            sent = federated_map(encode, value)
            total = federated_aggregate(sent, SumOfLevels(code))
            told = federated_zip(OrderedDict(aggregated_bits=federated_sum(federated_map(bits, sent))))
            return MeasuredProcessOutput(state, federated_map(decode, total), told)

        return process(nothing, step, value_type)


@dataclass(frozen=True, slots=True)
class Levels:
    """How a tree travels: each leaf `{"raw": leaf}`, or `{"levels": ..., "least": ..., "greatest": ...}`."""

    bits: int
    threshold: int

    @property
    def top(self) -> int:
        """The highest level."""
        return int(2**self.bits - 1)

    def encoded(self, tree: Tree, rng: np.random.Generator) -> dict[str, Any]:
        """The tree as it travels.

        Raises:
            NotFiniteError: an entry is inf or NaN.
        """
        return trees.map(lambda leaf: self._leaf(leaf, rng), tree)

    def decoded(self, tree: Tree) -> dict[str, Any]:
        """The tree that arrived, in the dtypes that it had. A level above the highest is the highest.

        Raises:
            SpecError: a leaf did not travel as `encoded` gives it; names it.
        """
        out: dict[str, Any] = {}
        for key, node in tree.items():
            if not isinstance(node, Mapping):
                raise SpecError("a leaf did not travel as levels", path=key)
            if isinstance(node.get("raw"), np.ndarray):
                out[key] = node["raw"]
            elif isinstance(node.get("levels"), np.ndarray):
                levels, first, last = (np.asarray(node.get(name)) for name in ("levels", "least", "greatest"))
                if levels.dtype.kind != "u" or not all(end.shape == () and is_float(end) for end in (first, last)):
                    raise SpecError("a leaf did not travel as levels", path=key, expected="whole levels between two numbers")
                least, greatest = np.float64(first), np.float64(last)
                out[key] = np.asarray(least + np.minimum(levels, self.top) * ((greatest - least) / self.top)).astype(first.dtype)
            else:
                out[key] = self.decoded(node)
        return out

    def _leaf(self, leaf: Array, rng: np.random.Generator) -> Any:
        if leaf.size <= self.threshold or not is_float(leaf):
            return {"raw": leaf}
        least, greatest = np.float64(leaf.min()), np.float64(leaf.max())
        if not (np.isfinite(least) and np.isfinite(greatest)):
            raise NotFiniteError(
                "a value that is to be quantised is not finite", expected="finite numbers", got=f"{least}..{greatest}"
            )
        places = (leaf.astype(np.float64) - least) / ((greatest - least) / self.top or 1.0)
        levels = np.clip(np.floor(places + rng.random(leaf.shape)), 0, self.top)
        dtype = np.uint8 if self.bits <= 8 else np.uint16
        return {
            "levels": levels.astype(dtype),
            "least": np.asarray(least, leaf.dtype),
            "greatest": np.asarray(greatest, leaf.dtype),
        }


@dataclass(frozen=True, slots=True)
class SumOfLevels:
    """The Aggregator of trees that travel as levels: each is decoded, then added as `Sum` adds."""

    code: Levels

    def zero(self, like: Tree) -> Accumulator:
        """An empty accumulator for trees that travel as this one."""
        return Sum().zero(self.code.decoded(like))

    def add(self, acc: Accumulator, update: Tree, weight: float) -> Accumulator:
        """The accumulator with one more tree.

        Raises:
            SpecError: it has other leaves; nothing was added.
        """
        return Sum().add(acc, self.code.decoded(update), weight)

    def merge(self, left: Accumulator, right: Accumulator) -> Accumulator:
        """The accumulator of both."""
        return Sum().merge(left, right)

    def finish(self, acc: Accumulator) -> dict[str, Any]:
        """The sum, decoded."""
        return Sum().finish(acc)


def _discretised(
    name: str, stochastic: bool, step_size: float, inner_factory: UnweightedAggregationFactory, value_type: Type
) -> AggregationProcess:
    steps_type = with_dtypes(floats(value_type), lambda _: np.int32)
    inner = inner_factory.create(steps_type)
    made = np.float32 if contains(value_type, ObjectType) else np.float64  # a Tree's dtypes are not known; others are made again

    def rounded(value: Any, size: Any, *, ctx: FLContext) -> Any:
        rng = ctx.rng("discretise")
        return on_leaves(lambda a: _whole(a.astype(np.float64) / size, rng if stochastic else None), value, kind=steps_type)

    def scaled(steps: Any, size: Any) -> Any:
        return typed(on_leaves(lambda a: np.asarray(a * np.float64(size)).astype(made), steps, kind=steps_type), value_type)

    discretise = local(name, rounded, {"value": value_type, "step_size": FLOAT32}, steps_type, "ctx")
    undo = local("scaled", scaled, {"steps": steps_type, "step_size": FLOAT32}, value_type)
    first = local("step_size", lambda: np.float32(step_size), {}, FLOAT32)

    def initialize() -> Any:
        return federated_zip(OrderedDict(step_size=federated_eval(first, SERVER), inner_agg_process=start(inner)))

    def step(state: Any, value: Any) -> MeasuredProcessOutput:
        size = state["step_size"]
        done = run(inner, state["inner_agg_process"], federated_map(discretise, (value, federated_broadcast(size))))
        after = federated_zip(OrderedDict(step_size=size, inner_agg_process=done.state))
        told = federated_zip(OrderedDict([(name, done.measurements)]))
        return MeasuredProcessOutput(after, federated_map(undo, (done.result, size)), told)

    return process(initialize, step, value_type)


def _whole(places: Array, rng: np.random.Generator | None) -> Array:
    whole = np.rint(places) if rng is None else np.floor(places + rng.random(np.shape(places)))
    if not (np.abs(whole) <= MOST).all():
        raise SpecError("a value has more steps than an int32 holds", expected=f"at most {MOST}", hint="take larger steps, or clip")
    return whole.astype(np.int32)
