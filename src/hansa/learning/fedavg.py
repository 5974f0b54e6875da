"""FedAvg: local training, then the weighted mean of the changes (McMahan 2017, https://arxiv.org/abs/1602.05629)."""

from __future__ import annotations

from typing import Unpack

from hansa.core import trees
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_aggregate, federated_broadcast, federated_map
from hansa.core.protocols import Dataset, Learner
from hansa.core.trees import Tree
from hansa.core.types import Clients, Server
from hansa.core.workflow import Rounds
from hansa.learning.templates import Options, Setup, State


def fedavg(learner: Learner, *, rounds: int, cohort: int | None = None, **options: Unpack[Options]) -> Rounds:
    """Rounds of FedAvg over `cohort` sites (None: all): each trains for its epochs or steps, w <- w + sum n_i delta_i / sum n_i.

    `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import softmax
    >>> print(fedavg(softmax(classes=2, features=4), rounds=2).process.next.type_signature.result)
    <model=Tree,round=int32,extra=Tree>@SERVER

    Raises:
        ConfigError: an option is out of its range; names it.
    """
    setup = Setup.of(learner, options)
    train = setup.local_training()

    def add_mean(state: State, delta: Tree) -> State:
        return State(trees.merge(state.model, trees.add(setup.shared(state.model), delta)), state.round + 1, {})

    @federated_computation
    def fedavg_round(state: Server[State], data: Clients[Dataset]) -> Server[State]:
        shared = federated_map(setup.shared, state.model)
        step = federated_map(train, (federated_broadcast(state.model), federated_broadcast(state.round), data))
        delta = federated_aggregate(step.delta, setup.aggregator, weight=step.weight, like=shared, weight_cap=setup.weight_cap)
        return federated_map(add_mean, (state, delta))

    return setup.rounds(fedavg_round, setup.initialize(), rounds=rounds, cohort=cohort, name="fedavg")
