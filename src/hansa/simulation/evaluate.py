"""A model measured at each simulated site, and the three ways to train it compared: alone, together, pooled."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hansa.core.job import Job
from hansa.core.protocols import FederatedData
from hansa.core.round import Policy
from hansa.core.run import run
from hansa.core.trees import Tree
from hansa.core.workflow import Training
from hansa.data.federated import pool
from hansa.errors import ConfigError
from hansa.simulation.crews import Loop
from hansa.simulation.engine import Result, Settings, simulate, threads
from hansa.simulation.federation import SimulatedFederation
from hansa.simulation.sites import Sites, by_label


@dataclass(frozen=True)
class Evaluated:
    """`sites`: each site's own metrics, by name; a site without rows in the part is not in it. `pooled`: of all rows together."""

    sites: Mapping[str, Mapping[str, float]]
    pooled: Mapping[str, float]


@dataclass(frozen=True)
class Compared:
    """One configuration trained three ways, each measured on every site's test rows; `federated` holds the run itself."""

    local: Mapping[str, Mapping[str, float]]
    together: Evaluated
    centralised: Evaluated
    federated: Result

    def table(self, metric: str) -> list[tuple[str, float, float, float]]:
        """A row a site: its name, and the metric of local-only, federated and centralised training (nan where undefined)."""
        nan = float("nan")
        ways = (self.local, self.together.sites, self.centralised.sites)
        return [(site, *(way.get(site, {}).get(metric, nan) for way in ways)) for site in self.together.sites]  # type: ignore[misc]  # three ways


def evaluate(
    job: Job,
    model: Tree,
    data: FederatedData | Mapping[str, FederatedData],
    *,
    part: Literal["valid", "test"] = "test",
    memory: Mapping[int, Mapping[str, Tree]] | None = None,
    seed: int | None = None,
    slots: Sequence[int] | None = None,
) -> Evaluated:
    """The metrics of a model on one part of each site's rows.

    `memory` is what the sites kept (`Result.memory`), for personal layers; `seed` is the run's (None: the job's, else 0), from
    which a site without memory draws its personal layers.

    Raises:
        ConfigError: the job trains no model.
    """
    workflow = _training(job)
    sets = by_label(job, data)
    names = sets[job.data].sites
    chosen = seed if seed is not None else job.seed or 0
    sites = Sites(job, job.serve(), sets, names, chosen)
    kept = {slot: dict(trees) for slot, trees in (memory or {}).items()}
    computation = workflow.process.test if part == "test" else workflow.process.evaluate
    with contextlib.closing(Loop(sites)) as crew, threads(Settings()):
        federation = SimulatedFederation(names, chosen, crew, memory=kept)
        done = run(computation, federation, model, slots=slots, policy=Policy())
    return Evaluated(done.metrics, workflow.process.values(done.result))


def compare(job: Job, data: FederatedData | Mapping[str, FederatedData], *, seed: int | None = None, **options: Any) -> Compared:
    """The trio from one configuration: each site alone, all sites federated, and all rows pooled at one place.

    The same job runs with the same seed each time: over the single site, over all sites, over the pooled rows. Each model is then
    measured on every site's own test rows. `options` are those of `simulate`, for the federated run.
    """
    sets = by_label(job, data)
    whole = sets[job.data]
    federated = simulate(job, sets, seed=seed, **options)
    alone = _everyone(job)
    central = simulate(alone, {label: pool(each) for label, each in sets.items()}, seed=seed)
    local: dict[str, Mapping[str, float]] = {}
    for slot, site in enumerate(whole.sites):
        one = {label: OneSite(each, slot) for label, each in sets.items()}
        trained = simulate(alone, one, seed=seed)
        local.update(evaluate(job, trained.model, one, memory=trained.memory, seed=seed).sites or {site: {}})
    together = evaluate(job, federated.model, sets, memory=federated.memory, seed=seed)
    everywhere = {slot: central.memory.get(0, {}) for slot in range(len(whole.sites))}  # the one place's personal layers, if any
    return Compared(local, together, evaluate(job, central.model, sets, memory=everywhere, seed=seed), federated)


@dataclass(frozen=True)
class OneSite:
    """A federated data set of one site of another."""

    whole: FederatedData
    slot: int

    @property
    def sites(self) -> Sequence[str]:
        """The one name."""
        return [self.whole.sites[self.slot]]

    def load(self, slot: int) -> Any:
        """The site's rows."""
        if slot != 0:
            raise IndexError(slot)
        return self.whole.load(self.slot)


def _training(job: Job) -> Training:
    if not isinstance(job.workflow, Training):
        raise ConfigError("this job's workflow trains no model", job=job.name, got=type(job.workflow).__name__)
    return job.workflow


def _everyone(job: Job) -> Job:
    """The job for a single place: it cannot ask for a cohort or quorum of several."""
    workflow = _training(job)
    policy = replace(workflow.policy, cohort=None, quorum=1, over_select=0.0)
    return replace(job, workflow=workflow.but(policy=policy))
