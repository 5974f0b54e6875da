"""What a run's bits depend on, and whether a run goes on with what it began with."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np

from hansa.core.job import Job
from hansa.errors import ConfigError, InputError
from hansa.record.info import RunInfo


def require_same(before: RunInfo, job: Job, seed: int, names: Sequence[str], *, engine: str) -> None:
    """Check that the run goes on with the job and the arithmetic that it began with.

    Raises:
        InputError: it has completed. ConfigError: job, seed or sites differ, or its clients would now be vectorised, or no longer.
    """
    if before.state == "completed":
        raise InputError("the run is completed", run=before.id, hint="there is nothing to resume; start a new one")
    if before.job_hash != job.hash:
        was, now = before.job_hash[:12], job.hash[:12]
        raise ConfigError("the job has changed since this run began", run=before.id, expected=f"hash {was}", got=now)
    if before.seed != seed:
        raise ConfigError("the run has another seed", run=before.id, expected=before.seed, got=seed)
    if (before.engine == "vectorised") != (engine == "vectorised"):
        hint = "loop and pool give the same bits and may be changed; vectorised clients give others"
        raise ConfigError("the run has another engine", run=before.id, path="engine", expected=before.engine, got=engine, hint=hint)
    if before.sites != len(names):
        raise ConfigError("the run has other sites", run=before.id, expected=before.sites, got=len(names))
    if not isinstance(before.slots, int) and before.slots != list(names):
        slot = next(i for i, (was, now) in enumerate(zip(before.slots, names, strict=True)) if was != now)
        raise ConfigError(
            "the run has other sites", run=before.id, path=f"slot {slot}", expected=before.slots[slot], got=names[slot]
        )


def versions() -> dict[str, str]:
    """The versions that bits depend on: Python, Hansa, and the numeric libraries that are loaded."""
    found = {"python": platform.python_version()}
    for name in ("hansa", "numpy", "torch", "scikit-learn"):
        module = {"scikit-learn": "sklearn"}.get(name, name)
        if module in sys.modules or name == "hansa":
            with contextlib.suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


def machine() -> dict[str, Any]:
    """What of the machine bits may depend on."""
    config = cast(dict[str, Any], np.show_config(mode="dicts"))
    blas = config.get("Build Dependencies", {}).get("blas", {})
    simd = config.get("SIMD Extensions", {}).get("found", [])
    return {"system": platform.system(), "cpu": platform.machine(), "blas": blas.get("name", ""), "simd": simd[-1:] if simd else []}
