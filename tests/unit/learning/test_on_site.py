"""Algorithms over learners that read the site's data themselves: numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hansa.core.job import Job
from hansa.core.protocols import FitConfig, Part, Update
from hansa.core.task import FLContext, Signal
from hansa.core.trees import Tree
from hansa.data.federated import paths
from hansa.errors import ConfigError, QuorumError
from hansa.learning.fedavg import fedavg
from hansa.learning.fedper import fedper
from hansa.learning.on_site import Reported
from hansa.learning.scaffold import scaffold
from hansa.simulation.engine import simulate
from hansa.simulation.evaluate import evaluate

SITES = paths({"north": ".", "south": "."})


@dataclass(frozen=True)
class Counter:
    """Site k moves w by (k + 1) on 10 (k + 1) rows, and reports w on half of them."""

    metrics: tuple[str, ...] = ("loss",)
    reports: tuple[str, ...] = ("loss",)

    def init(self, rng: np.random.Generator) -> Tree:
        return {"w": np.zeros(2), "own": np.zeros(1)}

    def fit_at(
        self, model: Tree, data: Any, config: FitConfig, *, ctx: FLContext, abort: Signal
    ) -> tuple[Update, Mapping[str, float]]:
        assert data == SITES.load(ctx.slot)
        step = float(ctx.slot + 1)
        return Update({"w": np.full(2, step), "own": np.full(1, step)}, 10 * (ctx.slot + 1), 0, 0.1, 0.5), {"train_loss": step}

    def evaluate_at(self, model: Tree, data: Any, part: Part, *, ctx: FLContext, abort: Signal) -> tuple[Mapping[str, float], int]:
        w, own = model["w"], model["own"]
        assert isinstance(w, np.ndarray)
        assert isinstance(own, np.ndarray)
        return dict.fromkeys(self.reports, float(w[0]) + 10 * ctx.slot + 100 * own[0]), 5 * (ctx.slot + 1)


def test_changes_and_reported_metrics_are_means_by_rows() -> None:
    result = simulate(Job("c", fedavg(Counter(), rounds=1, personal=["own"])), SITES)
    w = (10 * 1.0 + 20 * 2.0) / 30
    assert np.allclose(result.model["w"], w)  # type: ignore[arg-type]  # a leaf
    record = result.metrics[0]
    assert record["global"]["train_loss"] == pytest.approx(w)
    loss = ((w + 100) * 5 + (w + 10 + 200) * 10) / 15  # each with its own layer
    assert record["global"]["loss"] == pytest.approx(loss)
    assert record["sites"]["south"] == pytest.approx({"train_loss": 2.0, "examples": 20.0, "loss": w + 210})


def test_a_known_metric_brings_its_direction_and_others_are_better_when_higher_unless_said() -> None:
    process = fedavg(Counter(), rounds=1, metrics=["loss", "liver", Reported("distance", higher_is_better=False)]).process
    assert dict(process.higher) == {"loss": False, "liver": True, "distance": False}


def test_without_metrics_nobody_is_asked_to_evaluate() -> None:
    class Blind(Counter):
        def evaluate_at(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("asked")

    result = simulate(Job("c", fedavg(Blind(metrics=()), rounds=2)), SITES)
    assert [list(record["global"]) for record in result.metrics] == [["train_loss"]] * 2
    evaluated = evaluate(Job("c", fedavg(Blind(metrics=()), rounds=2)), result.model, SITES)
    assert dict(evaluated.pooled) == {}
    with pytest.raises(ConfigError, match="monitor"):
        fedavg(Blind(metrics=()), rounds=2, monitor="loss")


def test_a_metric_that_was_not_reported_is_named() -> None:
    with pytest.raises(QuorumError, match="a metric was not reported; at path loss"):
        simulate(Job("c", fedavg(Counter(reports=("accuracy",)), rounds=1)), SITES)


@pytest.mark.parametrize("option", [{"standardise": True}, {"test": lambda: None}])
def test_what_needs_rows_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="which the script reads by itself"):
        fedavg(Counter(), rounds=1, **option)


def test_scaffold_is_refused_and_a_layer_can_stay_at_the_site() -> None:
    with pytest.raises(ConfigError, match="corrects each step"):
        scaffold(Counter(), rounds=1)  # type: ignore[arg-type]  # mypy refuses it, too
    result = simulate(Job("c", fedper(Counter(), rounds=2, personal=["own"])), SITES)
    assert [float(result.memory[slot]["personal"]["own"][0]) for slot in (0, 1)] == [2.0, 4.0]  # type: ignore[index,arg-type]  # leaves
