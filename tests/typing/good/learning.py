"""Algorithms take a Learner and typed options; an algorithm of one's own is a pair of pure functions."""

from typing import NamedTuple

import numpy as np

import hansa as hs
from hansa.adapters.numpy import softmax
from hansa.core.protocols import Dataset
from hansa.learning.fedavg import fedavg
from hansa.learning.fedopt import fedopt
from hansa.learning.fedsgd import fedsgd
from hansa.learning.rounds import Rounds
from hansa.learning.schedules import Cosine

learner = softmax(classes=2, features=4)
plain: Rounds = fedavg(learner, rounds=2, cohort=3, clip=1.0, quorum=0.5, personal=["head.*"])
summed: Rounds = fedsgd(learner, rounds=2, combine="mean", client_lr={"kind": "inverse", "start": 0.1})
adaptive: Rounds = fedopt(learner, rounds=2, optimizer="yogi", server_lr=Cosine(0.1, rounds=2), metrics=["accuracy"])


class State(NamedTuple):
    model: hs.Tree
    round: int


class Step(NamedTuple):
    delta: hs.Tree
    rows: int


def local_step(model: hs.Tree, data: Dataset) -> Step:
    return Step(model, len(data))


def apply(state: State, delta: hs.Tree) -> State:
    return State(delta, state.round + 1)


def of_model(state: State) -> hs.Tree:
    return state.model


@hs.federated_computation
def my_round(state: hs.Server[State], data: hs.Clients[Dataset]) -> hs.Server[State]:
    model = hs.federated_map(of_model, state)
    step = hs.federated_map(local_step, (hs.federated_broadcast(model), data))
    mean: hs.Tree = hs.federated_mean(step.delta, weight=step.rows)
    return hs.federated_map(apply, (state, mean))


start = State({"w": np.zeros(2)}, 0)
