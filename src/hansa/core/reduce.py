"""Reductions of client values at the server: the plain ones of TFF, and learning aggregators behind the gate."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from hansa.core import half, trees
from hansa.core.graph import Reduce
from hansa.core.plan import Stage
from hansa.core.task import Shareable
from hansa.core.trees import Array, Spec
from hansa.core.types import FederatedType, TensorType, Type
from hansa.core.values import unpack


class Reducer(ABC):
    """One reduction under way; `like` is a tree with the leaves that updates have, where the reduction names one.

    Plain ones fold in float64 in the order of arrival, which is slot order.
    """

    def __init__(self, reduce: Reduce, stage: Stage, like: trees.Tree | None, release: Callable[[], None] | None) -> None:
        self.reduce, self.label = reduce, stage.labels[id(reduce.value)]
        self.weight = None if reduce.weight is None else stage.labels[id(reduce.weight)]
        self.kind: Type = reduce.value.type
        self.like, self.release = like, release
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

    @abstractmethod
    def finish(self) -> Any:
        """The value at the server."""

    def value_of(self, reply: Shareable) -> Any:
        return half.widened(reply.body.get(self.label, {}), reply.headers)

    def weight_of(self, reply: Shareable) -> float:
        return 1.0 if self.weight is None else float(cast(Array, reply.body[self.weight]))


def reducer(reduce: Reduce, stage: Stage, like: trees.Tree | None, release: Callable[[], None] | None = None) -> Reducer:
    """The reducer of one reduction. `release`: the replies can be kept, see StoredReplies."""
    kinds: dict[str, type[Any]] = {"mean": _Mean, "sum": _Sum, "collect": _Collect, "aggregate": _Aggregate, "using": _Using}
    return cast(Reducer, kinds[reduce.kind](reduce, stage, like, release))


class _Collect(Reducer):
    def begin(self) -> None:
        self.items: list[Any] = []

    def add(self, reply: Shareable) -> None:
        self.items.append(unpack(self.value_of(reply), self.kind))

    def finish(self) -> list[Any]:
        return self.items


class _Aggregate(Reducer):
    def begin(self) -> None:
        zero, self.accumulate, _, self.report = self.reduce.using
        self.acc: Any = copy.deepcopy(zero.value)  # the traced constant is every round's; `accumulate` may add in place

    def add(self, reply: Shareable) -> None:
        self.acc = self.accumulate.fn(self.acc, unpack(self.value_of(reply), self.kind))

    def finish(self) -> Any:
        return self.report.fn(self.acc)


class _Using(Reducer):
    """Large updates that can be kept are folded together at the end: then memory is one result, and no accumulator."""

    def begin(self) -> None:
        self.fold = getattr(self.reduce.using, "fold", None) if self.release is not None and self.like is not None else None
        self.kept: list[tuple[trees.Tree, float]] = []
        self.acc = None if self.like is None else self.reduce.using.zero({} if self.fold else self.like)

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

    def finish(self) -> Any:
        if self.fold and self.kept:
            updates, weights = zip(*self.kept, strict=True)
            result = self.fold(updates, weights, like=self.like, after=self.release)
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

    def add(self, reply: Shareable) -> None:
        packed = self.value_of(reply)
        if self.spec is None:
            self.first, self.spec = packed, Spec.of({self.label: packed})
        self.spec.check({self.label: packed})  # or NumPy would stretch a site's one column over the others'
        weight = self.weight_of(reply)
        self.weights += weight
        wide = _each(lambda a: _wide(a) if self.weight is None else _wide(a) * weight, packed)
        with np.errstate(over="ignore"):
            self.total = wide if self.total is None else _each(np.add, self.total, wide)

    def finish(self) -> Any:
        if self.total is None:
            return unpack(_empty(self.kind, 0.0), self.kind)
        return unpack(_each(lambda t, a: trees.cast_like(np.asarray(t), a.dtype), self.total, self.first), self.kind)


class _Mean(_Sum):
    def finish(self) -> Any:
        if self.total is None:
            return unpack(_empty(self.kind, float("nan")), self.kind)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = _each(lambda t: np.divide(t, self.weights), self.total)
        keep = _each(lambda a: a if a.dtype.kind in "fc" or a.dtype.name == "bfloat16" else np.float64(0), self.first)
        return unpack(_each(lambda m, a: np.asarray(m).astype(a.dtype), mean, keep), self.kind)


def _wide(array: Array) -> Array:
    if array.dtype.kind in "fV" or array.dtype.name == "bfloat16":
        return array.astype(np.float64)
    return array.astype(np.complex128) if array.dtype.kind == "c" else array


def _each(fn: Any, packed: Any, *others: Any) -> Any:
    return trees.map(fn, packed, *others) if isinstance(packed, Mapping) else fn(packed, *others)


def _empty(kind: Type, fill: float) -> Any:
    member = kind.member if isinstance(kind, FederatedType) else kind
    elements = getattr(member, "elements", None)
    if elements is not None:
        return {name or str(i): _empty(item, fill) for i, (name, item) in enumerate(elements)}
    if isinstance(member, TensorType):
        return np.full([n or 0 for n in member.shape or ()], fill).astype(member.dtype)
    return np.float64(fill)


def as_tree(packed: Any) -> trees.Tree:
    """A packed value as a tree; a lone array is the leaf `value`."""
    return cast(trees.Tree, packed) if type(packed) is dict or isinstance(packed, Mapping) else {"value": packed}
