"""Rows: the arrays of one site, or of one pooled source, and their division into train, valid and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, get_args

import numpy as np

from hansa.core.protocols import Part
from hansa.core.rng import generator
from hansa.core.trees import Array
from hansa.errors import DataError

PARTS: tuple[Part, ...] = get_args(Part)
Split: TypeAlias = Sequence[float]
SPLIT = (0.7, 0.15, 0.15)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A Dataset in memory: `x` (n, ...), `y` (n, ...) and named columns (n, ...) such as the site of each row.

    `parts` (n,) holds 0, 1 or 2 for a row of train, valid or test; None means that all rows are for training. `features` names the
    columns of a two-dimensional x, `classes` the labels 0, 1, ... of y; either may be empty.

    >>> rows = Rows(np.zeros((3, 2)), np.array([0, 1, 1]), parts=np.array([0, 0, 2]))
    >>> len(rows.part("train")), len(rows.part("valid")), len(rows.part("test"))
    (2, 0, 1)

    Raises:
        DataError: the lengths differ, an array holds Python objects, or a part is not 0, 1 or 2.
    """

    x: Array
    y: Array
    columns: Mapping[str, Array] = field(default_factory=dict)
    parts: Array | None = None
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        named = {"x": self.x, "y": self.y, **{f"columns/{name}": values for name, values in self.columns.items()}}
        if self.parts is not None:
            named["parts"] = self.parts
        for name, values in named.items():
            if not isinstance(values, np.ndarray) or values.dtype.kind == "O" or values.ndim == 0:
                got = values.dtype if isinstance(values, np.ndarray) and values.ndim else type(values).__name__
                raise DataError("rows are numpy arrays with one entry a row", path=name, got=got)
            if len(values) != len(self.x):
                raise DataError(
                    "each array has one entry a row", path=name, expected=f"{len(self.x)} rows, as x has", got=len(values)
                )
        if self.parts is not None and not _are_codes(self.parts):
            raise DataError("a row is of train (0), valid (1) or test (2)", path="parts", got=np.unique(self.parts).tolist())
        if self.features and self.x.shape[1:] != (len(self.features),):
            raise DataError("there is one name a feature", path="features", expected=self.x.shape[1:], got=len(self.features))

    def __len__(self) -> int:
        return len(self.x)

    def part(self, name: Part) -> Rows:
        """The rows of one part in their order, possibly none; a part of itself is itself. A view where the rows lie together."""
        if name not in PARTS:
            raise DataError("no such part", path=str(name), expected=" or ".join(PARTS))
        code = PARTS.index(name)
        if self.parts is None:
            return self if code == 0 else self._at(slice(0, 0))
        where = np.flatnonzero(self.parts == code)
        if len(where) == len(self):
            return self
        if len(where) and where[-1] - where[0] + 1 == len(where):
            return self._at(slice(int(where[0]), int(where[-1]) + 1))
        return self._at(where)

    def take(self, indices: Array) -> Rows:
        """The rows at these indices (k,), in that order, each still of its own part; a copy.

        Raises:
            DataError: an index is not an integer from 0 to n - 1.
        """
        where = np.asarray(indices)
        if where.size == 0:
            return self._at(slice(0, 0))
        if where.dtype.kind not in "iu" or where.ndim != 1 or where.min() < 0 or where.max() >= len(self):
            raise DataError("rows are taken by a list of indices", path="indices", expected=f"integers from 0 to {len(self) - 1}")
        return self._at(where)

    def _at(self, where: Array | slice) -> Rows:
        columns = {name: values[where] for name, values in self.columns.items()}
        parts = None if self.parts is None else self.parts[where]
        return Rows(self.x[where], self.y[where], columns, parts, self.features, self.classes)


def _are_codes(parts: Array) -> bool:
    if parts.ndim != 1 or parts.dtype.kind not in "iu":
        return False
    return not parts.size or bool(parts.view(parts.dtype.str.replace("i", "u")).max() <= 2)  # unsigned, a negative one is huge


def labelled(y: Array) -> bool:
    """Whether y holds class labels: one integer or boolean a row."""
    return y.ndim == 1 and y.dtype.kind in "iub"


def check_split(split: Split) -> tuple[float, float, float]:
    """The three fractions of train, valid and test as floats.

    Raises:
        DataError: they are not three numbers from 0 to 1 that sum to 1.
    """
    try:
        values = tuple(float(value) for value in split)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(0 <= value <= 1 for value in values) or abs(sum(values) - 1) > 1e-9:
        raise DataError(
            "a split is the fractions of train, valid and test",
            path="split",
            expected="three numbers from 0 to 1 that sum to 1, as [0.7, 0.15, 0.15]",
            got=split,
        )
    return values[0], values[1], values[2]


def divide(rows: Rows, *, split: Split = SPLIT, seed: int = 0, slot: int = 0) -> Rows:
    """The same rows, ordered by part: train, then valid, then test, so that each part is a view.

    Rows that have parts already (a source with its own test set) keep their test part, and train and valid share the other rows
    as `split` says; where there are valid rows as well, nothing changes hands. Otherwise the three share all rows. The stream is
    keyed by (seed, slot), and each label is divided alike, to within one row.

    >>> y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> rows = divide(Rows(np.zeros((8, 1)), y), split=(0.5, 0.25, 0.25))
    >>> [rows.part(name).y.tolist() for name in PARTS]
    [[0, 0, 1, 1], [0, 1], [0, 1]]

    Raises:
        DataError: `split` is not three fractions, or gives nothing to train and valid although the test set is given.
    """
    order, parts = arrange(rows.y, rows.parts, own_valid=has_valid(rows), split=split, seed=seed, slot=slot)
    return ordered(rows, order, parts)


def ordered(rows: Rows, order: Array, parts: Array) -> Rows:
    """The rows at the indices `order` (k,) with the part codes `parts` (k,) in place of their own."""
    taken = rows.take(order)
    return Rows(taken.x, taken.y, taken.columns, parts, rows.features, rows.classes)


def has_valid(rows: Rows) -> bool:
    """Whether the rows bring a valid part of their own."""
    return rows.parts is not None and bool((rows.parts == 1).any())


def arrange(y: Array, given: Array | None, *, own_valid: bool, split: Split, seed: int, slot: int) -> tuple[Array, Array]:
    """Row indices ordered by part, and their part codes: what `divide` does, before any row is copied.

    `given` and `own_valid` speak of the whole source: a site that got none of its test rows has none to test on.
    """
    train, valid, test = check_split(split)
    parts = np.zeros(len(y), np.int8) if given is None else given.astype(np.int8)
    if given is not None and not own_valid and train + valid == 0:
        raise DataError(
            "this source has its own test set: the split must leave the other rows to train or valid", path="split", got=split
        )
    test = test if given is None else 0.0
    valid = 0.0 if own_valid or train + valid == 0 else valid / (train + valid)
    if test or valid:
        free = _spread(y, np.flatnonzero(parts == 0), generator(seed, slot=slot, purpose="split"))
        chosen = _every(len(free), test)
        parts[free[chosen]] = 2
        rest = free[~chosen]
        parts[rest[_every(len(rest), valid)]] = 1
    order = np.argsort(parts, kind="stable")
    return order, parts[order]


def _spread(y: Array, rows: Array, rng: np.random.Generator) -> Array:
    """The rows in random order; where they have labels, label after label, so that every k-th row takes from each its share.

    The labels' order is drawn as well, or small sites would all test on the same labels.
    """
    rows = rng.permutation(rows)
    if not labelled(y):
        return rows
    labels, rank = np.unique(y[rows], return_inverse=True)
    return rows[np.argsort(rng.permutation(len(labels))[rank], kind="stable")]


def _every(count: int, fraction: float) -> Array:
    """A mask (count,) of evenly spaced entries, `fraction` of them to the nearest: any run of n has n * fraction to within one."""
    mask: Array = np.diff(np.floor(np.arange(count + 1) * fraction + 0.5)) > 0
    return mask
