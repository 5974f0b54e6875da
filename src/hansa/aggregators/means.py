"""Sums and means, and small changes of other aggregations: a weight that is ignored, one tensor of all, more measurements."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hansa.aggregators.counts import Count
from hansa.aggregators.leaves import INT32, F, around, created, floats, local, on_leaves, process, run, start, typed, with_dtypes
from hansa.core.graph import member_of
from hansa.core.intrinsics import federated_aggregate, federated_map, federated_sum, federated_value, federated_zip
from hansa.core.trees import Array
from hansa.core.types import CLIENTS, SERVER, StructType, TensorType, Type
from hansa.core.values import pack, unpack
from hansa.errors import TraceError
from hansa.templates import (
    AggregationProcess,
    MeasuredProcessOutput,
    UnweightedAggregationFactory,
    WeightedAggregationFactory,
)


def nothing() -> Any:
    """While a process is traced: no state, or no measurements."""
    return federated_value((), SERVER)


@dataclass(frozen=True)
class SumFactory(UnweightedAggregationFactory):
    """The sum: no state, no measurements.

    >>> process = SumFactory().create(TensorType(np.float32))
    >>> print(process.next(process.initialize(), [1.0, 2.0, 5.0]).result)
    8.0
    """

    def create(self, value_type: Type) -> AggregationProcess:
        """The process."""
        return process(nothing, lambda state, value: MeasuredProcessOutput(state, federated_sum(value), nothing()), value_type)


@dataclass(frozen=True)
class MeanFactory(WeightedAggregationFactory):
    """sum(w_i v_i) / sum(w_i), each sum by a process of its own. A weight may be any integer or float.

    A site multiplies by its weight, in float32 or wider. Weights that sum to zero give nan, or 0 with `no_nan_division`.

    >>> process = MeanFactory().create(TensorType(np.float32), TensorType(np.float32))
    >>> print(process.next.type_signature.result.measurements)
    <mean_value=<>,mean_weight=<>>@SERVER
    >>> float(process.next(process.initialize(), [1.0, 2.0, 5.0], [1.0, 1.0, 2.0]).result)
    3.25
    """

    value_sum_factory: UnweightedAggregationFactory = SumFactory()
    weight_sum_factory: UnweightedAggregationFactory = SumFactory()
    no_nan_division: bool = False

    def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
        """The process.

        Raises:
            TraceError: a value is not of floats, or the weight not one number.
        """
        if not (isinstance(weight_type, TensorType) and weight_type.shape == () and weight_type.dtype.kind in "iuf"):
            raise TraceError("a weight is one integer or float at each client", got=weight_type)
        wide = with_dtypes(floats(value_type), _widened)
        value_sum, weight_sum = self.value_sum_factory.create(wide), self.weight_sum_factory.create(weight_type)
        times = local("weigh", lambda v, w: on_leaves(lambda a: _times(a, w), v, kind=wide), _two(value_type, weight_type), wide)
        share = _division(wide, weight_type, value_type, no_nan=self.no_nan_division)

        def initialize() -> Any:
            return federated_zip(OrderedDict(value_sum_process=start(value_sum), weight_sum_process=start(weight_sum)))

        def step(state: Any, value: Any, weight: Any) -> MeasuredProcessOutput:
            total = run(value_sum, state["value_sum_process"], federated_map(times, (value, weight)))
            weights = run(weight_sum, state["weight_sum_process"], weight)
            return MeasuredProcessOutput(
                federated_zip(OrderedDict(value_sum_process=total.state, weight_sum_process=weights.state)),
                federated_map(share, (total.result, weights.result)),
                federated_zip(OrderedDict(mean_value=total.measurements, mean_weight=weights.measurements)),
            )

        return process(initialize, step, value_type, weight_type)


@dataclass(frozen=True)
class UnweightedMeanFactory(UnweightedAggregationFactory):
    """sum(v_i) / n. The server counts the sites itself, unless another process is to count them.

    >>> process = UnweightedMeanFactory().create(TensorType(np.float32))
    >>> print(process.state_type, process.next(process.initialize(), [1.0, 2.0, 5.0]).result)
    <<>,<>>@SERVER 2.6666667
    """

    value_sum_factory: UnweightedAggregationFactory = SumFactory()
    count_sum_factory: UnweightedAggregationFactory | None = None

    def create(self, value_type: Type) -> AggregationProcess:
        """The process.

        Raises:
            TraceError: a value is not of floats.
        """
        wide = with_dtypes(floats(value_type), _widened)
        value_sum = self.value_sum_factory.create(wide)
        count_sum = (self.count_sum_factory or _Counted()).create(INT32)
        widen = local("widen", lambda v: on_leaves(lambda a: a.astype(_widened(a.dtype)), v, kind=wide), {"v": value_type}, wide)
        share = _division(wide, INT32, value_type, no_nan=False)

        def initialize() -> Any:
            return federated_zip((start(value_sum), start(count_sum)))

        def step(state: Any, value: Any) -> MeasuredProcessOutput:
            total = run(value_sum, state[0], federated_map(widen, value))
            count = run(count_sum, state[1], federated_value(np.int32(1), CLIENTS))
            return MeasuredProcessOutput(
                federated_zip((total.state, count.state)),
                federated_map(share, (total.result, count.result)),
                federated_zip(OrderedDict(mean_value=total.measurements, mean_count=count.measurements)),
            )

        return process(initialize, step, value_type)


@dataclass(frozen=True)
class _Counted(UnweightedAggregationFactory):
    """How many values came, whatever they are: no site can claim to be several."""

    def create(self, value_type: Type) -> AggregationProcess:
        def step(state: Any, value: Any) -> MeasuredProcessOutput:
            return MeasuredProcessOutput(state, federated_aggregate(value, Count()), nothing())

        return process(nothing, step, value_type)


def as_weighted_aggregator(unweighted_aggregator: UnweightedAggregationFactory) -> WeightedAggregationFactory:
    """The aggregation with a weight that it ignores: for what wants a weighted one."""

    def make(value_type: Type, weight_type: Type | None) -> AggregationProcess:
        inner = unweighted_aggregator.create(value_type)
        return process(lambda: start(inner), lambda state, value, _: run(inner, state, value), value_type, weight_type)

    return Ignoring(make)


@dataclass(frozen=True)
class Ignoring(WeightedAggregationFactory):
    """What `as_weighted_aggregator` gives."""

    make: Callable[[Type, Type | None], AggregationProcess]

    def create(self, value_type: Type, weight_type: Type) -> AggregationProcess:
        """The process."""
        return self.make(value_type, weight_type)


def concat_factory(inner_agg_factory: F) -> F:
    """The aggregation of all tensors of a value as one vector. Their shapes are known and their dtype is the same."""

    def make(value_type: Type, weight_type: Type | None) -> AggregationProcess:
        dtype, sizes = _flat(value_type)
        line = TensorType(dtype, (sum(sizes),))
        inner = created(inner_agg_factory, line, weight_type)
        join = local("concat", lambda v: np.concatenate([a.ravel() for a in _arrays(pack(v), value_type)]), {"v": value_type}, line)
        part = local("split", lambda a: _parted(a, value_type, sizes), {"v": line}, value_type)

        def step(state: Any, value: Any, *weight: Any) -> MeasuredProcessOutput:
            done = run(inner, state, federated_map(join, value), *weight)
            return MeasuredProcessOutput(done.state, federated_map(part, done.result), done.measurements)

        return process(lambda: start(inner), step, value_type, weight_type)

    return around(inner_agg_factory, make)


def add_measurements(
    inner_agg_factory: F,
    *,
    client_measurement_fn: Callable[..., Mapping[str, Any]] | None = None,
    server_measurement_fn: Callable[..., Mapping[str, Any]] | None = None,
) -> F:
    """The aggregation with more measurements: of the clients' values (and weights), and of the result at the server.

    Both functions are traced: they take federated values and give federated values at the server, by name.

    >>> import hansa as hs
    >>> most = add_measurements(SumFactory(), client_measurement_fn=lambda value: {"most": hs.federated_max(value)})
    >>> process = most.create(TensorType(np.float32))
    >>> print(process.next(process.initialize(), [1.0, 2.0, 5.0]).measurements["most"])
    5.0

    Raises:
        TraceError: none of the functions is given, or the inner measurements have no names.
    """
    if client_measurement_fn is None and server_measurement_fn is None:
        raise TraceError(
            "add_measurements needs a function that measures", expected="client_measurement_fn or server_measurement_fn"
        )

    def make(value_type: Type, weight_type: Type | None) -> AggregationProcess:
        inner = created(inner_agg_factory, value_type, weight_type)

        def step(state: Any, value: Any, *weight: Any) -> MeasuredProcessOutput:
            done = run(inner, state, value, *weight)
            kind = member_of(done.measurements.type_signature)
            names = kind.fields() if isinstance(kind, StructType) else []
            if not isinstance(kind, StructType) or len(names) < len(kind):
                raise TraceError("measurements are added to those with names", got=kind)
            all_of = OrderedDict((name, done.measurements[name]) for name in names)
            all_of.update(client_measurement_fn(value, *weight) if client_measurement_fn else {})
            all_of.update(server_measurement_fn(done.result) if server_measurement_fn else {})
            return MeasuredProcessOutput(done.state, done.result, federated_zip(all_of))

        return process(lambda: start(inner), step, value_type, weight_type)

    return around(inner_agg_factory, make)


def _two(value_type: Type, weight_type: Type) -> dict[str, Type]:
    return {"value": value_type, "weight": weight_type}


def _widened(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """In which dtype a leaf is weighted and added: float32 at least, float64 for what is no float (a Tree's counters)."""
    if dtype.kind == "f" and dtype.itemsize >= 4:
        return dtype
    return np.dtype(np.float32 if dtype.kind == "f" or dtype.name == "bfloat16" else np.float64)


def _times(leaf: Array, weight: Any) -> Array:
    dtype = _widened(leaf.dtype)
    return np.multiply(leaf, float(weight), dtype=np.float64).astype(dtype)


def _division(wide: Type, weight_type: Type, value_type: Type, *, no_nan: bool) -> Any:
    """The local function `(total, weight) -> value`, in float64, rounded once to the value's dtype."""

    def divide(total: Any, weight: Any) -> Any:
        by = float(weight)
        if no_nan and by == 0.0:
            return on_leaves(np.zeros_like, total, kind=value_type)
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient = on_leaves(lambda a: np.divide(a, by, dtype=np.float64).astype(a.dtype), total, kind=wide)
        return typed(quotient, value_type)

    return local("divide", divide, {"total": wide, "weight": weight_type}, value_type)


def _flat(kind: Type) -> tuple[np.dtype[Any], list[int]]:
    """The one dtype of all tensors, and the size of each."""
    if isinstance(kind, TensorType) and kind.shape is not None and None not in kind.shape:
        return kind.dtype, [math.prod(n or 0 for n in kind.shape)]
    if not isinstance(kind, StructType) or not len(kind):
        raise TraceError("concat_factory needs the shape of every tensor", got=kind, hint="create it for a type, not for a Tree")
    found = [_flat(each) for each in kind.children()]
    if len({dtype for dtype, _ in found}) > 1:
        raise TraceError("concat_factory needs one dtype for all tensors", got=kind)
    return found[0][0], [size for _, sizes in found for size in sizes]


def _arrays(packed: Any, kind: Type) -> list[Array]:
    """The tensors of a packed value in the order of its type: a dict may have its names in another one."""
    if not isinstance(kind, StructType):
        return [np.asarray(packed)]
    named = [(name or str(i), each) for i, (name, each) in enumerate(kind.elements)]
    return [array for name, each in named for array in _arrays(packed[name], each)]


def _parted(line: Any, kind: Type, sizes: list[int]) -> Any:
    parts = iter(np.split(np.asarray(line), np.cumsum(sizes)[:-1]))
    return unpack(_shaped(kind, parts), kind)


def _shaped(kind: Type, parts: Any) -> Any:
    if isinstance(kind, TensorType):
        return next(parts).reshape([n or 0 for n in kind.shape or ()])
    elements = kind.elements if isinstance(kind, StructType) else ()  # _flat has seen to it
    return {name or str(i): _shaped(each, parts) for i, (name, each) in enumerate(elements)}
