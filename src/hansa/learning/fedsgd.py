"""FedSGD: one gradient of each site, added up or averaged (McMahan 2017, https://arxiv.org/abs/1602.05629, section 2)."""

from __future__ import annotations

from typing import Literal, Unpack

from hansa.aggregation.sums import Sum
from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_broadcast, federated_map
from hansa.core.protocols import Dataset, Learner
from hansa.core.trees import Tree
from hansa.core.types import Clients, Server
from hansa.core.workflow import Rounds
from hansa.errors import ConfigError
from hansa.learning.templates import Options, Setup, State


def fedsgd(
    learner: Learner,
    *,
    rounds: int,
    cohort: int | None = None,
    combine: Literal["sum", "mean"] = "sum",
    **options: Unpack[Options],
) -> Rounds:
    """Rounds of FedSGD over `cohort` sites (None: all): each takes one step on all its training rows and sends it.

        u_i = -lr * grad F_i(w)                the minus is in the update: the server adds
        w <- w + sum_i u_i                     combine="sum": m sites go m times as far as one
        w <- w + sum_i n_i u_i / sum_i n_i     combine="mean": by training rows, the pooled rows' gradient step exactly

    F_i is the mean loss over a site's rows, lr the learner's step size or `client_lr`; the learner's rule has to be plain SGD.
    `weighting` speaks of the mean alone; an `aggregator` replaces either. `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import logistic
    >>> print(fedsgd(logistic(features=4), rounds=2, combine="mean").about)
    fedsgd, 2 rounds, numpy.logistic(features=4, lr=0.1, epochs=1, batch=32), steps=1, batch=0

    Raises:
        ConfigError: an option is out of its range, or would be another number of steps; names it.
    """
    if combine not in ("sum", "mean"):
        raise ConfigError("no such way to combine", path="combine", expected="sum or mean", got=repr(combine))
    chosen: Options = options
    if combine == "sum" and "aggregator" not in options:
        chosen = {**options, "aggregator": Sum()}
    if options.get("epochs") is not None:
        raise ConfigError("fedsgd never takes 'epochs'", path="epochs", got=options["epochs"], hint="it is always one step")
    setup = Setup.of(learner, chosen, algorithm=fedsgd, steps=1, batch=0)
    gradient_step = setup.local_training("gradient_step")

    def add_steps(state: State, steps: Tree) -> State:
        return setup.advanced(state, steps)

    @federated_computation
    def fedsgd_round(state: Server[State], data: Clients[Dataset]) -> Server[State]:
        shared = federated_map(setup.shared, state.model)
        step = federated_map(gradient_step, (federated_broadcast(shared), federated_broadcast(state.round), data))
        return federated_map(add_steps, (state, setup.combine(step, like=shared)))

    return setup.rounds(fedsgd_round, setup.initialize(), rounds=rounds, cohort=cohort, name="fedsgd")
