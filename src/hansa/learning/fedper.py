"""FedPer: the body of a network is learnt together, its last layers stay at each site (Arivazhagan 2019, https://arxiv.org/abs/1912.00818)."""

from __future__ import annotations

from typing import Unpack

from hansa.core.protocols import Learner
from hansa.core.trees import Tree
from hansa.errors import ConfigError
from hansa.learning.on_site import SiteLearner
from hansa.learning.rounds import Rounds
from hansa.learning.templates import Options, Setup, State


def fedper(learner: Learner | SiteLearner, *, rounds: int, cohort: int | None = None, **options: Unpack[Options]) -> Rounds:
    """Rounds of FedPer over `cohort` sites (None: all): FedAvg on the shared leaves, while those named by `personal` never leave.

        (b, p_i) <- local training from (b, p_i),   then   b <- b + sum n_i (b_i - b) / sum n_i

    `personal` (required) are path patterns such as ["head.*"]. Every site starts them from the same values; the server's copy stays
    there, so the model of the run is whole only together with a site's memory. `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import mlp
    >>> print(fedper(mlp((8,), classes=2, features=4), rounds=2, personal=["1.*"]).about)
    fedper, 2 rounds, numpy.mlp(hidden=(8,), classes=2, features=4, lr=0.1, epochs=1, batch=32), personal=['1.*']

    Raises:
        ConfigError: `personal` is missing, or an option is out of its range; names it.
    """
    setup = Setup.of(learner, options, algorithm=fedper)
    if not setup.personal.patterns:
        raise ConfigError("fedper needs the layers that stay", path="personal", expected='path patterns, such as ["head.*"]')
    train = setup.local_training()

    def add_mean(state: State, delta: Tree) -> State:
        return setup.advanced(state, delta)

    step = setup.round_of("fedper_round", train, add_mean)
    return setup.rounds(step, setup.initialize(), rounds=rounds, cohort=cohort, name="fedper")
