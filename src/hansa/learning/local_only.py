"""Local-only training: what each site reaches alone, from the configuration of a federated job."""

from __future__ import annotations

from typing import Unpack

from hansa.core.computation import federated_computation
from hansa.core.intrinsics import federated_broadcast, federated_map
from hansa.core.protocols import Dataset, Learner
from hansa.core.types import Clients, Server
from hansa.errors import ConfigError
from hansa.learning.on_site import SiteLearner
from hansa.learning.rounds import Rounds
from hansa.learning.templates import Options, Setup, State, admitted


def local_only(learner: Learner | SiteLearner, *, rounds: int, cohort: int | None = None, **options: Unpack[Options]) -> Rounds:
    """Rounds in which `cohort` sites (None: all) train, each on with its own model: nothing but row counts and metrics leaves.

        w_i <- local training from w_i

    With `standardise` a site imputes and scales by its own rows. The run's model is the one that all started from; metrics are
    those of each site's own model, and their pooled values. `options` are those of `templates.Options`.

    >>> from hansa.adapters.numpy import logistic
    >>> print(local_only(logistic(features=4), rounds=2).about)
    local_only, 2 rounds, numpy.logistic(features=4, lr=0.1, epochs=1, batch=32), personal=['*']

    Raises:
        ConfigError: an option is out of its range, or has no meaning where nothing is combined; names it.
    """
    if given := [name for name in ("personal", "aggregator") if options.get(name)]:
        raise ConfigError(f"local_only never takes {given[0]!r}", path=given[0], hint="each site trains all layers alone")
    chosen: Options = {**options, "personal": ("*",)}
    setup = Setup.of(learner, chosen, algorithm=local_only)
    train = setup.local_training()

    def next_round(state: State, sites: int) -> State:  # noqa: ARG001  to be counted is what made the sites train
        return state._replace(round=state.round + 1)

    @federated_computation
    def local_only_round(state: Server[State], data: Clients[Dataset]) -> Server[State]:
        shared = federated_map(setup.shared, state.model)
        step = federated_map(train, (federated_broadcast(shared), federated_broadcast(state.round), data))
        return federated_map(next_round, (state, admitted(step.weight)))

    return setup.rounds(local_only_round, setup.initialize(alone=True), rounds=rounds, cohort=cohort, name="local_only")
