"""What a learning algorithm keeps at the server from round to round."""

from __future__ import annotations

from typing import Any, NamedTuple

from hansa.core.trees import Tree


class State(NamedTuple):
    """The server's state: the model, the number of finished rounds, and what the algorithm keeps besides (may be empty)."""

    model: Tree
    round: int
    extra: Tree


class AggregatingState(NamedTuple):
    """A State with the state of a composed aggregator."""

    model: Tree
    round: int
    extra: Tree
    aggregator: Any


class LearningProcessOutput(NamedTuple):
    """What a round of learning gives: the next state, and metrics by name."""

    state: Any
    metrics: Any
