"""Reductions of client values at the server: the plain ones of TFF, and learning aggregators behind the gate."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

import ml_dtypes
import numpy as np

from hansa.core import half, trees
from hansa.core.graph import Reduce
from hansa.core.plan import Stage
from hansa.core.task import Block, Shareable
from hansa.core.trees import Array, Spec
from hansa.core.types import FederatedType, StructType, TensorType, Type
from hansa.core.values import unpack
from hansa.errors import SpecError, UpdateError


class Reducer(ABC):
    """One reduction under way; `start` is the value that it begins with, where the reduction names one.

    Plain ones fold in float64 in the order of arrival, which is slot order.
    """

    def __init__(self, reduce: Reduce, stage: Stage, start: Any, release: Callable[[], None] | None) -> None:
        self.reduce, self.label = reduce, stage.labels[id(reduce.value)]
        self.weight = None if reduce.weight is None else stage.labels[id(reduce.weight)]
        self.kind: Type = reduce.value.type
        self.start, self.release = start, release
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Before the first reply."""

    @abstractmethod
    def add(self, reply: Shareable) -> None:
        """Take in one reply.

        Raises:
            UpdateError: it cannot be added, and nothing was.
        """

    def add_block(self, block: Block) -> bool:  # noqa: ARG002  for those that can
        """Whether several replies were taken in at once, as they would be one by one; if not, none was."""
        return False

    @abstractmethod
    def finish(self) -> Any:
        """The value at the server."""

    def value_of(self, reply: Shareable) -> Any:
        return half.widened(reply.body.get(self.label, {}), reply.headers)

    def weight_of(self, reply: Shareable) -> float:
        return 1.0 if self.weight is None else float(cast(Array, reply.body[self.weight]))


def reducer(reduce: Reduce, stage: Stage, start: Any, release: Callable[[], None] | None = None) -> Reducer:
    """The reducer of one reduction. `release`: the replies can be kept, see StoredReplies."""
    kinds: dict[str, type[Any]] = {"mean": _Mean, "sum": _Sum, "min": _Extreme, "max": _Extreme}
    kinds |= {"collect": _Collect, "aggregate": _Aggregate, "using": _Using}
    return cast(Reducer, kinds.get(reduce.kind, _SecureSum)(reduce, stage, start, release))


class _Collect(Reducer):
    def begin(self) -> None:
        self.items: list[Any] = []

    def add(self, reply: Shareable) -> None:
        self.items.append(unpack(self.value_of(reply), self.kind))

    def finish(self) -> list[Any]:
        return self.items


class _Aggregate(Reducer):
    def begin(self) -> None:
        self.accumulate, _, self.report = self.reduce.using
        self.acc: Any = copy.deepcopy(self.start)  # a traced constant is every round's; `accumulate` may add in place

    def add(self, reply: Shareable) -> None:
        self.acc = self.accumulate(self.acc, unpack(self.value_of(reply), self.kind))

    def finish(self) -> Any:
        return self.acc if self.report is None else self.report(self.acc)


class _Using(Reducer):
    """Large updates that can be kept are folded together at the end: then memory is one result, and no accumulator."""

    def begin(self) -> None:
        self.fold = getattr(self.reduce.using, "fold", None) if self.release is not None and self.start is not None else None
        self.kept: list[tuple[trees.Tree, float]] = []
        self.acc = None if self.start is None else self.reduce.using.zero({} if self.fold else self.start)

    def add(self, reply: Shareable) -> None:
        # what is kept stays as it came: the fold widens it block by block
        update = as_tree(reply.body.get(self.label, {}) if self.fold else self.value_of(reply))
        weight = self.weight_of(reply)
        if self.acc is None:
            self.acc = self.reduce.using.zero(update)
        # the gate has checked the leaves of what is kept; what an aggregator says of weights, it says of an update without leaves
        self.acc = self.reduce.using.add(self.acc, {} if self.fold else update, weight)
        if self.fold:
            self.kept.append((update, weight))

    def add_block(self, block: Block) -> bool:
        add_many = getattr(self.reduce.using, "add_many", None)
        if add_many is None or self.acc is None or self.fold:
            return False
        weights = np.ones(len(block.slots)) if self.weight is None else cast(Array, block.body[self.weight])
        try:
            self.acc = add_many(self.acc, as_tree(block.body[self.label]), weights.tolist())
        except UpdateError:
            return False
        return True

    def finish(self) -> Any:
        if self.fold and self.kept:
            updates, weights = zip(*self.kept, strict=True)
            result = self.fold(updates, weights, like=self.start, after=self.release)
        else:
            result = self.reduce.using.finish(self.acc)
        return result["value"] if set(result) == {"value"} else unpack(result, self.kind)


class _Sum(Reducer):
    """Floats add in float64, integers in their own dtype (they wrap, as in TFF). All replies have the leaves of the first."""

    def begin(self) -> None:
        self.total: Any = None
        self.first: Any = None
        self.spec: Spec | None = None
        self.weights = 0.0

    def checked(self, reply: Shareable) -> Any:
        """The reply's value, when it has the leaves of the first one."""
        packed = self.value_of(reply)
        if self.spec is None:
            self.first, self.spec = packed, Spec.of({self.label: packed})
        self.spec.check({self.label: packed})  # or NumPy would stretch a site's one column over the others'
        return packed

    def add(self, reply: Shareable) -> None:
        packed = self.checked(reply)
        weight = self.weight_of(reply)
        self.weights += weight
        added = each(lambda a: wide(a) if self.weight is None else wide(a) * weight, packed)
        with np.errstate(over="ignore"):
            self.total = added if self.total is None else each(np.add, self.total, added)

    def finish(self) -> Any:
        if self.total is None:
            return unpack(empty(self.kind, lambda _: 0), self.kind)
        return unpack(narrow(self.total, self.first), self.kind)


class _Mean(_Sum):
    def finish(self) -> Any:
        if self.total is None:
            return unpack(empty(self.kind, lambda _: math.nan), self.kind)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = each(lambda t: np.divide(t, self.weights), self.total)
        keep = each(lambda a: a if a.dtype.kind in "fc" or a.dtype.name == "bfloat16" else np.float64(0), self.first)
        return unpack(each(lambda m, a: np.asarray(m).astype(a.dtype), mean, keep), self.kind)


class _Extreme(_Sum):
    """The least or greatest of each entry; of no clients the other end of the dtype's range."""

    def add(self, reply: Shareable) -> None:
        packed = self.checked(reply)
        self.total = (
            packed if self.total is None else each(np.minimum if self.reduce.kind == "min" else np.maximum, self.total, packed)
        )

    def finish(self) -> Any:
        if self.total is None:
            end = "max" if self.reduce.kind == "min" else "min"
            return unpack(empty(self.kind, lambda dtype: getattr(_range(dtype), end)), self.kind)
        return unpack(each(np.asarray, self.total), self.kind)


class _SecureSum(_Sum):
    """What a secure protocol gives, in the clear: the sum of integers within the agreed bound, or modulo it."""

    def add(self, reply: Shareable) -> None:
        if self.reduce.kind != "federated_secure_modular_sum":
            spread(self._check, self.checked(reply), self.start)
            return super().add(reply)
        rest = spread(_rest, self.checked(reply), self.start)
        self.total = rest if self.total is None else spread(_rest, each(np.add, self.total, rest), self.start)
        return None

    def _check(self, array: Array, bound: Any) -> Array:
        most = (1 << int(bound)) - 1 if self.reduce.kind == "federated_secure_sum_bitwidth" else int(bound)
        if array.size and (int(array.min()) < 0 or int(array.max()) > most):
            got = f"{array.min()}..{array.max()}"
            raise SpecError(f"{self.reduce.kind} cannot hold this", path=self.label, expected=f"0..{most}", got=got)
        return array


def _rest(array: Array, modulus: Any) -> Array:
    return np.asarray(array % array.dtype.type(modulus), np.uint64)  # two of them add up to less than 2^64


def spread(fn: Callable[[Array, Any], Array], packed: Any, bound: Any) -> Any:
    """`fn` on each array of a packed value with its own bound, or with the one there is."""
    if not isinstance(packed, Mapping):
        return fn(packed, bound)
    own = isinstance(bound, Mapping)
    return {name: spread(fn, item, bound[name] if own else bound) for name, item in packed.items()}


def narrow(total: Any, like: Any) -> Any:
    return each(lambda t, a: trees.cast_like(np.asarray(t), a.dtype), total, like)


def _range(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # NumPy's, for bfloat16 as well


def wide(array: Array) -> Array:
    if array.dtype.kind in "fV" or array.dtype.name == "bfloat16":
        return array.astype(np.float64)
    return array.astype(np.complex128) if array.dtype.kind == "c" else array


def each(fn: Any, packed: Any, *others: Any) -> Any:
    return trees.map(fn, packed, *others) if isinstance(packed, Mapping) else fn(packed, *others)


def empty(kind: Type, fill: Callable[[np.dtype[Any]], Any]) -> Any:
    """A packed value of the type, filled: what a reduction of no clients gives. Unknown sizes are none."""
    member = kind.member if isinstance(kind, FederatedType) else kind
    if isinstance(member, StructType):
        return {name or str(i): empty(item, fill) for i, (name, item) in enumerate(member.elements)}
    if isinstance(member, TensorType):
        return np.full([n or 0 for n in member.shape or ()], fill(member.dtype), member.dtype)
    return np.float64(fill(np.dtype(np.float64)))


def as_tree(packed: Any) -> trees.Tree:
    """A packed value as a tree; a lone array is the leaf `value`."""
    return cast(trees.Tree, packed) if type(packed) is dict or isinstance(packed, Mapping) else {"value": packed}
