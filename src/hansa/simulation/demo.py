"""The demonstration: four real hospitals, each alone, together, and pooled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from hansa import registry
from hansa.core.job import Job
from hansa.data import datasets, partition
from hansa.data.federated import FederatedRows
from hansa.record.info import Reference
from hansa.record.progress import Mode
from hansa.simulation.engine import Origin, Settings
from hansa.simulation.evaluate import compare

SPLITS = 5  # random splits of which the mean is shown: a hospital has 30 to 75 test rows, too few for one
SPLIT = (0.6, 0.15, 0.25)


@dataclass(frozen=True)
class Shown:
    """The run folder of the first split's federated run, and for each hospital the AUC alone, federated and pooled."""

    run: Path
    table: list[tuple[str, float, float, float]]


def job(*, rounds: int = 30) -> Job:
    """Federated averaging of a logistic regression; features imputed and scaled by a federated statistics round."""
    learner = _made("learners", "numpy.logistic", lr=0.1, epochs=1, batch=32, l2=1e-3).bound_to(datasets.heart(), classes=2)
    return Job("hearts", _made("algorithms", "fedavg", learner, rounds=rounds, standardise=True, monitor="auc"), data="heart")


def hospitals(out: Path, *, rounds: int, seed: int, progress: Mode) -> Shown:
    """Train the demonstration's models; the federated run of the first split is written to `out`."""
    tables = []
    for split in range(SPLITS):
        first: dict[str, Any] = {"out": out, "origin": _origin(rounds, seed), "settings": Settings(progress=progress)}
        compared = compare(
            job(rounds=rounds), {"heart": data(seed=seed + split)}, seed=seed + split, **(first if split == 0 else {})
        )
        tables.append(compared.table("auc"))
    means = np.nanmean([[values for _, *values in table] for table in tables], axis=0)
    return Shown(out, [(site, *map(float, row)) for (site, *_), row in zip(tables[0], means, strict=True)])  # type: ignore[misc]  # three


def data(*, seed: int = 0) -> FederatedRows:
    """The four hospitals, their rows divided by the seed into those to train, to validate and to test on."""
    return partition.column(datasets.heart(), by="site", seed=seed, split=SPLIT)


def _origin(rounds: int, seed: int) -> Origin:
    """How the run is loaded again: `data` is called with the seed of the job, which is overridden."""
    overrides = [f"algorithm.rounds={rounds}", f"seed={seed}"]
    return Origin(Reference(path=f"{__name__}:JOB", overrides=overrides), {"features": data().features})


def _made(group: str, name: str, *args: Any, **kwargs: Any) -> Any:
    return cast(Callable[..., Any], registry.find(group, name))(*args, **kwargs)


def __getattr__(name: str) -> Any:
    """`JOB`, made when a run folder's reference asks for it."""
    if name == "JOB":
        return job()
    raise AttributeError(name)
