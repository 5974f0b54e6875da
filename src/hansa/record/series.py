"""Curves and best values out of the records of metrics.jsonl."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hansa import registry

Points = list[tuple[int, float]]
_COUNTS = frozenset({"examples", "steps", "weight", "bytes_up", "bytes_down", "seconds"})  # reported beside metrics; no curves
_LOWER = ("loss", "mse", "rmse", "mae", "error", "perplexity", "seconds")


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over the rounds: the global value, and each site's."""

    name: str
    shared: Points = field(default_factory=list)
    sites: dict[str, Points] = field(default_factory=dict)

    def band(self, low: float = 0.1, high: float = 0.9) -> list[tuple[int, float, float]]:
        """(round, low quantile, high quantile) over the sites that have a finite value in that round."""
        by_round: dict[int, list[float]] = {}
        for points in self.sites.values():
            for number, value in points:
                if math.isfinite(value):
                    by_round.setdefault(number, []).append(value)
        return [(number, quantile(values, low), quantile(values, high)) for number, values in sorted(by_round.items())]


class Extremes(NamedTuple):
    """The last value of a curve, its best value, and the round of the best; nan and 0 where there is no finite value."""

    last: float
    best: float
    best_round: int


def curves(records: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """A curve for each metric: the global ones in the order of the records, then those that only sites report, then training's.

    What a site counts (its examples, say) is no metric of a model and has no curve.

    >>> curve, = curves([{"round": 1, "global": {"loss": 0.5}, "sites": {"a": {"loss": 0.4}}}])
    >>> curve.shared, curve.sites
    ([(1, 0.5)], {'a': [(1, 0.4)]})
    """
    found: dict[str, Curve] = {}
    for record in records:
        for name, value in record.get("global", {}).items():
            found.setdefault(name, Curve(name)).shared.append((record["round"], float(value)))
    for record in records:
        for site, metrics in record.get("sites", {}).items():
            for name, value in metrics.items():
                found.setdefault(name, Curve(name)).sites.setdefault(site, []).append((record["round"], float(value)))
    return sorted((curve for name, curve in found.items() if name not in _COUNTS), key=lambda curve: rank(curve.name))


def rank(name: str) -> tuple[bool, bool]:
    """Where a metric comes: what the model is worth first, then what training said, then what an aggregator measured.

    >>> sorted(["aggregator/clipped_count", "train_loss", "auc"], key=rank)
    ['auc', 'train_loss', 'aggregator/clipped_count']
    """
    return "/" in name, name.startswith("train_")


def last_global(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The global metrics of the last round that has some."""
    return next((dict(record["global"]) for record in reversed(records) if record.get("global")), {})


def site_names(drawn: Iterable[Curve]) -> list[str]:
    """The sites of the curves, sorted as people count: site-2 before site-10."""
    found = {site for curve in drawn for site in curve.sites}
    return sorted(found, key=lambda site: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", site)])


def extremes(name: str, points: Points) -> Extremes:
    """The last and the best value of a curve.

    >>> extremes("loss", [(1, 0.5), (2, 0.2), (3, 0.3)])
    Extremes(last=0.3, best=0.2, best_round=2)
    """
    finite = [(number, value) for number, value in points if math.isfinite(value)]
    if not finite:
        return Extremes(points[-1][1] if points else math.nan, math.nan, 0)
    sign = 1 if lower_is_better(name) else -1
    number, value = min(finite, key=lambda point: (sign * point[1], point[0]))
    return Extremes(points[-1][1], value, number)


def lower_is_better(name: str) -> bool:
    """Whether a smaller value of this metric is the better one: as the installed metric says, else by the end of its name."""
    if name in registry.names("metrics"):
        higher = getattr(registry.find("metrics", name), "higher_is_better", None)
        if isinstance(higher, bool):
            return not higher
    return name.lower().endswith(_LOWER)


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, linear between the sorted values."""
    ranked = sorted(values)
    at = q * (len(ranked) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (at - low) * (ranked[high] - ranked[low])


def number(value: object) -> str:
    """A number for people: four significant digits, nan as a dash."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:#.4g}" if abs(value) < 1e4 or math.isinf(value) else f"{value:,.0f}"  # noqa: RUF001
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
