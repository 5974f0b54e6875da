"""A job and its data from what a person names: a job file, or a reference into Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hansa.config.jobfile import read
from hansa.core import codec, registry
from hansa.core.job import Job, load_reference
from hansa.core.protocols import FederatedData
from hansa.core.workflow import Rounds
from hansa.errors import ConfigError, DataError, InputError, JobReferenceError

SITES = 10  # of a job in Python that names a source without natural sites


@dataclass(frozen=True)
class Loaded:
    """A job, its data by label and its resolved settings.

    `load(path, overrides=overrides, data=folder)` loads it again, from anywhere. `note` says what was assumed.
    """

    job: Job
    data: Mapping[str, FederatedData]
    settings: Mapping[str, Any]
    path: str
    overrides: Sequence[str]
    folder: str | None
    note: str = ""


def load(path: str, *, overrides: Sequence[str] = (), data: str | None = None, environment: str | None = None) -> Loaded:
    """The job that `path` names: a `.toml` file, `file.py:name` or `package.module:name`.

    data: a folder of larger data sets, or for a job in Python a reference `file.py:name` to its data. environment: the folder to
    use where `data` is none (HANSA_DATA).

    Raises:
        ConfigError, JobReferenceError, DataError: something leads nowhere, or does not fit.
    """
    place = data if data is not None and ".py:" not in data else environment
    folder = None if place is None else Path(place)
    if folder is not None and not folder.is_dir():
        raise InputError("no such data folder", path=str(folder), hint="give --data DIR or set HANSA_DATA")
    again = (_absolute(path), tuple(overrides), _absolute(data) if data else environment)
    if path.endswith(".toml"):
        file = read(path, overrides=overrides, folder=folder)
        job = file.job()
        return Loaded(job, {job.data: file.federated()}, dict(file.settings), *again)
    if ":" not in path:
        raise JobReferenceError("not a job", got=repr(path), expected="job.toml, file.py:name or package.module:name")
    found = load_reference(path)
    if not isinstance(found, Job):
        raise JobReferenceError("the name leads to something else than a Job", got=f"{path} is a {type(found).__name__}")
    sets, note = _data_of(path, found, data, folder)
    return Loaded(_overridden(found, overrides), sets, {}, *again, note)


def job(path: Path) -> Job:
    """The job of a job file, as a bundle brings it."""
    return read(path).job()


def with_init(job: Job, file: str | Path) -> Job:
    """The job started from the model in a safetensors file.

    Raises:
        ConfigError: the job trains no model.
    """
    if not isinstance(job.workflow, Rounds):
        raise ConfigError("this job's workflow trains no model, so it takes no --init", job=job.name)
    tree, _ = codec.load_tree(file)
    return replace(job, workflow=replace(job.workflow, init=tree))


def _absolute(path: str) -> str:
    """The path from anywhere: a resumed run may be started in another folder."""
    file, colon, name = path.partition(".py:")
    if colon:
        return f"{Path(f'{file}.py').resolve()}:{name}"
    return str(Path(path).resolve()) if path.endswith(".toml") or Path(path).is_dir() else path


def _overridden(job: Job, overrides: Sequence[str]) -> Job:
    for each in overrides:
        key, _, value = each.partition("=")
        if key.strip() not in ("algorithm.rounds", "seed") or not value.strip().isdigit():
            raise ConfigError("a job in Python takes --set algorithm.rounds=N and seed=N only", path=key, got=each)
        if key.strip() == "seed":
            job = replace(job, seed=int(value))
        elif isinstance(job.workflow, Rounds):
            job = replace(job, workflow=replace(job.workflow, rounds=int(value)))
    return job


def _data_of(path: str, job: Job, given: str | None, folder: Path | None) -> tuple[dict[str, FederatedData], str]:
    """The data of a job in Python: what --data names, else `data` beside the job, else the source that its label names."""
    if given is not None and ".py:" in given:
        return _labelled(job, load_reference(given), folder), ""
    try:
        beside = load_reference(path.rpartition(":")[0] + ":data")
    except JobReferenceError:
        return _from_source(job, folder)
    return _labelled(job, beside, folder), ""


def _labelled(job: Job, found: object, folder: Path | None) -> dict[str, FederatedData]:
    if callable(found) and not isinstance(found, FederatedData):
        found = _call(found, folder)
    if isinstance(found, Mapping):
        return dict(found)
    if isinstance(found, FederatedData):
        return {job.data: found}
    raise DataError("not federated data", job=job.name, got=type(found).__name__, expected="a FederatedData, or one by label")


def _from_source(job: Job, folder: Path | None) -> tuple[dict[str, FederatedData], str]:
    if job.data not in registry.names("sources"):
        hint = "define `data` beside the job, or give --data file.py:name"
        raise DataError(f"nothing says what {job.data!r} is", job=job.name, hint=hint)
    rows = _call(cast(Callable[..., Any], registry.find("sources", job.data)), folder)
    if isinstance(rows, FederatedData):
        return {job.data: rows}, ""
    if "site" in getattr(rows, "columns", {}):
        column = cast(Callable[..., FederatedData], registry.find("partitions", "column"))
        return {job.data: column(rows, by="site")}, ""
    iid = cast(Callable[..., FederatedData], registry.find("partitions", "iid"))
    note = f"the job says nothing of its sites: source {job.data!r} dealt evenly to {SITES} (--data file.py:name for others)"
    return {job.data: iid(rows, sites=SITES)}, note


def _call(source: Callable[..., Any], folder: Path | None) -> Any:
    takes = "folder" in inspect.signature(source).parameters
    return source(folder=folder) if takes and folder is not None else source()
