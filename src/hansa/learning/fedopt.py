"""FedOpt: momentum, Adam, Yogi or Adagrad at the server (Reddi 2021, https://arxiv.org/abs/2003.00295)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from hansa.core.protocols import Learner
from hansa.core.trees import Tree
from hansa.learning import schedules
from hansa.learning.on_site import SiteLearner
from hansa.learning.optimizers import Name, Optimizer
from hansa.learning.options import changed
from hansa.learning.rounds import Rounds
from hansa.learning.schedules import Schedule
from hansa.learning.templates import Options, Setup, State


def fedopt(
    learner: Learner | SiteLearner,
    *,
    rounds: int,
    cohort: int | None = None,
    optimizer: Name = "adam",
    server_lr: float | Schedule | Mapping[str, Any] = 0.01,
    momentum: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float | None = None,
    **options: Unpack[Options],
) -> Rounds:
    """Rounds of FedOpt over `cohort` sites (None: all): FedAvg's mean change is a gradient for an optimizer at the server.

        g = -sum n_i delta_i / sum n_i,   (w, slots) <- optimizer(w, g, slots, server_lr)

    `momentum` is SGD's; `betas` and `epsilon` are described at `optimizers.Optimizer`. With optimizer="sgd" and server_lr=1.0 this
    is FedAvg. Counters and running statistics of batch norm take the mean change as it is. `options` are those of
    `templates.Options`.

    >>> from hansa.adapters.numpy import logistic
    >>> print(fedopt(logistic(features=4), rounds=2, optimizer="yogi").about)
    fedopt (yogi), 2 rounds, server_lr=Constant(value=0.01), numpy.logistic(features=4, lr=0.1, epochs=1, batch=32)

    Raises:
        ConfigError: an option is out of its range; names it.
    """
    setup = Setup.of(learner, options, algorithm=fedopt)
    train = setup.local_training()
    rule = Optimizer(optimizer, momentum, betas, epsilon)
    server_step = schedules.of(server_lr, path="server_lr")

    def optimizer_step(state: State, delta: Tree) -> State:
        return setup.advanced(state, delta, lr=server_step(state.round), optimizer=rule)

    step = setup.round_of("fedopt_round", train, optimizer_step)
    return setup.rounds(
        step,
        setup.initialize(rule.start),
        rounds=rounds,
        cohort=cohort,
        name=f"fedopt ({optimizer})",
        server_lr=server_step,
        settings=changed(rule, but=("name",)),
    )
