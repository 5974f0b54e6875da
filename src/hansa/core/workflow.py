"""Workflows: plain, deterministic Python over a Federation, and what is known of one that trains a model.

A workflow takes time, randomness and results from the federation alone, so that a crashed run can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from hansa.core.computation import Computation
from hansa.core.protocols import Federation, Learner
from hansa.core.round import Policy
from hansa.core.trees import Tree


class Workflow(Protocol):
    """Server-side work over a federation; what it returns is the run's result."""

    def __call__(self, federation: Federation) -> Any: ...


@dataclass(frozen=True)
class Process:
    """A learning algorithm: its computations, and how to reach the model in its state.

    initialize: `( -> S@SERVER)` or `({D}@CLIENTS -> S@SERVER)`; next: `(<S@SERVER,{D}@CLIENTS> -> S@SERVER)`;
    evaluate: `(<Tree@SERVER,{D}@CLIENTS> -> sums@SERVER)` on the validation part, `test` the same on the test part.
    values: the metrics that summed statistics stand for. higher: for each metric, whether more is better.
    score: the metrics of a model on data held at the server, where there is such data.
    """

    initialize: Computation
    next: Computation
    evaluate: Computation
    test: Computation
    model: Callable[[Any], Tree]
    with_model: Callable[[Any, Tree], Any]
    values: Callable[[Tree], Mapping[str, float]]
    higher: Mapping[str, bool] = field(default_factory=dict)
    score: Callable[[Tree], Mapping[str, float]] | None = None


@runtime_checkable
class Training(Workflow, Protocol):
    """A workflow that trains the model of a process in rounds. `but` gives it with other settings, by field name."""

    @property
    def process(self) -> Process: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def learner(self) -> Learner | None: ...
    def but(self, **changes: Any) -> Training: ...  # the fields of `Rounds`


@dataclass(frozen=True)
class Outcome:
    """What `Rounds` returns: the final and the best model, when the best was, and how many rounds were trained.

    Where nothing was monitored the best model is the final one. The three may share arrays: copy what you change.
    """

    model: Tree
    best: Tree
    best_round: int
    rounds: int
    state: Any
