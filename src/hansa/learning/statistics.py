"""Federated statistics: counts, means, spreads and histograms over all sites' rows. A site sends sums, never rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from hansa.core import trees
from hansa.core.computation import federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_aggregate, federated_map
from hansa.core.protocols import Dataset
from hansa.core.round import Policy, is_count
from hansa.core.trees import Array, Spec, Tree
from hansa.core.types import TREE, Clients, ObjectType
from hansa.errors import ConfigError, DataError
from hansa.learning.once import Once
from hansa.learning.options import changed
from hansa.learning.standardise import Moments, joined, moments_of

Which = Literal["all", "train", "valid", "test"]


def statistics(
    *,
    features: Sequence[str] = (),
    histograms: Mapping[str, Sequence[float]] | None = None,
    classes: int | None = None,
    part: Which = "all",
    min_rows: int = 5,
    quorum: int | float = 1,
    deadline_s: float | None = None,
    attempts: int = 1,
) -> Once:
    """For each column of x: how many rows have it, how many lack it, mean and standard deviation (over n), and at how many sites.

    features: the columns' names (none: `x[0]`, ...). histograms: by name of a feature, the edges of its bins, ascending; as in
    numpy the last bin holds its right edge, and rows outside are not counted. classes: count the labels 0 .. classes - 1 as well.
    part: the rows of a split, or all. min_rows: a site says nothing of a column that fewer of its rows have, nor of a bin or a
    label with fewer: a mean over one patient is that patient. quorum, deadline_s, attempts: as in a round.

    >>> print(statistics(features=["age", "chol"], classes=2).about)
    statistics of all rows of age, chol, 2 classes, none of fewer than 5 rows

    Raises:
        ConfigError: an argument is out of its range; names it.
    """
    if part not in ("all", "train", "valid", "test"):
        raise ConfigError("no such part", path="part", expected="all, train, valid or test", got=repr(part))
    if not is_count(min_rows):
        raise ConfigError("min_rows counts rows", path="min_rows", expected="at least 1", got=repr(min_rows))
    if not (classes is None or (is_count(classes) and classes >= 2)):
        raise ConfigError("classes counts the labels", path="classes", expected="at least 2", got=repr(classes))
    names = tuple(features)
    bins = _edges(histograms or {}, names)
    policy = Policy(quorum=quorum, deadline_s=deadline_s, attempts=attempts)
    asked = _Asked(names, bins, classes, part, min_rows)
    takes = (("data", ObjectType("Dataset")),)
    local = LocalFunction(asked.of, "statistics", takes, TREE, loops=True, about=asked.about)

    @federated_computation
    def column_statistics(data: Clients[Dataset]) -> Any:
        return federated_aggregate(federated_map(local, data), Tallied())

    about = ", ".join([f"statistics of {asked.about}", *changed(policy)])
    return Once(cast(Any, column_statistics), policy, about, shown=asked.shown)


@dataclass(frozen=True, slots=True)
class Tallied:
    """The aggregator of sites' tallies: moments are joined, all else is added. The first site's columns bind the others."""

    def zero(self, like: Tree) -> Tree:
        """The tally of no rows."""
        return trees.zeros(like)

    def add(self, acc: Tree, update: Tree, weight: float) -> Tree:  # noqa: ARG002  counts weigh the sites
        """The tally with one more site's.

        Raises:
            SpecError: the site has other columns; nothing was added.
        """
        Spec.of(acc).check(update)
        return self.merge(acc, update)

    def merge(self, left: Tree, right: Tree) -> Tree:
        """The tally of both."""
        return {**trees.add(left, right), **joined(_moments(left), _moments(right))._asdict()}

    def finish(self, acc: Tree) -> Tree:
        """The tally of all sites."""
        return acc


@dataclass(frozen=True)
class _Asked:
    """What is asked of a site, and how it is shown."""

    features: tuple[str, ...]
    bins: Mapping[str, tuple[float, ...]]
    classes: int | None
    part: Which
    min_rows: int

    @property
    def about(self) -> str:
        """As a plan prints it."""
        what = [f"{self.part} rows" + (f" of {', '.join(self.features)}" if self.features else "")]
        what += [f"histogram of {name} by {list(edges)}" for name, edges in self.bins.items()]
        what += [f"{self.classes} classes"] if self.classes else []
        return ", ".join([*what, f"none of fewer than {self.min_rows} rows"])

    def of(self, data: Dataset) -> dict[str, Any]:
        """A site's tally.

        Raises:
            DataError: x is not (n, d), has other columns than named, or holds what is infinite.
        """
        rows = data if self.part == "all" else data.part(self.part)
        moments = moments_of(rows)
        if self.features and len(moments.count) != len(self.features):
            raise DataError("x has other columns", path="x", expected=f"{len(self.features)} features", got=len(moments.count))
        told = moments.count >= self.min_rows
        kept = Moments(*(np.where(told, each, 0.0) for each in moments))
        tally: dict[str, Any] = {
            "rows": np.float64(len(rows)),
            "sites": told.astype(np.float64),
            "seen": told * float(len(rows)),
            **kept._asdict(),
        }
        if self.bins:
            x = np.asarray(rows.x, dtype=np.float64)
            places = [(self.features.index(name), edges) for name, edges in self.bins.items()]
            counts = [np.histogram(x[:, column], edges)[0] for column, edges in places]
            tally["bins"] = {str(k): self._kept(each) for k, each in enumerate(counts)}
        if self.classes:
            tally["labels"] = self._kept(self._labels(np.asarray(rows.y)))
        return tally

    def _labels(self, y: Array) -> Array:
        if y.dtype.kind not in "iub" or y.ndim != 1 or (y.size and not (y.min() >= 0 and y.max() < (self.classes or 0))):
            raise DataError("the labels are other classes", path="y", expected=f"integers from 0 to {(self.classes or 0) - 1}")
        return np.bincount(y.astype(np.int64), minlength=self.classes or 0)

    def _kept(self, counts: Array) -> Array:
        return np.where(counts >= self.min_rows, counts, 0).astype(np.float64)

    def shown(self, tally: Any) -> dict[str, Any]:
        """The statistics for people, by column."""
        count, mean, squares, seen, sites = (np.asarray(tally[name]) for name in ("count", "mean", "squares", "seen", "sites"))
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt(squares / count)
        columns = {}
        for k in range(len(count)):
            known = {"mean": float(mean[k]), "std": float(spread[k])} if count[k] else {"mean": float("nan"), "std": float("nan")}
            counted = {"count": int(count[k]), "missing": int(seen[k] - count[k])}
            columns[self.features[k] if self.features else f"x[{k}]"] = {**counted, **known, "sites": int(sites[k])}
        found: dict[str, Any] = {"kind": "statistics", "part": self.part, "rows": int(tally["rows"]), "min_rows": self.min_rows}
        found["columns"] = columns
        for k, (name, edges) in enumerate(self.bins.items()):
            counts = [int(each) for each in np.asarray(tally["bins"][str(k)])]
            found.setdefault("histograms", {})[name] = {"edges": list(edges), "counts": counts}
        if self.classes:
            found["labels"] = {str(label): int(each) for label, each in enumerate(np.asarray(tally["labels"]))}
        return found


def _edges(histograms: Mapping[str, Sequence[float]], features: Sequence[str]) -> dict[str, tuple[float, ...]]:
    found = {}
    for name, given in histograms.items():
        if name not in features:
            raise ConfigError(
                "a histogram is of a named feature", path=f"histograms.{name}", expected=list(features) or "features=[...]"
            )
        edges = np.asarray(given, dtype=np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
            raise ConfigError(
                "not the edges of bins", path=f"histograms.{name}", expected="two or more numbers, ascending", got=given
            )
        found[name] = tuple(edges.tolist())
    return found


def _moments(tally: Tree) -> Moments:
    return Moments(*(tally[name] for name in Moments._fields))
