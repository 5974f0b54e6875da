"""Partitions: which row of a pooled source belongs to which site. Each row is given to exactly one site.

A partition holds indices; a site's rows are copied out of the source when the site is loaded, and kept for the next time. All
take `split` (the fractions of train, valid and test at each site, see `hansa.data.rows.divide`) and `seed`. A source's own test
set is dealt like its other rows and stays the sites' test part, so that metrics summed over all sites are those of the whole
test set; counts such as `min_rows` are of the other rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hansa.core.rng import generator
from hansa.core.trees import Array
from hansa.data.federated import FederatedRows, Names
from hansa.data.rows import SPLIT, Rows, Split, arrange, check_split, has_valid, labelled, ordered
from hansa.errors import DataError

_KEEP = 1024  # sites kept in memory: together at most once the source again, and a round of many small sites copies nothing
_PASSES = 1000  # redraws of too small sites before `dirichlet` gives up


def iid(rows: Rows, *, sites: int, seed: int = 0, split: Split = SPLIT) -> FederatedRows:
    """Rows dealt at random to sites of equal size, to within one row.

    >>> federated = iid(Rows(np.arange(6.0)[:, None], np.zeros(6)), sites=3, split=(1, 0, 0))
    >>> [len(federated.load(slot)) for slot in range(3)]
    [2, 2, 2]

    Raises:
        DataError: there are more sites than rows.
    """
    _check(rows, sites=sites, min_rows=1)
    rng = generator(seed, purpose="partition/iid")
    pools = [np.array_split(rng.permutation(pool), sites) for pool in _pools(rows)]
    return _federated(rows, pools, Names(sites), seed=seed, split=split)


def dirichlet(rows: Rows, *, sites: int, alpha: float, min_rows: int = 1, seed: int = 0, split: Split = SPLIT) -> FederatedRows:
    """Label skew: each label's rows are shared among the sites by proportions from Dirichlet(alpha, ..., alpha).

    Small alpha: a site has few labels and sizes differ; large alpha: near iid. The draws of a site that would have fewer than
    `min_rows` rows are made anew, the others are kept. Yurochkin et al. 2019, "Bayesian nonparametric federated learning of
    neural networks", section 4.

    >>> rows = Rows(np.zeros((40, 1)), np.repeat([0, 1], 20))
    >>> federated = dirichlet(rows, sites=4, alpha=0.5, seed=1)
    >>> sum(len(federated.load(slot)) for slot in range(4))
    40

    Raises:
        DataError: y is not labels, alpha is not positive, or no draw gave every site its `min_rows`.
    """
    _check(rows, sites=sites, min_rows=min_rows)
    _check_alpha(alpha)
    rng = generator(seed, purpose="partition/dirichlet")
    fit, *test = (_by_label(rows, pool, rng) for pool in _pools(rows))
    draws = _log_gamma(rng, alpha, (len(fit), sites))
    for _ in range(_PASSES):
        shares = np.exp(draws - draws.max(axis=1, keepdims=True))
        sizes = np.array([np.diff(_ends(share, len(group)), prepend=0) for share, group in zip(shares, fit, strict=True)])
        short = sizes.sum(axis=0) < min_rows
        if not short.any():
            break
        draws[:, short] = _log_gamma(rng, alpha, (len(fit), int(short.sum())))
    else:
        raise DataError(
            f"no draw gave each of {sites} sites {min_rows} of {len(rows)} rows",
            path="alpha",
            got=alpha,
            hint="a larger alpha, fewer sites or a smaller min_rows",
        )
    cut = [
        np.split(group, _ends(share, len(group))[:-1]) for pool in (fit, *test) for share, group in zip(shares, pool, strict=True)
    ]
    return _federated(rows, cut, Names(sites), seed=seed, split=split)


def shards(rows: Rows, *, sites: int, classes: int, seed: int = 0, split: Split = SPLIT) -> FederatedRows:
    """Label skew: each site gets `classes` shards, each of one label, so that it has at most `classes` labels.

    The rows are sorted by label and cut into sites * classes shards of nearly equal size, which are dealt at random. McMahan et
    al. 2017, "Communication-efficient learning of deep networks from decentralized data", section 3; there a shard may straddle
    two labels, here none does.

    >>> rows = Rows(np.zeros((40, 1)), np.repeat([0, 1, 2, 3], 10))
    >>> federated = shards(rows, sites=4, classes=2)
    >>> max(len(np.unique(federated.load(slot).y)) for slot in range(4))
    2

    Raises:
        DataError: y is not labels, or sites * classes is less than the number of labels or more than the number of rows.
    """
    _check(rows, sites=sites, min_rows=1)
    _check_count("classes", classes)
    rng = generator(seed, purpose="partition/shards")
    fit, *test = (_by_label(rows, pool, rng) for pool in _pools(rows))
    count, free = sites * classes, sum(len(group) for group in fit)
    if not len(fit) <= count <= free or not all(len(group) for group in fit):
        raise DataError(
            f"{sites} sites with {classes} shards each cannot share {free} training rows of {len(fit)} labels",
            path="classes",
            got=classes,
            expected=f"sites * classes from {len(fit)} to {free}, and a training row of each label",
            hint="change classes or sites",
        )
    cuts = _apportion([len(group) for group in fit], count)
    dealt = rng.permutation(count).reshape(sites, classes)
    pools = []
    for pool in (fit, *test):
        every = [shard for group, k in zip(pool, cuts, strict=True) for shard in np.array_split(group, k)]
        pools.append([np.concatenate([every[k] for k in mine]) for mine in dealt])
    return _federated(rows, pools, Names(sites), seed=seed, split=split)


def quantity(rows: Rows, *, sites: int, alpha: float, min_rows: int = 1, seed: int = 0, split: Split = SPLIT) -> FederatedRows:
    """Quantity skew: rows dealt at random, the sites' sizes drawn from Dirichlet(alpha, ..., alpha) above `min_rows` each.

    Labels stay iid. Li et al. 2022, "Federated learning on non-IID data silos", section 4.3.

    >>> federated = quantity(Rows(np.zeros((100, 1)), np.zeros(100)), sites=4, alpha=0.5, min_rows=5)
    >>> min(len(federated.load(slot)) for slot in range(4)) >= 5
    True

    Raises:
        DataError: alpha is not positive, or there are not `min_rows` rows for each site.
    """
    _check(rows, sites=sites, min_rows=min_rows)
    _check_alpha(alpha)
    rng = generator(seed, purpose="partition/quantity")
    draws = _log_gamma(rng, alpha, (sites,))
    shares = np.exp(draws - draws.max())
    fit, *test = _pools(rows)
    ends = [
        _ends(shares, len(fit) - sites * min_rows) + min_rows * np.arange(1, sites + 1),
        *(_ends(shares, len(pool)) for pool in test),
    ]
    pools = [np.split(rng.permutation(pool), cuts[:-1]) for pool, cuts in zip((fit, *test), ends, strict=True)]
    return _federated(rows, pools, Names(sites), seed=seed, split=split)


def column(rows: Rows, *, by: str = "site", seed: int = 0, split: Split = SPLIT) -> FederatedRows:
    """Natural sites: one for each value of a named column, sorted, and named after the value.

    >>> rows = Rows(np.zeros((3, 1)), np.zeros(3), {"site": np.array(["south", "north", "south"])})
    >>> federated = column(rows)
    >>> list(federated.sites), len(federated.load(1))
    (['north', 'south'], 2)

    Raises:
        DataError: the source has no such column, or a row has no value in it.
    """
    _check(rows, sites=1, min_rows=1)
    values = rows.columns.get(by)
    if values is None:
        known = ", ".join(sorted(rows.columns)) or "none; use iid, dirichlet, shards or quantity"
        raise DataError("the source has no such column", path="by", got=by, expected=f"one of its columns: {known}")
    if (
        values.ndim != 1
        or (values.dtype.kind == "f" and np.isnan(values).any())
        or (values.dtype.kind == "U" and (values == "").any())
    ):
        raise DataError("each row needs one value in the column that names its site", path=f"columns/{by}")
    names, place = np.unique(values, return_inverse=True)
    groups = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
    return _federated(rows, [groups], [_name(value) for value in names.tolist()], seed=seed, split=split)


@dataclass(frozen=True, slots=True, eq=False)
class _Dealt:
    """Loads a site: its indices are order[starts[slot] : starts[slot + 1]]."""

    rows: Rows
    order: Array
    starts: Array
    own_valid: bool
    split: Split
    seed: int

    def __call__(self, slot: int) -> Rows:
        mine = self.order[self.starts[slot] : self.starts[slot + 1]]
        given = None if self.rows.parts is None else self.rows.parts[mine]
        places, parts = arrange(self.rows.y[mine], given, own_valid=self.own_valid, split=self.split, seed=self.seed, slot=slot)
        return ordered(self.rows, mine[places], parts)


def _federated(rows: Rows, pools: Sequence[Sequence[Array]], names: Sequence[str], *, seed: int, split: Split) -> FederatedRows:
    """Sites from one or more pools of rows, each already cut into one piece a site."""
    dealt = [np.sort(np.concatenate(pieces)) for pieces in zip(*pools, strict=True)]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in dealt])])
    load = _Dealt(rows, np.concatenate(dealt), starts, has_valid(rows), check_split(split), seed)
    return FederatedRows(names, load, keep=_KEEP, features=rows.features)


def _pools(rows: Rows) -> list[Array]:
    """The rows to deal; a source's own test set is dealt apart and alike, so that each site is tested on what it is trained on."""
    if rows.parts is None or not (rows.parts == 2).any():
        return [np.arange(len(rows))]
    return [np.flatnonzero(rows.parts != 2), np.flatnonzero(rows.parts == 2)]


def _ends(shares: Array, count: int) -> Array:
    """Where each site's rows end when `count` rows are cut by these shares (sites,), which need not sum to 1."""
    total = np.cumsum(shares)
    ends: Array = np.rint(total / total[-1] * count).astype(np.int64)
    return ends


def _check(rows: object, *, sites: int, min_rows: int) -> None:
    if not isinstance(rows, Rows):
        hint = "a source that has sites already takes no partition" if hasattr(rows, "sites") else None
        raise DataError("a partition deals the rows of one pooled source", got=type(rows).__name__, expected="Rows", hint=hint)
    _check_count("sites", sites)
    _check_count("min_rows", min_rows, least=0)
    free = len(_pools(rows)[0])
    if sites * min_rows > free or not free:
        each = f"{min_rows} rows" if min_rows > 1 else "a row"
        raise DataError(
            f"{free} training rows are too few for {each} at each site",
            path="sites",
            got=sites,
            expected=f"at most {free // max(1, min_rows)}",
            hint="fewer sites" if min_rows == 1 else "fewer sites or a smaller min_rows",
        )


def _check_count(name: str, value: object, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise DataError("not a usable number", path=name, expected=f"an integer of at least {least}", got=repr(value))


def _check_alpha(alpha: object) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.floating) or not 0 < alpha < np.inf:
        raise DataError("not a usable concentration", path="alpha", expected="a positive number", got=repr(alpha))


def _by_label(rows: Rows, pool: Array, rng: np.random.Generator) -> list[Array]:
    """The rows of a pool by label, in random order; one group for each label of the source, possibly empty."""
    if not labelled(rows.y):
        raise DataError(
            "this partition goes by labels",
            path="y",
            expected="one integer a row",
            got=f"{rows.y.dtype} of shape {rows.y.shape}",
            hint="for other targets use iid, quantity or column",
        )
    return [rng.permutation(pool[rows.y[pool] == label]) for label in np.unique(rows.y)]


def _log_gamma(rng: np.random.Generator, alpha: float, shape: tuple[int, ...]) -> Array:
    """Logarithms of Gamma(alpha) draws: for a small alpha the draws underflow to 0 (Marsaglia and Tsang 2000, section 6)."""
    return np.log(rng.standard_gamma(alpha + 1, shape)) + np.log1p(-rng.random(shape)) / alpha


def _apportion(sizes: list[int], count: int) -> list[int]:
    """How many of `count` shards each label is cut into: at least one, then always to the label with the largest shards."""
    cuts = [1] * len(sizes)
    heap = [(-size / 2, k) for k, size in enumerate(sizes)]
    heapq.heapify(heap)
    for _ in range(count - len(sizes)):
        _, k = heap[0]
        cuts[k] += 1
        heapq.heapreplace(heap, (-sizes[k] / (cuts[k] + 1), k))
    return cuts


def _name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
