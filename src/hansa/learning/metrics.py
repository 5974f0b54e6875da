"""Metrics of a federated model: summed over the sites behind the gate, or taken on data held at the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from hansa import registry
from hansa.aggregation.sums import Sum
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_aggregate, federated_broadcast, federated_map
from hansa.core.protocols import Dataset, Learner, Metric, Part
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Tree
from hansa.core.types import TREE, Clients, ObjectType, Server, to_type
from hansa.errors import ConfigError
from hansa.learning.on_site import SiteLearner, told
from hansa.learning.personal import Personal
from hansa.learning.standardise import fitting


class Scores(NamedTuple):
    """Additive statistics of each metric at one site, and the site's own values."""

    sums: Tree
    metrics: dict[str, float]


def evaluation(layers: Personal, part: Part, metrics: Sequence[Metric], *, name: str = "") -> Computation:
    """The computation that sums each metric's statistics over the sites' rows of one part; `name` is its task's."""
    on_site = layers.learner if isinstance(layers.learner, SiteLearner) else None

    def evaluate(model: Tree, data: Dataset, *, ctx: FLContext, abort: Signal) -> Scores:
        if on_site is not None and not metrics:
            return Scores({}, {})
        if on_site is not None:
            values, rows_seen = on_site.evaluate_at(layers.whole(model, data, ctx), data, part, ctx=ctx, abort=abort)
            return Scores(*told(values, rows_seen, metrics))
        rows = data.part(part)
        whole = layers.whole(model, data, ctx)
        result = fitting(cast(Learner, layers.learner), whole).evaluate(whole, rows)
        sums = {metric.name: metric.measure(rows.y, result) for metric in metrics}
        values = {metric.name: metric.value(sums[metric.name]) for metric in metrics} if len(rows) else {}
        return Scores(sums, values)

    takes = (("model", TREE), ("data", ObjectType("Dataset")))
    local = LocalFunction(evaluate, name or f"evaluate_{part}", takes, to_type(Scores), frozenset({"ctx", "abort"}), loops=True)

    def sum_scores(model: Server[Tree], data: Clients[Dataset]) -> Server[Tree]:
        shared = federated_map(layers.shared, model)
        scores = federated_map(local, (federated_broadcast(shared), data))
        return cast(Tree, federated_aggregate(scores.sums, Sum()))  # behind the gate: one site's nan is not everybody's

    sum_scores.__name__ = f"evaluation_on_{part}" if not name else name.replace("evaluate", "evaluation")
    return federated_computation(sum_scores)


def scorer(
    learner: Learner, held: Dataset | Callable[[], Dataset] | None, metrics: Sequence[Metric]
) -> Callable[[Tree], Mapping[str, float]] | None:
    """The metrics of a model on data held at the server, loaded when first asked for; None where there are no such data."""
    if held is None:
        return None
    loaded: list[Dataset] = []

    def score(model: Tree) -> dict[str, float]:
        if not loaded:
            loaded.append(held if isinstance(held, Dataset) else held())
        result = learner.evaluate(model, loaded[0])
        return {metric.name: metric.value(metric.measure(loaded[0].y, result)) for metric in metrics}

    return score


def resolve(metrics: Sequence[str | Metric]) -> list[Metric]:
    """The metric objects; names are looked up among the entry points.

    Raises:
        ConfigError: a name is unknown or given twice, or something is neither a name nor a Metric.
    """
    found: list[Metric] = []
    for i, metric in enumerate(metrics):
        made = (
            cast(Callable[[], Metric], registry.find("metrics", metric, path=f"metrics[{i}]"))()
            if isinstance(metric, str)
            else metric
        )
        if not hasattr(made, "measure") or not hasattr(made, "value"):
            raise ConfigError("not a metric", path=f"metrics[{i}]", got=repr(metric))
        if made.name in [other.name for other in found]:
            raise ConfigError("a metric is named twice", path=f"metrics[{i}]", got=made.name)
        found.append(made)
    return found
