"""FedAvg: local training, then the weighted mean of the changes (McMahan 2017, https://arxiv.org/abs/1602.05629)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from hansa.core.protocols import Learner
from hansa.core.trees import Tree
from hansa.learning import schedules
from hansa.learning.on_site import SiteLearner
from hansa.learning.rounds import Rounds
from hansa.learning.schedules import Schedule
from hansa.learning.templates import Options, Setup, State


def fedavg(
    learner: Learner | SiteLearner,
    *,
    rounds: int,
    cohort: int | None = None,
    server_lr: float | Schedule | Mapping[str, Any] = 1.0,
    **options: Unpack[Options],
) -> Rounds:
    """Rounds of FedAvg over `cohort` sites (None: all): each trains for its epochs or steps and sends delta_i = w_i - w.

        w <- w + server_lr * sum n_i delta_i / sum n_i

    n_i are a site's training rows, or 1 with `weighting="uniform"`. `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import softmax
    >>> print(fedavg(softmax(classes=2, features=4), rounds=2).process.next.type_signature.result)
    <model=Tree,round=int32,extra=Tree>@SERVER

    Raises:
        ConfigError: an option is out of its range; names it.
    """
    setup = Setup.of(learner, options, algorithm=fedavg)
    train = setup.local_training()
    server_step = schedules.of(server_lr, path="server_lr")

    def add_mean(state: State, delta: Tree) -> State:
        return setup.advanced(state, delta, lr=server_step(state.round))

    step = setup.round_of("fedavg_round", train, add_mean)
    return setup.rounds(step, setup.initialize(), rounds=rounds, cohort=cohort, name="fedavg", server_lr=server_step)
