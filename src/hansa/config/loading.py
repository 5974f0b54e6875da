"""A job and its data from what a person names: a job file, or a reference into Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hansa import registry, tensors
from hansa.config import evidence
from hansa.config.jobfile import JobFile, read
from hansa.core import gate, trees
from hansa.core.job import Job
from hansa.core.protocols import FederatedData
from hansa.core.rng import generator
from hansa.core.trees import Spec, Tree
from hansa.core.workflow import Training
from hansa.errors import ConfigError, DataError, InputError, JobReferenceError, StorageError
from hansa.references import load_reference

SITES = 10  # of a job in Python that names a source without natural sites


@dataclass(frozen=True)
class Loaded:
    """A job, its data by label and its resolved settings, with what was found of its data: `features`, `shape`, `files`, `code`.

    `load(path, overrides=overrides, data=folder)` loads it again, from anywhere. `note` says what was assumed.
    """

    job: Job
    data: Mapping[str, FederatedData]
    settings: Mapping[str, Any]
    path: str
    overrides: Sequence[str]
    folder: str | None
    note: str = ""


def load(
    path: str,
    *,
    overrides: Sequence[str] = (),
    data: str | None = None,
    environment: str | None = None,
    init: str | Path | None = None,
) -> Loaded:
    """The job that `path` names: a `.toml` file, `file.py:name` or `package.module:name`.

    data: a folder of larger data sets, or for a job in Python a reference `file.py:name` to its data. environment: the folder to
    use where `data` is none (HANSA_DATA). init: the model to start from, see `with_init`.

    Raises:
        ConfigError, JobReferenceError, DataError: something leads nowhere, or does not fit.
    """
    folder = _folder(data, environment)
    place = data if data is not None and ".py:" in data else folder
    again = (_absolute(path), tuple(overrides), None if place is None else _absolute(str(place)))
    if path.endswith(".toml"):
        file = read(path, overrides=overrides, folder=folder)
        made = file.job()
        sets, settings, note = {made.data: file.federated()}, _settings(file), ""
    else:
        made = _python(path, overrides)
        sets, note = _data_of(path, made, data, folder)
        named = getattr(sets.get(made.data), "features", ())
        features = named if isinstance(named, list | tuple) and all(isinstance(name, str) for name in named) else ()
        settings = _told(features=features, code=_code(path, data))
    return Loaded(made if init is None else with_init(made, init), sets, settings, *again, note)


def load_job(
    path: str, *, overrides: Sequence[str] = (), data: str | None = None, shape: Mapping[str, int | None] | None = None
) -> Job:
    """The job alone. No data are loaded where a job file's learner needs none, or its `shape` is known from an earlier `load`.

    Raises:
        ConfigError, JobReferenceError, DataError: something leads nowhere, or does not fit.
    """
    if path.endswith(".toml"):
        return read(path, overrides=overrides, folder=_folder(data, None)).job(shape=shape)
    return _python(path, overrides)


def _folder(data: str | None, environment: str | None) -> Path | None:
    place = data if data is not None and ".py:" not in data else environment
    if place is not None and not Path(place).is_dir():
        raise InputError("no such data folder", path=place, hint="give --data DIR or set HANSA_DATA")
    return None if place is None else Path(place).resolve()


def _python(path: str, overrides: Sequence[str]) -> Job:
    if ":" not in path:
        raise JobReferenceError("not a job", got=repr(path), expected="job.toml, file.py:name or package.module:name")
    found = load_reference(path)
    if not isinstance(found, Job):
        raise JobReferenceError("the name leads to something else than a Job", got=f"{path} is a {type(found).__name__}")
    return _overridden(found, overrides)


def _settings(file: JobFile) -> dict[str, Any]:
    places = {file.settings["data"][name]: place for name, place in file.places.items() if place.exists()}
    files = {name: evidence.fingerprint(place) for name, place in places.items()}
    code = evidence.code_of(file.settings, file.path.parent)
    return {**file.settings, **_told(shape=file.shape, features=file.features, files=files, code=code)}


def _told(**found: Any) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value}


def _code(*references: str | None) -> dict[str, str]:
    """Fingerprints of the Python files that a job in Python is made of, as far as it names them."""
    files = [Path(each.rpartition(":")[0]) for each in references if each is not None and ".py:" in each]
    return {file.name: evidence.fingerprint(file)["sha256"] for file in files}


def job(path: Path) -> Job:
    """The job of a job file, as a bundle brings it."""
    return read(path).job()


def with_init(job: Job, file: str | Path) -> Job:
    """The job started from the model in a safetensors file.

    Raises:
        ConfigError: the job trains no model; or there is no such file, it is damaged, or its model does not fit the job's or is not
            finite: names the file and the leaf.
    """
    if not isinstance(job.workflow, Training):
        hint = "give init= to the training in it, if there is one"
        raise ConfigError("this job's workflow is no training in rounds, so it takes no --init", job=job.name, hint=hint)
    try:
        tree, _ = tensors.load_tree(file)
    except StorageError as error:  # what a person named is wrong input, whatever is wrong with it
        raise ConfigError(f"no model to start from: {error.message}", path=str(file), hint="give a model.safetensors") from error
    if job.workflow.learner is not None:
        # What the first round makes from data (the statistics of features) comes on top of the learner's own leaves.
        made = len(job.workflow.process.initialize.parameters) > 0
        _check_fits(tree, job.workflow.learner.init(generator(0)), more=made, file=str(file))
    for path, leaf in trees.leaves(tree):
        if not gate.is_finite(leaf):
            raise ConfigError("the model to start from is not finite", path=f"{file}: {path}", expected="finite numbers")
    return replace(job, workflow=job.workflow.but(init=tree))


def _check_fits(tree: Tree, model: Tree, *, more: bool, file: str) -> None:
    """Check that the tree has the model's leaves, and others only if it needs `more`."""
    want, got = dict(Spec.of(model).items), dict(Spec.of(tree).items)
    for path in sorted(want.keys() | got.keys()):
        if want.get(path) != got.get(path) and (path in want or not more):
            expected, given = want.get(path, "no such leaf"), got.get(path, "nothing")
            raise ConfigError(
                "the model to start from does not fit the job's", path=f"{file}: {path}", expected=expected, got=given
            )
    if more and not got.keys() - want.keys():
        hint = "start from a model of a run that standardised, too"
        raise ConfigError("the model to start from has no statistics of features, which this job keeps in it", path=file, hint=hint)


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
        elif isinstance(job.workflow, Training):
            job = replace(job, workflow=job.workflow.but(rounds=int(value)))
        else:
            raise ConfigError("this job's workflow is no training in rounds", path=key, got=type(job.workflow).__name__)
    return job


def _data_of(path: str, job: Job, given: str | None, folder: Path | None) -> tuple[dict[str, FederatedData], str]:
    """The data of a job in Python: what --data names, else `data` beside the job, else the source that its label names."""
    if given is not None and ".py:" in given:
        return _labelled(job, load_reference(given), folder, given), ""
    place = path.rpartition(":")[0]
    try:
        beside = load_reference(f"{place}:data")
    except JobReferenceError:
        beside_file = Path(place).resolve().parent if place.endswith(".py") else None
        return _from_source(job, folder or beside_file)
    return _labelled(job, beside, folder, f"{place}:data"), ""


def _labelled(job: Job, found: object, folder: Path | None, name: str) -> dict[str, FederatedData]:
    if callable(found) and not isinstance(found, FederatedData):
        found = _call(found, name, folder=folder, seed=job.seed)
    if isinstance(found, Mapping):
        return dict(found)
    if isinstance(found, FederatedData):
        return {job.data: found}
    raise DataError("not federated data", job=job.name, got=type(found).__name__, expected="a FederatedData, or one by label")


def _from_source(job: Job, folder: Path | None) -> tuple[dict[str, FederatedData], str]:
    if job.data not in registry.names("sources"):
        hint = "define `data` beside the job, or give --data file.py:name"
        raise DataError(f"nothing says what {job.data!r} is", job=job.name, hint=hint)
    rows = _call(cast(Callable[..., Any], registry.find("sources", job.data)), job.data, folder=folder)
    if isinstance(rows, FederatedData):
        return {job.data: rows}, ""
    if "site" in getattr(rows, "columns", {}):
        column = cast(Callable[..., FederatedData], registry.find("partitions", "column"))
        return {job.data: column(rows, by="site")}, ""
    iid = cast(Callable[..., FederatedData], registry.find("partitions", "iid"))
    note = f"the job says nothing of its sites: source {job.data!r} dealt evenly to {SITES} (--data file.py:name for others)"
    return {job.data: iid(rows, sites=SITES)}, note


def _call(source: Callable[..., Any], name: str, **offered: Any) -> Any:
    """What a source gives; it is handed what it takes of what is `offered` and known.

    Raises:
        ConfigError: it needs more; names what.
    """
    parameters = inspect.signature(source).parameters
    given = {key: value for key, value in offered.items() if key in parameters and value is not None}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_ONLY)
    open_ = [key for key, each in parameters.items() if each.kind in named and each.default is each.empty and key not in given]
    if open_:
        hint = "beside the job, define `data`: the FederatedData, or a function of nothing (or `folder`, `seed`) that gives it"
        raise ConfigError(
            f"{name!r} needs arguments, which a job in Python cannot give: {', '.join(open_)}", path="data", hint=hint
        )
    return source(**given)
