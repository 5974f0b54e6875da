"""One-shot tasks: one thing done at every site, and what came of it as the run's result. No model is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hansa.core.computation import Computation, Polymorphic, as_local, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_collect, federated_map
from hansa.core.plan import plan
from hansa.core.protocols import Federation
from hansa.core.reduce import as_tree
from hansa.core.round import Policy
from hansa.core.run import run
from hansa.core.types import CLIENTS, UNKNOWN, FederatedType
from hansa.core.values import conform, pack, scalar
from hansa.errors import ConfigError
from hansa.learning.options import changed, digest_of
from hansa.learning.rounds import missed


def once(
    work: Computation | Callable[..., Any],
    *,
    given: Mapping[str, Any] | None = None,
    quorum: int | float = 1,
    deadline_s: float | None = None,
    attempts: int = 1,
) -> Once:
    """One task at every site. The result of the run is what came of it: trees of numbers, in result.json as well.

    work: a computation (`({D}@CLIENTS -> T@SERVER)`), whose value at the server it is; or a plain function of a site's data: then
    it is what each site's call gave, by site. Both may prepare something for later tasks of the run by
    `ctx.memory.put(name, tree)`, which stays at the site. given: the computation's server arguments by name. quorum, deadline_s,
    attempts: as in a round. A computation without server arguments is a job's workflow as it is: `Job("rows", computation)`.

    >>> def rows(data):
    ...     return {"rows": len(data)}
    >>> once(rows).about
    'rows, once at every site'

    Raises:
        ConfigError: a server argument is missing or unknown, or a number is out of its range.
        TraceError: a value would leave a site unaggregated, or a server argument has another type.
    """
    policy = Policy(quorum=quorum, deadline_s=deadline_s, attempts=attempts)
    if isinstance(work, Polymorphic):
        hint = "annotate its parameters, as Clients[...], or give the types to hs.federated_computation"
        raise ConfigError("a computation without types cannot travel", path="workflow", got=work.__name__, hint=hint)
    computation = work if isinstance(work, Computation) else _collected(work)
    plan(computation)  # says now what may not leave
    server = [each for each in computation.parameters if each.placement is not CLIENTS]
    if missing := sorted({each.name for each in server} ^ (given or {}).keys()):
        hint = "give once(..., given={name: value}); for a state that goes from round to round take iterate(...)"
        expected = [each.name for each in server]
        raise ConfigError("not the server's arguments", path=missing[0], expected=expected, got=sorted(given or {}), hint=hint)
    values = tuple(conform((given or {})[each.name], each.type, path=each.name) for each in server)
    about = [f"{getattr(work, '__name__', computation.name)}, once at every site", *changed(policy)]
    about += [f"{each.name} {digest_of(as_tree(pack(value)))}" for each, value in zip(server, values, strict=True)]
    return Once(computation, policy, ", ".join(about), by_site=computation is not work, given=values)


@dataclass(frozen=True)
class Once:
    """The workflow of `once`. `shown` makes what people are given of the values; the checkpoint keeps these."""

    computation: Computation
    policy: Policy
    about: str
    by_site: bool = False
    shown: Callable[[Any], Any] = lambda value: value
    rounds: int = 1
    given: tuple[Any, ...] = ()

    @property
    def computations(self) -> Sequence[Computation]:
        """The one whose client stages a site serves."""
        return (self.computation,)

    def __call__(self, federation: Federation) -> Any:
        """What came of the task; after a crash in a later step, what had come of it.

        Raises:
            QuorumError: too few sites gave a usable reply.
        """
        saved = federation.restore()
        packed = self._done(federation) if saved is None else cast(Any, saved[1]["value"])
        return self.shown(_plain(packed, federation.sites if self.by_site else ()))

    def _done(self, federation: Federation) -> Any:
        done = run(self.computation, federation, *self.given, round=1, policy=self.policy)
        value = done.result
        if self.by_site:
            value = {str(slot): each for slot, each in zip(done.admitted, done.result, strict=True)}
        sites = {site: dict(values) for site, values in done.metrics.items()}
        record: dict[str, Any] = {"round": 1, "sites": sites, "refused": [], "lost": []}
        missed(record, None, done.refused, [reply.site for reply in done.lost])
        federation.report(record)
        packed = pack(value, path="value")
        federation.checkpoint(1, {"value": packed}, {})
        return packed


def _collected(fn: Callable[..., Any]) -> Computation:
    """The computation that collects what each site's call of a function gave."""
    local = as_local(fn)

    @functools.wraps(local.fn)  # a plan names the user's function
    def call(*args: Any, **wanted: Any) -> Any:
        gave = local.fn(*args, **wanted)
        return {} if gave is None else gave  # it only prepared something

    at_site = LocalFunction(call, local.name, local.parameters, local.result, local.wants, loops=True, about=local.about)

    def gather(data: Any) -> object:
        return federated_collect(federated_map(at_site, data))

    gather.__name__ = f"{local.name}_at_each_site"
    return cast(Computation, federated_computation(gather, FederatedType(UNKNOWN, CLIENTS)))


def _plain(packed: Any, sites: Sequence[str]) -> Any:
    """What was packed, with numbers for scalars; by site where `sites` are given, whose slots are its keys."""
    if isinstance(packed, np.ndarray):
        return scalar(packed)
    if sites:
        return {sites[slot]: _plain(packed[str(slot)], ()) for slot in sorted(map(int, packed))}
    return {name: _plain(part, ()) for name, part in packed.items()}
