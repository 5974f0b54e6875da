"""Reductions of client values at the server: the plain ones of TFF, and learning aggregators behind the gate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from hansa.core import trees
from hansa.core.graph import Reduce
from hansa.core.plan import Stage
from hansa.core.trees import Array
from hansa.core.types import FederatedType, TensorType, Type
from hansa.core.values import unpack


class Reducer(ABC):
    """One reduction under way. Plain ones fold in float64 in the order of arrival, which is slot order."""

    def __init__(self, reduce: Reduce, label: str, weight: str | None) -> None:
        self.reduce, self.label, self.weight = reduce, label, weight
        self.kind: Type = reduce.value.type

    @abstractmethod
    def add(self, body: Mapping[str, Any]) -> None:
        """Take in one reply's body."""

    @abstractmethod
    def finish(self) -> Any:
        """The value at the server."""

    def value_of(self, body: Mapping[str, Any]) -> Any:
        return body.get(self.label, {})

    def weight_of(self, body: Mapping[str, Any]) -> float:
        return 1.0 if self.weight is None else float(body[self.weight])


def reducer(reduce: Reduce, stage: Stage, like: trees.Tree | None) -> Reducer:
    """The reducer of one reduction; `like` is a tree with the leaves that updates have, where the reduction names one."""
    label = stage.labels[id(reduce.value)]
    weight = None if reduce.weight is None else stage.labels[id(reduce.weight)]
    match reduce.kind:
        case "mean":
            return _Mean(reduce, label, weight)
        case "sum":
            return _Sum(reduce, label, weight)
        case "collect":
            return _Collect(reduce, label, weight)
        case "aggregate":
            return _Aggregate(reduce, label, weight)
    return _Using(reduce, label, weight, like)


class _Collect(Reducer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.items: list[Any] = []

    def add(self, body: Mapping[str, Any]) -> None:
        self.items.append(unpack(self.value_of(body), self.kind))

    def finish(self) -> list[Any]:
        return self.items


class _Aggregate(Reducer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        zero, self.accumulate, _, self.report = self.reduce.using
        self.acc: Any = zero.value

    def add(self, body: Mapping[str, Any]) -> None:
        self.acc = self.accumulate.fn(self.acc, unpack(self.value_of(body), self.kind))

    def finish(self) -> Any:
        return self.report.fn(self.acc)


class _Using(Reducer):
    def __init__(self, reduce: Reduce, label: str, weight: str | None, like: trees.Tree | None) -> None:
        super().__init__(reduce, label, weight)
        self.acc = None if like is None else reduce.using.zero(like)

    def add(self, body: Mapping[str, Any]) -> None:
        update = as_tree(self.value_of(body))
        if self.acc is None:
            self.acc = self.reduce.using.zero(update)
        self.acc = self.reduce.using.add(self.acc, update, self.weight_of(body))

    def finish(self) -> Any:
        result = self.reduce.using.finish(self.acc)
        return result["value"] if set(result) == {"value"} else unpack(result, self.kind)


class _Sum(Reducer):
    """Floats add in float64, integers in their own dtype (they wrap, as in TFF)."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.total: Any = None
        self.like: Any = None
        self.weights = 0.0

    def add(self, body: Mapping[str, Any]) -> None:
        packed, weight = self.value_of(body), self.weight_of(body)
        self.weights += weight
        wide = _each(lambda a: _wide(a) if self.weight is None else _wide(a) * weight, packed)
        self.like = packed if self.like is None else self.like
        with np.errstate(over="ignore"):
            self.total = wide if self.total is None else _each(np.add, self.total, wide)

    def finish(self) -> Any:
        if self.total is None:
            return unpack(_empty(self.kind, 0.0), self.kind)
        return unpack(_each(lambda t, a: trees.cast_like(np.asarray(t), a.dtype), self.total, self.like), self.kind)


class _Mean(_Sum):
    def finish(self) -> Any:
        if self.total is None:
            return unpack(_empty(self.kind, float("nan")), self.kind)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = _each(lambda t: np.divide(t, self.weights), self.total)
        keep = _each(lambda a: a if a.dtype.kind in "fc" or a.dtype.name == "bfloat16" else np.float64(0), self.like)
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
