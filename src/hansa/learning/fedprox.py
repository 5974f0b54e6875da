"""FedProx: local training held near the server's model (Li 2020, https://arxiv.org/abs/1812.06127)."""

from __future__ import annotations

from typing import Unpack

from hansa.core.protocols import Learner
from hansa.core.round import is_real
from hansa.core.trees import Tree
from hansa.errors import ConfigError
from hansa.learning.on_site import SiteLearner
from hansa.learning.rounds import Rounds
from hansa.learning.templates import Options, Setup, State


def fedprox(
    learner: Learner | SiteLearner, *, rounds: int, cohort: int | None = None, mu: float = 0.01, **options: Unpack[Options]
) -> Rounds:
    """Rounds of FedProx over `cohort` sites (None: all): FedAvg whose sites minimise their loss plus a pull to the server's w.

        min_v  F_i(v) + mu/2 |v - w|^2,   then   w <- w + sum n_i delta_i / sum n_i

    mu = 0 is FedAvg; the paper tries 0.001, 0.01, 0.1 and 1. `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import logistic
    >>> print(fedprox(logistic(features=4), rounds=2, mu=0.1).about)
    fedprox, 2 rounds, numpy.logistic(features=4, lr=0.1, epochs=1, batch=32), proximal=0.1

    Raises:
        ConfigError: an option is out of its range; names it.
    """
    if not (is_real(mu) and mu >= 0):
        raise ConfigError("mu is the strength of a pull", path="mu", expected="a finite number >= 0", got=repr(mu))
    setup = Setup.of(learner, options, algorithm=fedprox, proximal=mu)
    train = setup.local_training()

    def add_mean(state: State, delta: Tree) -> State:
        return setup.advanced(state, delta)

    step = setup.round_of("fedprox_round", train, add_mean)
    return setup.rounds(step, setup.initialize(), rounds=rounds, cohort=cohort, name="fedprox")
