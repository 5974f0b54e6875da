"""One-shot tasks: one thing done at every site, and what came of it as the run's result. No model is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hansa.core.computation import Computation, as_local, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.intrinsics import federated_collect, federated_map
from hansa.core.plan import plan
from hansa.core.protocols import Federation
from hansa.core.round import Policy
from hansa.core.run import run
from hansa.core.types import CLIENTS, UNKNOWN, FederatedType
from hansa.core.values import pack, scalar
from hansa.errors import ConfigError
from hansa.learning.options import changed


def once(
    work: Computation | Callable[..., Any], *, quorum: int | float = 1, deadline_s: float | None = None, attempts: int = 1
) -> Once:
    """One task at every site. The result of the run is what came of it: trees of numbers, in result.json as well.

    work: a computation of the sites' data alone (`({D}@CLIENTS -> T@SERVER)`), whose value at the server it is; or a plain function
    of a site's data: then it is what each site's call gave, by site. Both may prepare something for later tasks of the run by
    `ctx.memory.put(name, tree)`, which stays at the site. quorum, deadline_s, attempts: as in a round.

    >>> def rows(data):
    ...     return {"rows": len(data)}
    >>> once(rows).about
    'rows, once at every site'

    Raises:
        ConfigError: it needs other arguments than data, or a number is out of its range.
        TraceError: a value would leave a site unaggregated.
    """
    policy = Policy(quorum=quorum, deadline_s=deadline_s, attempts=attempts)
    computation = work if isinstance(work, Computation) else _collected(work)
    plan(computation)  # says now what may not leave
    if given := [each.name for each in computation.parameters if each.placement is not CLIENTS]:
        raise ConfigError("a one-shot task takes the sites' data alone", path=given[0], got=computation.type_signature)
    name = getattr(work, "__name__", computation.name)
    return Once(computation, policy, ", ".join([f"{name}, once at every site", *changed(policy)]), by_site=computation is not work)


@dataclass(frozen=True)
class Once:
    """The workflow of `once`. `shown` makes what people are given of the values; the checkpoint keeps these."""

    computation: Computation
    policy: Policy
    about: str
    by_site: bool = False
    shown: Callable[[Any], Any] = lambda value: value
    rounds: int = 1

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
        done = run(self.computation, federation, round=1, policy=self.policy)
        value = done.result
        if self.by_site:
            value = {str(slot): each for slot, each in zip(done.admitted, done.result, strict=True)}
        refused = [
            {"site": reply.site, "code": reply.failure.code, "path": reply.failure.path, "message": reply.failure.message}
            for reply in done.refused
            if reply.failure is not None
        ]
        sites = {site: dict(values) for site, values in done.metrics.items()}
        federation.report({"round": 1, "sites": sites, "refused": refused, "lost": [reply.site for reply in done.lost]})
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
