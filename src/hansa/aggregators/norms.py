"""Bounds on the size of each client's value: clipping, and zeroing of what is far too large."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hansa.aggregators.leaves import (
    FLOAT32,
    INT32,
    F,
    around,
    created,
    floats,
    is_float,
    local,
    process,
    run,
    start,
    tree_of,
    value_of,
)
from hansa.aggregators.means import SumFactory
from hansa.aggregators.quantile import estimated
from hansa.core import trees
from hansa.core.intrinsics import federated_broadcast, federated_map, federated_zip
from hansa.core.trees import Array, Tree
from hansa.core.types import StructType, Type
from hansa.errors import ConfigError, NotFiniteError
from hansa.templates import (
    AggregationProcess,
    EstimationProcess,
    MeasuredProcessOutput,
    UnweightedAggregationFactory,
)

LARGEST = float(np.finfo(np.float32).max)


class Bounded(NamedTuple):
    """A value within its bound, the norm that it had, and whether it was changed (1 or 0)."""

    value: Any
    norm: Any
    changed: Any


def clipping_factory(
    clipping_norm: float | EstimationProcess,
    inner_agg_factory: F,
    clipped_count_sum_factory: UnweightedAggregationFactory | None = None,
) -> F:
    """The inner aggregation of values scaled down to an L2 norm, over all tensors together, of at most `clipping_norm`.

    The norm is a number, or an EstimationProcess of the clients' norms, such as `quantile_estimation`: then each round clips to the
    estimate so far. Measured are the norm and how many clients were clipped. A value that is not finite is an error at its site.

    >>> from hansa.aggregators.means import UnweightedMeanFactory
    >>> from hansa.core.types import TensorType
    >>> process = clipping_factory(2.5, UnweightedMeanFactory()).create(TensorType(np.float32, [2]))
    >>> done = process.next(process.initialize(), [[1.0, 2.0], [3.0, 4.0]])
    >>> print(done.result, done.measurements["clipped_count"])
    [1.25 2.  ] 1

    Raises:
        ConfigError: the norm is not a finite number > 0.
    """
    bound = estimated(clipping_norm, "clipping_norm")
    return _bounded(_clipped, "clipping", "clipped_count", bound, inner_agg_factory, clipped_count_sum_factory)


def zeroing_factory(
    zeroing_norm: float | EstimationProcess,
    inner_agg_factory: F,
    norm_order: float = np.inf,
    zeroed_count_sum_factory: UnweightedAggregationFactory | None = None,
) -> F:
    """The inner aggregation of values of which those with a norm above `zeroing_norm` count as zero, with their weight.

    norm_order: inf (the largest entry), 1 or 2. Otherwise as `clipping_factory`. An infinite entry is above every bound. NaN is no
    size: it is left to whoever checks the value next.

    Raises:
        ConfigError: the norm is not a finite number > 0, or there is no such order.
    """
    if norm_order not in (1, 2, np.inf):
        raise ConfigError("no such norm", path="norm_order", got=repr(norm_order), expected="1, 2 or inf")
    bound = estimated(zeroing_norm, "zeroing_norm")

    def zeroed(tree: Tree, most: float) -> tuple[Tree, float, bool]:
        size = norm_of(tree, norm_order)
        return (trees.zeros(tree), size, True) if size > most else (tree, size, False)

    return _bounded(zeroed, "zeroing", "zeroed_count", bound, inner_agg_factory, zeroed_count_sum_factory)


def norm_of(tree: Tree, order: float) -> float:
    """The norm of all floating-point leaves together, in float64; counters take no part."""
    moving = [leaf.ravel() for _, leaf in trees.leaves(tree) if is_float(leaf) and leaf.size]
    with np.errstate(over="ignore", invalid="ignore"):
        norms = [_norm(leaf, order) for leaf in moving]
        return float(np.linalg.norm(norms, order)) if norms else 0.0


def _norm(line: Array, order: float) -> float:
    if order == np.inf:
        return float(np.maximum(line.max(), -line.min()))  # NaN where one is
    wide = line.astype(np.float64)
    return float(np.sqrt(wide @ wide)) if order == 2 else float(np.abs(wide).sum())


def _clipped(tree: Tree, most: float) -> tuple[Tree, float, bool]:
    size = norm_of(tree, 2)
    if not np.isfinite(size):
        raise NotFiniteError("the norm of a value that is to be clipped is not finite", expected="finite numbers", got=size)
    if size <= most:
        return tree, size, False
    return (
        trees.map(lambda a: np.multiply(a, most / size, dtype=np.float64).astype(a.dtype) if is_float(a) else a, tree),
        size,
        True,
    )


def _bounded(
    bounding: Callable[[Tree, float], tuple[Tree, float, bool]],
    name: str,
    counted: str,
    norm_process: EstimationProcess,
    inner_factory: F,
    count_factory: UnweightedAggregationFactory | None,
) -> F:
    """The factory of both: state `<name_norm, inner_agg, counted_agg>`, measurements `<name, name_norm, counted>`."""
    norm_name = f"{name}_norm"

    def make(value_type: Type, weight_type: Type | None) -> AggregationProcess:
        inner = created(inner_factory, floats(value_type), weight_type)
        count = (count_factory or SumFactory()).create(INT32)

        def bounded(value: Any, bound: Any) -> Bounded:
            tree, size, changed = bounding(tree_of(value), float(bound))
            kept = value_of(tree, value_type) if changed else value
            return Bounded(kept, np.float32(min(size, LARGEST)), np.int32(changed))

        gives = StructType([("value", value_type), ("norm", FLOAT32), ("changed", INT32)], Bounded)
        bound_value = local(name, bounded, {"value": value_type, "bound": FLOAT32}, gives)

        def initialize() -> Any:
            states = (start(norm_process), start(inner), start(count))
            return federated_zip(OrderedDict(zip(_names(norm_name, counted), states, strict=True)))

        def step(state: Any, value: Any, *weight: Any) -> MeasuredProcessOutput:
            norm = norm_process.report(state[norm_name])
            each = federated_map(bound_value, (value, federated_broadcast(norm)))
            after = run(norm_process, state[norm_name], each.norm)
            done = run(inner, state["inner_agg"], each.value, *weight)
            changed = run(count, state[f"{counted}_agg"], each.changed)
            return MeasuredProcessOutput(
                federated_zip(OrderedDict(zip(_names(norm_name, counted), (after, done.state, changed.state), strict=True))),
                done.result,
                federated_zip(OrderedDict([(name, done.measurements), (norm_name, norm), (counted, changed.result)])),
            )

        return process(initialize, step, value_type, weight_type)

    return around(inner_factory, make)


def _names(norm_name: str, counted: str) -> tuple[str, str, str]:
    return norm_name, "inner_agg", f"{counted}_agg"
