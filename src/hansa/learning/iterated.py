"""A computation with a state, round after round: any `next` of one's own, simulated and deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from hansa.core.computation import Computation
from hansa.core.graph import member_of
from hansa.core.plan import plan
from hansa.core.protocols import Federation
from hansa.core.reduce import as_tree
from hansa.core.rng import generator
from hansa.core.round import Policy, is_count, select
from hansa.core.run import Round, run
from hansa.core.types import SERVER, FederatedType, StructType, Type
from hansa.core.values import conform, pack, unpack
from hansa.core.workflow import Outcome
from hansa.errors import ConfigError, TraceError
from hansa.learning.composed import numbers
from hansa.learning.options import changed, digest_of
from hansa.learning.rounds import missed
from hansa.local import LocalComputation
from hansa.templates import IterativeProcess

_WANTED = "(<S@SERVER,{D}@CLIENTS> -> <S@SERVER,X@SERVER>) or (<S@SERVER,{D}@CLIENTS> -> S@SERVER)"


def iterate(
    process: IterativeProcess | Computation,
    *,
    rounds: int,
    init: Any = None,
    cohort: int | None = None,
    quorum: int | float = 1,
    deadline_s: float | None = None,
    over_select: float = 0.0,
    attempts: int = 1,
) -> Iterated:
    """Rounds of a computation of one's own: `next` takes the state and the sites' data, and gives the next state.

    process: an IterativeProcess, or its `next` alone: `(<S@SERVER,{D}@CLIENTS> -> S@SERVER)`, or with `<S@SERVER,X@SERVER>` as its
    result, where X is what a round measures: its numbers are the round's metrics, by path. init: the first state; needed where
    `process` makes none, and wins where it does. The others are as in a round. The run's model is the last state, as a tree; the
    result of the workflow is an Outcome with the `state` itself, or a pair of it and the last X.

    >>> import numpy as np
    >>> import hansa as hs
    >>> @hs.federated_computation(hs.FederatedType(np.float32, hs.SERVER), hs.FederatedType(np.float32, hs.CLIENTS))
    ... def nearer(state, reading):
    ...     return hs.federated_mean(reading)
    >>> iterate(nearer, init=0.0, rounds=3).about
    'nearer, 3 rounds, from a given state 93a5112d6c44'

    Raises:
        TraceError: `next` is no such computation, or `init` is no state of it. ConfigError: there is no first state, or a number is
            out of its range.
    """
    policy = Policy(cohort, quorum=quorum, deadline_s=deadline_s, over_select=over_select, attempts=attempts)
    step, first = (process.next, process.initialize) if isinstance(process, IterativeProcess) else (process, None)
    if not isinstance(step, Computation):
        raise TraceError("a round is a federated computation", got=repr(step), expected=_WANTED)
    if not is_count(rounds):
        raise ConfigError("a job has at least one round", path="rounds", expected="at least 1", got=repr(rounds))
    state = state_of(step)
    if isinstance(init, Computation | LocalComputation):
        hint = "call it, and give what it returns"
        raise TraceError("a first state is a value", path="init", expected=state, got=repr(init), hint=hint)
    if init is not None:
        init = conform(init, state, path="init")
    elif first is None:
        raise ConfigError("there is no first state", path="init", expected=state, hint="give init=, or an IterativeProcess")
    plan(step)  # says now what may not leave
    about = [step.name, f"{rounds} rounds", *changed(policy)]
    about += [] if init is None else [f"from a given state {digest_of(as_tree(pack(init)))}"]
    return Iterated(step, first, init, int(rounds), policy, ", ".join(about))


def state_of(step: Computation) -> Type:
    """The type of the state of a round, without its placement.

    Raises:
        TraceError: the computation is no round; says what a round is.
    """
    kinds = [node.type for node in step.arguments.values()]
    given = step.type_signature.result
    here = [kind for kind in kinds if isinstance(kind, FederatedType) and kind.placement is SERVER]
    if len(kinds) != 2 or kinds[0] not in here or len(here) != 1 or not isinstance(kinds[1], FederatedType):
        raise TraceError(f"{step.name} is no round", expected=_WANTED, got=step.type_signature)
    state = kinds[0]
    if not state.is_assignable_from(given) and not (_measures(given) and state.is_assignable_from(cast(StructType, given)[0])):
        raise TraceError(f"{step.name} does not give a state that it takes", expected=state, got=given)
    return member_of(state)


def _measures(given: Type) -> bool:
    return isinstance(given, StructType) and len(given) == 2


@dataclass(frozen=True)
class Iterated:
    """The workflow of `iterate`."""

    next: Computation
    initialize: Callable[[], Any] | None
    first: Any
    rounds: int
    policy: Policy
    about: str

    @property
    def computations(self) -> Sequence[Computation]:
        """Those whose client stages a site serves."""
        return (*([self.initialize] if isinstance(self.initialize, Computation) else []), self.next)

    def __call__(self, federation: Federation) -> Any:
        """The outcome, with what the last round measured; goes on from the last checkpoint where there is one.

        Raises:
            QuorumError: a round had too few usable replies.
        """
        saved = federation.restore()
        if saved is None:
            done, state, measured = 0, self._start(federation), None
        else:
            done, kept = saved[0], saved[1]
            state = unpack(kept["state"], state_of(self.next))
            measured = unpack(kept["measured"], self._measure) if self._measure is not None else None
        while done < self.rounds:
            done += 1
            trained = self._round(federation, state, done)
            state, measured = (trained.result, None) if self._measure is None else _two(trained.result)
            tree = {"state": pack(state)} | ({} if self._measure is None else {"measured": pack(measured)})
            federation.report(self._record(trained, measured, done))
            federation.checkpoint(done, tree, {})
        model = as_tree(pack(state))
        outcome = Outcome(model, model, done, done, state)
        return outcome if self._measure is None else (outcome, measured)

    def _start(self, federation: Federation) -> Any:
        if self.first is not None or self.initialize is None:
            return self.first
        if isinstance(self.initialize, Computation):
            return run(self.initialize, federation, policy=replace(self.policy, cohort=None)).result
        return self.initialize()

    def _round(self, federation: Federation, state: Any, number: int) -> Round:
        slots = select(len(federation.sites), self.policy, generator(federation.seed, round=number, purpose="cohort"))
        return run(self.next, federation, state, round=number, slots=slots, policy=self.policy)

    @cached_property
    def _measure(self) -> Type | None:
        """The type of what a round measures, if it does."""
        given = self.next.type_signature.result
        whole = self.next.parameters[0].type.is_assignable_from(given)
        return None if whole or not isinstance(given, StructType) else given[1]

    def _record(self, trained: Round, measured: Any, number: int) -> dict[str, Any]:
        """A round's line: the numbers that it measured, and who was missing."""
        told = {} if self._measure is None else numbers(measured, "result")
        sites = {site: dict(values) for site, values in trained.metrics.items()}
        record: dict[str, Any] = {"round": number, "global": told, "sites": sites, "refused": [], "lost": []}
        missed(record, None, trained.refused, [reply.site for reply in trained.lost])
        return record


def _two(result: Any) -> tuple[Any, Any]:
    first, second = result.values() if isinstance(result, Mapping) else result
    return first, second
