"""Federated data: sites by slot, of which nothing is loaded before it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from hansa.core.protocols import Dataset, FederatedData, Part
from hansa.core.trees import Array
from hansa.data.rows import PARTS, SPLIT, Rows, Split, check_split, divide, labelled
from hansa.errors import DataError

__all__ = [
    "FederatedRows",
    "Names",
    "Places",
    "Rows",
    "SiteSummary",
    "Summary",
    "describe",
    "divide",
    "from_arrays",
    "paths",
    "pool",
    "population",
]


class FederatedRows:
    """Named sites and the function that loads one of them. The sites loaded last are kept; a copy sent elsewhere takes none along.

    `load(slot)` must give the same rows whenever and wherever it is called. `keep` is how many sites stay in memory, `features` are
    the names of the columns of x where the source has some.

    >>> federated = FederatedRows(["north", "south"], lambda slot: Rows(np.full((2, 1), slot), np.zeros(2)))
    >>> federated.load(1).x.ravel().tolist()
    [1, 1]

    Raises:
        DataError: there is no site, a name comes twice, or, when loading, there is no such slot.
    """

    def __init__(
        self, sites: Sequence[str], load: Callable[[int], Dataset], *, keep: int = 8, features: Sequence[str] = ()
    ) -> None:
        if not len(sites):
            raise DataError("a federated data set needs at least one site", path="sites")
        if not isinstance(sites, Names):
            name, times = Counter(sites).most_common(1)[0]
            if times > 1:
                raise DataError("each site has a name of its own", path="sites", got=f"{name!r} {times} times")
        self._sites = sites if isinstance(sites, Names) else tuple(sites)
        self._load, self._keep, self._features = load, keep, tuple(features)
        self._cached = lru_cache(maxsize=keep)(load)

    @property
    def sites(self) -> Sequence[str]:
        """The sites' names by slot."""
        return self._sites

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the columns of x; empty where nobody gave any."""
        return self._features

    def load(self, slot: int) -> Dataset:
        """The data of one site."""
        if not 0 <= slot < len(self._sites):
            raise DataError("there is no such slot", got=slot, expected=f"0 to {len(self._sites) - 1}")
        return self._cached(slot)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self._sites, self._load, self._keep, self._features)

    def __repr__(self) -> str:
        return f"FederatedRows({len(self._sites)} sites, {self._sites[0]!r} to {self._sites[-1]!r})"


def _rebuild(sites: Sequence[str], load: Callable[[int], Dataset], keep: int, features: tuple[str, ...]) -> FederatedRows:
    return FederatedRows(sites, load, keep=keep, features=features)


@dataclass(frozen=True, slots=True)
class Names(Sequence[str]):
    """The names of `total` sites in slot order, made when asked for: a million cost nothing.

    >>> Names(1000)[7], list(Names(2)), "site-0999" in Names(1000)
    ('site-007', ['site-000', 'site-001'], False)
    """

    total: int

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, slot: int) -> str: ...
    @overload
    def __getitem__(self, slot: slice) -> Sequence[str]: ...
    def __getitem__(self, slot: int | slice) -> str | Sequence[str]:
        if isinstance(slot, slice):
            return [self._name(k) for k in range(self.total)[slot]]
        return self._name(slot if 0 <= slot < self.total else range(self.total)[slot])

    def __contains__(self, name: object) -> bool:
        try:
            self.index(name)
        except ValueError:
            return False
        return True

    def index(self, value: object, start: int = 0, stop: int | None = None) -> int:
        """The slot of a name, found without a search."""
        digits = value.removeprefix("site-") if isinstance(value, str) else ""
        slot = int(digits) if digits.isdecimal() else -1
        if slot not in range(self.total)[start:stop] or self._name(slot) != value:
            raise ValueError(f"no site is called {value!r}")
        return slot

    def _name(self, slot: int) -> str:
        return "site-" + str(slot).zfill(max(3, len(str(self.total - 1))))


@dataclass(frozen=True, slots=True)
class Places:
    """Sites whose data are files or folders that the job's own code reads: `load` gives the path. See `paths`."""

    sites: tuple[str, ...]
    folders: tuple[Path, ...]

    def load(self, slot: int) -> Path:
        """The path of one site's data."""
        if not 0 <= slot < len(self.sites):
            raise DataError("there is no such slot", got=slot, expected=f"0 to {len(self.sites) - 1}")
        return self.folders[slot]


def paths(sites: Mapping[str, str | Path]) -> Places:
    """A site for each entry, in order, whose data are a file or folder: what site.toml's `label = "/srv/images"` is at a real site.

    >>> paths({"here": "."}).load(0) == Path.cwd()
    True

    Raises:
        DataError: there is no site, or nothing at a path; names the site.
    """
    if not sites:
        raise DataError("a federated data set needs at least one site", path="sites")
    for name, place in sites.items():
        if not Path(place).exists():
            raise DataError("there are no data at this path", site=name, path=str(place))
    return Places(tuple(sites), tuple(Path(place).absolute() for place in sites.values()))


def population(count: int, load: Callable[[int], Dataset], *, keep: int = 8) -> FederatedRows:
    """`count` virtual clients, whose data `load(slot)` makes or reads when a client is sampled.

    >>> population(1_000_000, lambda slot: Rows(np.full((1, 1), slot), np.zeros(1))).sites[-1]
    'site-999999'

    Raises:
        DataError: `count` is not a positive integer.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise DataError("a population has at least one client", path="count", expected="a positive integer", got=repr(count))
    return FederatedRows(Names(count), load, keep=keep)


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    sites: tuple[Rows, ...]
    split: Split
    seed: int

    def __call__(self, slot: int) -> Rows:
        return divide(self.sites[slot], split=self.split, seed=self.seed, slot=slot)


def from_arrays(
    sites: Mapping[str, Rows | tuple[Array, Array]], *, split: Split = SPLIT, seed: int = 0, keep: int = 8
) -> FederatedRows:
    """A site for each entry, in the order of the mapping: `(x, y)` arrays, or Rows; each divided by `split` when it is loaded.

    Rows that already have a test set keep it, see `divide`.

    >>> federated = from_arrays({"north": (np.zeros((4, 2)), np.array([0, 0, 1, 1]))}, split=(0.5, 0, 0.5))
    >>> federated.load(0).part("test").y.tolist()
    [0, 1]

    Raises:
        DataError: a site's arrays do not fit each other (names the site), or the split is not three fractions.
    """
    check_split(split)
    made: dict[str, Rows] = {}
    for name, given in sites.items():
        try:
            if isinstance(given, Rows):
                made[name] = given
            else:
                x, y = given
                made[name] = Rows(np.asarray(x), np.asarray(y))
        except (DataError, TypeError, ValueError) as error:
            wrong = error.path if isinstance(error, DataError) else None
            raise DataError(
                f"the arrays of this site do not fit: {error}", site=name, path=wrong, expected="(x, y) or Rows"
            ) from error
    return FederatedRows(list(made), _Given(tuple(made.values()), tuple(split), seed), keep=keep)


@dataclass(frozen=True, slots=True, eq=False)
class _Pooled:
    federated: FederatedData

    def __call__(self, slot: int) -> Rows:  # noqa: ARG002  there is one site
        loaded = [self.federated.load(k) for k in range(len(self.federated.sites))]
        pieces = [(k, code, data.part(name)) for code, name in enumerate(PARTS) for k, data in enumerate(loaded)]
        kept = [(k, code, data) for k, code, data in pieces if len(data)] or pieces[:1]
        named = [dict(getattr(data, "columns", {})) for _, _, data in kept]
        columns = {name: np.concatenate([some[name] for some in named]) for name in named[0] if all(name in some for some in named)}
        columns.setdefault("site", np.concatenate([np.full(len(data), self.federated.sites[k]) for k, _, data in kept]))
        first = kept[0][2]
        try:
            return Rows(
                np.concatenate([data.x for _, _, data in kept]),
                np.concatenate([data.y for _, _, data in kept]),
                columns,
                np.concatenate([np.full(len(data), code, np.int8) for _, code, data in kept]),
                getattr(first, "features", ()),
                getattr(first, "classes", ()),
            )
        except ValueError as error:
            shapes = {self.federated.sites[k]: (data.x.shape[1:], data.y.shape[1:]) for k, _, data in kept}
            raise DataError("the sites' rows have different shapes and cannot be pooled", got=shapes) from error


def pool(federated: FederatedData) -> FederatedRows:
    """One site called "pooled" whose parts are all sites' parts one after the other, in slot order; loaded when asked for.

    This is the comparison that a simulation can make and a federation cannot. A column `site` names each row's site unless the
    rows bring one.

    >>> one = pool(from_arrays({"a": (np.zeros((2, 1)), np.zeros(2)), "b": (np.ones((1, 1)), np.zeros(1))}, split=(1, 0, 0)))
    >>> list(one.sites), one.load(0).part("train").x.ravel().tolist()
    (['pooled'], [0.0, 0.0, 1.0])
    """
    return FederatedRows(["pooled"], _Pooled(federated), keep=1)


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """One site: rows by part, rows by label (empty where y is not labels), and its label skew.

    `label_skew`: total variation distance, 0 to 1, between the site's label shares and those of all sites together.
    """

    site: str
    rows: Mapping[Part, int]
    labels: Mapping[int, int]
    label_skew: float = 0.0

    @property
    def total(self) -> int:
        """Rows of all parts."""
        return sum(self.rows.values())


@dataclass(frozen=True, slots=True)
class Summary:
    """All sites in slot order, and how uneven they are.

    `quantity_skew`: the Gini coefficient of rows per site; 0 is even, near 1 is one site with nearly all rows.
    `label_skew`: the mean of the sites' label skew, weighted by rows. `labels`: rows by label over all sites, sorted by label.
    """

    sites: tuple[SiteSummary, ...]
    labels: Mapping[int, int]
    classes: tuple[str, ...]
    quantity_skew: float
    label_skew: float

    @property
    def total(self) -> int:
        """Rows of all sites."""
        return sum(site.total for site in self.sites)

    def label_name(self, label: int) -> str:
        """The class's name where the source gives one, else the label itself."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def describe(federated: FederatedData) -> Summary:
    """Rows per site and part, rows per label, and the skew of both. Loads each site once, one after the other.

    >>> even = from_arrays({"a": (np.zeros((2, 1)), np.array([0, 1])), "b": (np.zeros((2, 1)), np.array([0, 0]))}, split=(1, 0, 0))
    >>> summary = describe(even)
    >>> summary.quantity_skew, summary.label_skew, summary.sites[1].labels
    (0.0, 0.25, {0: 2})

    Raises:
        DataError: a site's data is not rows.
    """
    counted: list[tuple[str, dict[Part, int], Counter[int]]] = []
    classes: tuple[str, ...] = ()
    for slot, site in enumerate(federated.sites):
        data = federated.load(slot)
        if not isinstance(data, Dataset):
            raise DataError("only rows with x and y can be described", site=site, got=type(data).__name__)
        values = np.asarray(data.y)
        counts = (
            Counter(dict(zip(*(found.tolist() for found in np.unique(values, return_counts=True)), strict=True)))
            if labelled(values)
            else Counter()
        )
        counted.append((site, {name: len(data.part(name)) for name in PARTS}, counts))
        classes = classes or tuple(getattr(data, "classes", ()))
    overall: Counter[int] = Counter()
    for _, _, counts in counted:
        overall.update(counts)
    sites = tuple(
        SiteSummary(site, rows, dict(sorted(counts.items())), _distance(counts, overall)) for site, rows, counts in counted
    )
    totals = np.array([site.total for site in sites], dtype=np.float64)
    weighted = sum(site.label_skew * site.total for site in sites) / max(1.0, float(totals.sum()))
    return Summary(sites, dict(sorted(overall.items())), classes, _gini(totals), weighted)


def _distance(counts: Mapping[Any, int], overall: Mapping[Any, int]) -> float:
    own, whole = sum(counts.values()), sum(overall.values())
    if not own:
        return 0.0
    return sum(abs(counts.get(label, 0) / own - rows / whole) for label, rows in overall.items()) / 2


def _gini(values: Array) -> float:
    total, n = float(values.sum()), len(values)
    if not total:
        return 0.0
    ranks = np.arange(1, n + 1)
    return float(2 * (ranks @ np.sort(values)) / (n * total) - (n + 1) / n)
