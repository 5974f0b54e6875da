"""Cyclic weight transfer: one model travels from site to site, each trains on where the last one stopped (Chang 2018,
https://doi.org/10.1093/jamia/ocy017).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

from hansa.core.protocols import Federation, Learner
from hansa.core.rng import generator
from hansa.core.round import Policy, begin, select
from hansa.core.run import Round, Unmet, run
from hansa.core.task import Failure, Reply, Shareable
from hansa.core.trees import Tree
from hansa.core.workflow import Process
from hansa.errors import ConfigError, QuorumError
from hansa.learning.on_site import SiteLearner
from hansa.learning.rounds import Rounds
from hansa.learning.templates import Options, Setup, State

Order = Literal["fixed", "random"]
_SKIPPED = Failure("lost", "the site gave no answer at its turn")


def cyclic(
    learner: Learner | SiteLearner, *, rounds: int, cohort: int | None = None, order: Order = "fixed", **options: Unpack[Options]
) -> Rounds:
    """Rounds in which the model visits `cohort` sites (None: all), one after the other: each trains from where the last stopped.

        w <- w + delta_i(w)   for each site i in turn

    order: `fixed` is slot order, `random` another order each round, drawn from the job's seed. A site that refuses or is lost when
    it is its turn is skipped and named in the round's record; `deadline_s` and `attempts` are of one turn, `quorum` counts the
    sites that had theirs. `options` are those of `templates.Options`; nothing is averaged, so that `weighting`, `weight_cap`,
    `aggregator` and `over_select` have no meaning here.

    >>> from hansa.adapters.numpy import softmax
    >>> print(cyclic(softmax(classes=2, features=4), rounds=2, order="random").about)
    cyclic, 2 rounds, order='random', numpy.softmax(classes=2, features=4, lr=0.1, epochs=1, batch=32)

    Raises:
        ConfigError: an option is out of its range, or has no meaning where one site trains at a time; names it.
    """
    if order not in ("fixed", "random"):
        raise ConfigError("no such order", path="order", expected="fixed or random", got=repr(order))
    if given := [name for name in ("weighting", "weight_cap", "aggregator", "over_select") if options.get(name) is not None]:
        raise ConfigError(f"cyclic never takes {given[0]!r}", path=given[0], hint="one site trains at a time: nothing is averaged")
    setup = replace(Setup.of(learner, options, algorithm=cyclic), weighting="uniform")
    train = setup.local_training()

    def hop(state: State, delta: Tree) -> State:
        return setup.advanced(state, delta)._replace(round=state.round)

    step = setup.round_of("cyclic_hop", train, hop)
    settings = [f"order={order!r}"]
    made = setup.rounds(step, setup.initialize(), rounds=rounds, cohort=cohort, name="cyclic", settings=settings)
    return replace(made, train=_InTurn(order))


@dataclass(frozen=True)
class _InTurn:
    """A round in which one site after the other trains on the state of the last."""

    order: Order

    def __call__(self, process: Process, federation: Federation, state: Any, number: int, policy: Policy) -> Round:
        """The round with all its turns.

        Raises:
            QuorumError: fewer sites than the quorum had their turn.
        """
        slots = select(len(federation.sites), policy, generator(federation.seed, round=number, purpose="cohort"))
        done = Round(state)
        for slot in self._turns(slots, federation.seed, number):
            done = _joined(done, _turn(process, federation, done.result, number, slot, policy))
        needed = begin(number, slots, policy).needed
        if len(done.admitted) < needed:
            why = f"the quorum is out of reach: {needed} needed of {len(slots)} in turn; {len(done.admitted)} trained"
            first = next((f"site {reply.site!r}: {reply.failure.message}" for reply in done.refused if reply.failure), None)
            raise QuorumError(why, round=number, hint=first)
        return replace(done, result=done.result._replace(round=number), admitted=tuple(sorted(done.admitted)))

    def _turns(self, slots: tuple[int, ...], seed: int, number: int) -> list[int]:
        if self.order == "fixed":
            return list(slots)
        return [slots[k] for k in generator(seed, round=number, purpose="order").permutation(len(slots)).tolist()]


def _turn(process: Process, federation: Federation, state: Any, number: int, slot: int, policy: Policy) -> Round:
    """One site's training; the state as it was where the site gave no usable reply."""
    alone = replace(policy, cohort=None, quorum=1)
    try:
        return run(process.next, federation, state, round=number, slots=(slot,), policy=alone)
    except Unmet as error:
        lost = () if error.refused else (Reply(slot, federation.sites[slot], Shareable(), _SKIPPED),)
        return Round(state, refused=error.refused, lost=lost)


def _joined(before: Round, turn: Round) -> Round:
    return Round(
        turn.result,
        before.admitted + turn.admitted,
        {**before.metrics, **turn.metrics},
        before.refused + turn.refused,
        before.lost + turn.lost,
    )
