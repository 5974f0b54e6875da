"""Sums that only a secure protocol sees term by term: exact in simulation, refused by a federation without such a protocol."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hansa.aggregators.leaves import FLOAT32, INT32, local, on_leaves, process, run, start, tree_of, typed, with_dtypes
from hansa.aggregators.means import nothing
from hansa.aggregators.quantile import affine, constant, quantile_estimation
from hansa.core import trees
from hansa.core.intrinsics import (
    each_tensor,
    federated_broadcast,
    federated_map,
    federated_secure_modular_sum,
    federated_secure_sum,
    federated_value,
    federated_zip,
)
from hansa.core.round import is_count, is_real
from hansa.core.trees import Array
from hansa.core.types import CLIENTS, ObjectType, StructType, TensorType, Type, contains
from hansa.errors import ConfigError, NotFiniteError, TraceError
from hansa.templates import AggregationProcess, EstimationProcess, MeasuredProcessOutput, UnweightedAggregationFactory

STEPS = 2**32 - 1  # of a float between its bounds; 2^31 clients' fit an int64
INT64 = TensorType(np.int64)


class Masked(NamedTuple):
    """What goes into the secure sum: whole numbers from 0, the client's largest and least entry against the bounds, a one."""

    whole: Any
    norm: Any
    above: Any
    below: Any


@dataclass(frozen=True)
class SecureSumFactory(UnweightedAggregationFactory):
    """The sum of values clipped to `lower..upper`, entry by entry; a lower bound of None is -upper.

    Integers are added as they are; floats in 2^32 - 1 steps between the bounds, so that each is at most half a step off. The upper
    bound may be an EstimationProcess of each client's largest entry in size (then no lower bound is given). Measured are the
    bounds, and how many clients were clipped at each.

    >>> process = SecureSumFactory(3.0).create(TensorType(np.float32))
    >>> done = process.next(process.initialize(), [1.0, 2.0, 5.0])
    >>> print(done.result, done.measurements["secure_upper_clipped_count"])
    6.0 1

    Raises:
        ConfigError: the bounds are not two numbers in order.
    """

    upper_bound_threshold: float | EstimationProcess
    lower_bound_threshold: float | None = None

    def __post_init__(self) -> None:
        upper, lower = self.upper_bound_threshold, self.lower_bound_threshold
        if isinstance(upper, EstimationProcess):
            if lower is not None:
                raise ConfigError("an estimated upper bound has a lower one already", path="lower_bound_threshold", got=lower)
        elif not (is_real(upper) and (lower is None or is_real(lower)) and upper > (-upper if lower is None else lower)):
            raise ConfigError(
                "the bounds are two numbers, the lower one first", path="upper_bound_threshold", got=f"{lower}..{upper}"
            )

    def create(self, value_type: Type) -> AggregationProcess:
        """The process.

        Raises:
            TraceError: a tensor is not of integers or floats, or its shape is not known.
        """
        each_tensor(value_type, "iuf", "a secure sum is taken of integers or floats of known shape", known=True)
        given = self.upper_bound_threshold
        upper_process = given if isinstance(given, EstimationProcess) else constant(float(given))
        code = _Code(value_type, self.lower_bound_threshold, _integers(value_type))
        gives = StructType([("whole", code.whole_type), ("norm", FLOAT32), ("above", INT32), ("below", INT32)], Masked)
        mask = local("secure_steps", code.masked, {"value": value_type, "upper": FLOAT32}, gives)
        unmask = local("opened", code.opened, {"total": code.whole_type, "count": INT32, "upper": FLOAT32}, value_type)
        low = local("lower", lambda upper: np.float32(code.bounds(upper)[0]), {"upper": FLOAT32}, FLOAT32)
        most = local("largest_step", code.largest, {"upper": FLOAT32}, INT64)

        def step(state: Any, value: Any) -> MeasuredProcessOutput:
            upper = upper_process.report(state)
            each = federated_map(mask, (value, federated_broadcast(upper)))
            total = federated_secure_sum(each.whole, federated_map(most, upper))
            count = federated_secure_sum(federated_value(np.int32(1), CLIENTS), 1)
            told = OrderedDict(
                secure_upper_clipped_count=federated_secure_sum(each.above, 1),
                secure_lower_clipped_count=federated_secure_sum(each.below, 1),
                secure_upper_threshold=upper,
                secure_lower_threshold=federated_map(low, upper),
            )
            after = run(upper_process, state, each.norm)
            return MeasuredProcessOutput(after, federated_map(unmask, (total, count, upper)), federated_zip(told))

        return process(lambda: start(upper_process), step, value_type)


@dataclass(frozen=True)
class _Code:
    """How values between two bounds become whole numbers from 0, and their sum a value again. `lower` None is -upper."""

    value_type: Type
    lower: float | None
    integers: bool

    @property
    def whole_type(self) -> Type:
        return with_dtypes(self.value_type, lambda _: np.int64)

    def bounds(self, upper: Any) -> tuple[float, float]:
        return (-float(upper) if self.lower is None else float(self.lower)), float(upper)

    def largest(self, upper: Any) -> Any:
        """The greatest whole number of one client."""
        lower, high = self.bounds(upper)
        return np.int64(int(high) - int(lower) if self.integers else STEPS)

    def masked(self, value: Any, upper: Any) -> Masked:
        """A client's value as it goes into the secure sums.

        Raises:
            NotFiniteError: an entry is NaN, which has no place between bounds.
        """
        lower, high = self.bounds(upper)
        leaves = [leaf for _, leaf in trees.leaves(tree_of(value)) if leaf.size]
        most = max((float(leaf.max()) for leaf in leaves), default=lower)
        least = min((float(leaf.min()) for leaf in leaves), default=high)
        whole = on_leaves(lambda leaf: self._steps(leaf, lower, high), value, kind=self.whole_type)
        return Masked(whole, np.float32(max(abs(most), abs(least))), np.int32(most > high), np.int32(least < lower))

    def opened(self, total: Any, count: Any, upper: Any) -> Any:
        """The sum of so many clients' values."""
        lower, high = self.bounds(upper)
        step, first = (1, int(lower)) if self.integers else ((high - lower) / STEPS, lower)
        return typed(
            on_leaves(lambda leaf: np.asarray(leaf * step + int(count) * first), total, kind=self.value_type), self.value_type
        )

    def _steps(self, leaf: Array, lower: float, upper: float) -> Array:
        if self.integers:
            whole = np.minimum(leaf, np.uint64(2**63 - 1)) if leaf.dtype == np.uint64 else leaf
            return np.asarray(np.clip(whole.astype(np.int64), int(lower), int(upper)) - int(lower))
        inside = np.clip(leaf.astype(np.float64), lower, upper)
        if np.isnan(inside).any():
            raise NotFiniteError("a value that goes into a secure sum is not a number", expected="numbers", got="nan")
        return np.asarray(np.rint((inside - lower) * (STEPS / (upper - lower)))).astype(np.int64)


@dataclass(frozen=True)
class SecureModularSumFactory(UnweightedAggregationFactory):
    """The sum of integers modulo `modulus`; with `symmetric_range` of those from -(modulus - 1) to modulus - 1, wrapped into them.

    >>> process = SecureModularSumFactory(8, symmetric_range=True).create(TensorType(np.int32))
    >>> print(process.next(process.initialize(), [5, -6, 7]).result)
    6

    Raises:
        ConfigError: the modulus is not a whole number of at least 2.
    """

    modulus: int
    symmetric_range: bool = False

    def __post_init__(self) -> None:
        if not (is_count(self.modulus) and 2 <= self.modulus <= 2**31):
            raise ConfigError("a modulus is a whole number", path="modulus", expected="2 to 2^31", got=repr(self.modulus))

    def create(self, value_type: Type) -> AggregationProcess:
        """The process: no state, no measurements."""
        each_tensor(value_type, "iu", "a modular sum is taken of integers of known shape", known=True)
        if contains(value_type, ObjectType):
            raise TraceError("a modular sum is taken of integers", got=value_type, hint="a Tree may have others")
        wide = with_dtypes(value_type, lambda _: np.int64)
        modulus = 2 * self.modulus - 1 if self.symmetric_range else self.modulus

        def wrapped(total: Any) -> Any:
            half = self.modulus if self.symmetric_range else modulus
            return typed(on_leaves(lambda a: np.where(a >= half, a - modulus, a), total, kind=value_type), value_type)

        enter = local("modulo", lambda v: on_leaves(lambda a: a.astype(np.int64) % modulus, v, kind=wide), {"v": value_type}, wide)
        leave = local("wrapped", wrapped, {"total": wide}, value_type)

        def step(state: Any, value: Any) -> MeasuredProcessOutput:
            total = federated_secure_modular_sum(federated_map(enter, value), np.int64(modulus))
            return MeasuredProcessOutput(state, federated_map(leave, total), nothing())

        return process(nothing, step, value_type)


def adaptive_bound(initial_bound: float, target_quantile: float, learning_rate: float, multiplier: float) -> EstimationProcess:
    """`multiplier` times the quantile of clients' largest entries, counted by secure sums."""
    return affine(quantile_estimation(initial_bound, target_quantile, learning_rate, secure_estimation=True), multiplier=multiplier)


def _integers(kind: Type) -> bool:
    """Whether all tensors are of integers; those of a Tree, which are not known, are taken as floats.

    Raises:
        TraceError: there are both, which have no step in common.
    """
    kinds = {dtype.kind in "iu" for dtype in _dtypes(kind)} or {False}
    if len(kinds) > 1:
        raise TraceError("a secure sum is of integers or of floats", got=kind, hint="sum them by a process each")
    return kinds.pop()


def _dtypes(kind: Type) -> list[np.dtype[Any]]:
    return [kind.dtype] if isinstance(kind, TensorType) else [dtype for each in kind.children() for dtype in _dtypes(each)]
