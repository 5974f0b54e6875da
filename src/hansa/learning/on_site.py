"""Learners that are told where they work and read the site's data themselves, such as a script in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from hansa import registry
from hansa.core.protocols import Evaluation, FitConfig, Metric, Part, Update
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Array, Tree
from hansa.errors import ConfigError, DataError


@runtime_checkable
class SiteLearner(Protocol):
    """In place of fit and evaluate it has two functions of a whole site. `data` is what the site's loader gave, whatever it is.

    fit_at gives the update, and what the site says about its training. evaluate_at gives values of `metrics`, and on how many rows
    each rests; a learner without `metrics` is never asked.
    """

    @property
    def metrics(self) -> tuple[str, ...]: ...
    def init(self, rng: np.random.Generator) -> Tree: ...
    def fit_at(
        self, model: Tree, data: Any, config: FitConfig, *, ctx: FLContext, abort: Signal
    ) -> tuple[Update, Mapping[str, float]]: ...
    def evaluate_at(
        self, model: Tree, data: Any, part: Part, *, ctx: FLContext, abort: Signal
    ) -> tuple[Mapping[str, float], int]: ...


@dataclass(frozen=True, slots=True)
class Reported:
    """A metric that sites compute themselves: the mean of what they report, weighted by their rows.

    >>> metric = Reported("liver_dice")
    >>> one, other = metric.sums(0.5, 10), metric.sums(0.8, 20)
    >>> round(metric.value({"total": one["total"] + other["total"], "rows": one["rows"] + other["rows"]}), 6)
    0.7
    """

    name: str
    higher_is_better: bool = True

    def sums(self, value: float, rows: int) -> dict[str, Array]:
        """What a site's value adds."""
        return {"total": np.asarray(float(value) * rows), "rows": np.asarray(float(rows))}

    def measure(self, y: Array, evaluation: Evaluation) -> Tree:  # noqa: ARG002  the protocol's
        """Not from rows.

        Raises:
            ConfigError: always; the learner is one that scores rows.
        """
        hint = "it is for learners that evaluate by themselves; name one of Hansa's metrics"
        raise ConfigError("this metric is reported by sites, not computed from rows", path=f"metrics/{self.name}", hint=hint)

    def value(self, sums: Tree) -> float:
        """The mean; nan of no rows."""
        rows = float(cast(Array, sums["rows"]))
        return float(cast(Array, sums["total"])) / rows if rows else float("nan")


def reported(metrics: Sequence[str | Metric]) -> list[Metric]:
    """The metrics as sites report them. Of a name that Hansa knows it takes which way is better; of others, higher is.

    Raises:
        ConfigError: a metric is named twice, or is neither a name nor a Metric.
    """
    known, made = registry.names("metrics"), list[Metric]()
    for i, given in enumerate(metrics):
        if not isinstance(given, str) and not hasattr(given, "higher_is_better"):
            raise ConfigError("not a metric", path=f"metrics[{i}]", got=repr(given), expected="a name, or Reported(name, ...)")
        if isinstance(given, str):
            better = cast(Any, registry.find("metrics", given))().higher_is_better if given in known else True
            given = Reported(given, better)
        if given.name in [other.name for other in made]:
            raise ConfigError("a metric is named twice", path=f"metrics[{i}]", got=given.name)
        made.append(given if isinstance(given, Reported) else Reported(given.name, given.higher_is_better))
    return made


def told(values: Mapping[str, float], rows: int, metrics: Sequence[Metric]) -> tuple[dict[str, Any], dict[str, float]]:
    """The sums of the metrics at one site, and the site's own values of them.

    Raises:
        DataError: the site did not report one.
    """
    if missing := [metric.name for metric in metrics if metric.name not in values]:
        hint = 'hansa.client.send(metrics={...}, examples=n) for the task "evaluate", or leave it out of `metrics`'
        raise DataError("a metric was not reported", path=missing[0], got=sorted(values), hint=hint)
    sums = {metric.name: cast(Reported, metric).sums(values[metric.name], rows) for metric in metrics}
    return sums, {metric.name: values[metric.name] for metric in metrics}
