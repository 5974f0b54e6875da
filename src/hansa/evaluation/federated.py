"""Metrics over a federation: per site, pooled from the sites' sums, and as the mean of the sites' own values."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from hansa.core import trees
from hansa.core.protocols import Evaluation, Metric
from hansa.core.trees import Array, Tree
from hansa.errors import ConfigError, SpecError

ROWS = "rows"


class Spread(TypedDict):
    """How a metric differs between the sites where it is defined: smallest, largest, and standard deviation, each site alike."""

    min: float
    max: float
    std: float


class Combined(TypedDict):
    """Values by metric name, nan where undefined.

    pooled: over all rows together. federated: the mean of the sites' values, weighted by rows, over the sites where it is defined.
    sites: each site's own. spread: between sites.
    """

    pooled: dict[str, float]
    federated: dict[str, float]
    sites: dict[str, dict[str, float]]
    spread: dict[str, Spread]


def measure(metrics: Sequence[Metric], y: Array, evaluation: Evaluation) -> dict[str, Tree]:
    """One site's sums by metric name, with its number of rows under `rows`: what leaves the site.

    Raises:
        ConfigError: two metrics have one name, or one is called `rows`.
        DataError: the scores do not fit the labels.
    """
    sums: dict[str, Tree] = {ROWS: {"count": np.asarray(float(len(y)))}}
    for metric in metrics:
        if metric.name in sums:
            raise ConfigError("a metric's name is taken", got=metric.name)
        sums[metric.name] = metric.measure(y, evaluation)
    return sums


def combine(metrics: Sequence[Metric], sites: Mapping[str, Mapping[str, Tree]]) -> Combined:
    """The metrics of a federation from each site's `measure`.

    Raises:
        SpecError: a site's sums lack a metric, or are of another shape than the other sites'; names the metric.
    """
    for site, sums in sites.items():
        missing = sorted({ROWS, *(metric.name for metric in metrics)} - sums.keys())
        if missing:
            raise SpecError("a site did not measure this metric", site=site, path=missing[0])
    rows = np.array([float(np.asarray(sums[ROWS]["count"])) for sums in sites.values()])
    out: Combined = {"pooled": {}, "federated": {}, "sites": {site: {} for site in sites}, "spread": {}}
    for metric in metrics:
        name = metric.name
        for site, sums in sites.items():
            out["sites"][site][name] = metric.value(sums[name])
        values = np.array([own[name] for own in out["sites"].values()])
        out["pooled"][name] = metric.value(_total(name, sites)) if sites else math.nan
        out["federated"][name] = _weighted(values, rows)
        out["spread"][name] = _spread(values)
    return out


def _total(name: str, sites: Mapping[str, Mapping[str, Tree]]) -> Tree:
    first, *others = sites
    spec = trees.Spec.of(sites[first][name])
    for site in others:
        if (got := trees.Spec.of(sites[site][name])) != spec:
            raise SpecError("a site's sums are of another shape", site=site, path=name, expected=spec, got=got)
    return functools.reduce(trees.add, (sites[site][name] for site in others), sites[first][name])


def _weighted(values: Array, rows: Array) -> float:
    defined = ~np.isnan(values) & (rows > 0)
    return float(values[defined] @ rows[defined] / rows[defined].sum()) if defined.any() else math.nan


def _spread(values: Array) -> Spread:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return {"min": math.nan, "max": math.nan, "std": math.nan}
    return {"min": float(defined.min()), "max": float(defined.max()), "std": float(defined.std())}
