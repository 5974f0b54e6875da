"""job.toml: read, checked against what its names lead to, and made into a job and its data."""

from __future__ import annotations

import functools
import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np

from hansa import registry
from hansa.config import overrides as overriding
from hansa.config.arguments import Arguments, convert, locate, positional
from hansa.core.job import Job, Resources
from hansa.core.protocols import Dataset, FederatedData
from hansa.errors import ConfigError, DataError
from hansa.files import storage_error
from hansa.references import load_reference

_TABLES: Final = {"data": "source", "partition": "kind", "learner": "kind", "algorithm": "name", "metrics": ""}
_ASKED: Final = [field.name for field in fields(Resources)]  # of [resources]
_OF_JOB: Final = {"environment": str, "progress_s": float}  # handed to the job as they stand
_TOP: Final = {
    "name": str,
    "seed": int,
    "resources": dict[str, int],
    "filters": list[dict[str, Any]],
    **_OF_JOB,
    **dict.fromkeys(_TABLES, dict[str, Any]),
}
# [metrics] is handed to the algorithm: its argument, and the key it comes from
_METRICS: Final = {"metrics": "$.metrics.names", "evaluate_every": "$.metrics.every", "evaluate_sites": "$.metrics.sites"}
_FILES: Final = ("path", "images", "labels")  # arguments of sources that name files
_SHAPE: Final = ("features", "classes")  # what a learner may leave to the data


@dataclass(frozen=True, slots=True)
class _Part:
    """One table: the object that its name leads to, and the checked keyword arguments for it."""

    target: Any
    arguments: dict[str, Any]
    keys: Mapping[str, str]  # the file's key for each argument
    hints: frozenset[str]  # the arguments that it takes
    given: int = 0  # how many its caller passes by position

    def call(self, *args: Any) -> Any:
        with locate(self.keys):
            return self.target(*args, **self.arguments)


@dataclass(frozen=True)
class JobFile:
    """A checked job file. Data are loaded, once, when `job` (if the learner's shape depends on them) or `federated` asks.

    `settings` is the resolved configuration, overrides included; `folder` is where larger data are.
    """

    path: Path
    settings: Mapping[str, Any]
    folder: Path | None
    data: _Part
    partition: _Part | None
    learner: _Part | None
    algorithm: _Part
    filters: Sequence[_Part] = ()

    @property
    def name(self) -> str:
        """The job's name; the file's, where it gives none."""
        return str(self.settings.get("name", self.path.stem))

    @property
    def seed(self) -> int:
        """The seed of all random streams."""
        return int(self.settings.get("seed", 0))

    @property
    def text(self) -> str:
        """The resolved configuration as canonical JSON: the same text for the same settings, in whatever order they stand."""
        return msgspec.json.encode({**self.settings, "name": self.name, "seed": self.seed}, order="deterministic").decode()

    def job(self, *, shape: Mapping[str, int | None] | None = None) -> Job:
        """The job: the algorithm over the learner, whose shape is taken from the data where it is not given.

        `shape` is the shape as an earlier `job` of this file had it: then no data are loaded.

        Raises:
            ConfigError: a value is out of its range; names the key. DataError: the learner needs data that cannot be loaded.
        """
        filters = [part.call() for part in self.filters]
        workflow = self.algorithm.call(*([] if self.learner is None else [self._learner(self.learner, shape)]))
        files = [each for each in getattr(workflow, "files", ()) if not Path(each).is_absolute()]
        asked = convert(self.settings.get("resources", {}), Resources, path="$.resources")
        more = {name: self.settings[name] for name in _OF_JOB if name in self.settings}
        return Job(self.name, workflow, seed=self.seed, filters=filters, include=files, resources=asked, **more)

    def _learner(self, part: _Part, shape: Mapping[str, int | None] | None) -> Any:
        learner = part.target if _is_learner(part.target) else part.call()
        if not getattr(learner, "needs_data", False):
            return learner
        if shape and is_dataclass(learner) and shape.keys() <= {field.name for field in fields(learner)}:
            return replace(cast(Any, learner), **shape)  # a dataclass instance: `learner` is no class
        with locate(part.keys):
            bound = cast(Any, learner).bound_to(self._example, classes=self._classes)
        self.shape.update({name: getattr(bound, name) for name in _SHAPE if hasattr(bound, name)})
        return bound

    @functools.cached_property
    def shape(self) -> dict[str, int | None]:
        """The shape that the data gave to the learner, once `job` has been made; empty where it needed none."""
        return {}

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the columns of x; empty where the source has none."""
        named = getattr(self._source, "features", ())
        if not named and isinstance(self._source, FederatedData) and (self.shape or ":" not in self.settings["data"]["source"]):
            named = getattr(self._example, "features", ())  # one site's rows, of a file or loaded anyway
        return tuple(named)

    @property
    def places(self) -> dict[str, Path]:
        """The files and folders that [data] names, by argument."""
        base = Path(self.data.arguments.get("folder") or self.path.parent)
        return {name: base / self.data.arguments[name] for name in _FILES if isinstance(self.data.arguments.get(name), str)}

    def federated(self) -> FederatedData:
        """The sites: the source's own, or its rows under [partition]; without one, by the column `site`.

        Raises:
            DataError: the source has no rows, or they cannot be partitioned so.
        """
        return self._federated

    @functools.cached_property
    def _source(self) -> Any:
        return self.data.call()

    @functools.cached_property
    def _federated(self) -> FederatedData:
        if self.partition is not None:
            return cast("FederatedData", self.partition.call(self._source))
        if isinstance(self._source, FederatedData):
            return self._source
        column = cast("Callable[..., FederatedData]", registry.find("partitions", "column"))
        try:
            return column(self._source, by=self.settings["data"].get("site", "site"), seed=self.seed)
        except DataError as error:
            raise ConfigError(
                "the source is one table, and nothing says how its rows become sites",
                path="$.partition",
                got=error.message,
                hint="add [partition] with a kind: iid, dirichlet, shards, quantity or column",
            ) from error

    @property
    def _example(self) -> Dataset:
        source = self._source
        return cast("Dataset", source.load(0)) if isinstance(source, FederatedData) else cast("Dataset", source)

    @property
    def _classes(self) -> int | None:
        """The number of classes of the whole source; None where it has no integer labels, or one table that is counted anyway."""
        source = self._source
        if not isinstance(source, FederatedData):
            return len(getattr(source, "classes", ())) or None
        labels = [source.load(slot).y for slot in range(len(source.sites))]
        if any(y.dtype.kind not in "iub" or y.ndim != 1 for y in labels):
            return None
        return max(2, 1 + max(int(np.max(y, initial=0)) for y in labels))


def read(path: str | Path, *, overrides: Sequence[str] = (), folder: Path | None = None) -> JobFile:
    """The job file at `path` with `overrides` ("algorithm.rounds=5") laid over it. No data are loaded yet.

    `folder` is handed to a source that takes one, unless [data] names its own. A relative path in [data] starts at the job file's
    folder; one that is not there is left to the source, which looks for it in `folder`.

    Raises:
        ConfigError: the file is not TOML; a key is unknown or missing, or a value has the wrong type: with its path
            ("$.algorithm.roundz") and the nearest valid name.
        JobReferenceError: a "file.py:name" leads nowhere. StorageError: the file cannot be read.
    """
    place = Path(path)
    settings = overriding.apply(_load(place), overrides)
    _check_top(settings)
    seed, base = settings.get("seed", 0), place.resolve().parent
    algorithm = _part(settings, "algorithm", "algorithms", base, given=1, elsewhere=_METRICS, offered={"folder": base})
    return JobFile(
        path=place.resolve(),
        settings=settings,
        folder=folder,
        data=_data(settings, base, folder, seed),
        partition=_part(settings, "partition", "partitions", base, given=1, offered={"seed": seed})
        if "partition" in settings
        else None,
        learner=_learner_table(settings, base, needed=bool(algorithm.given)),
        algorithm=algorithm,
        filters=[
            _named(each, "kind", "filters", base, path=f"$.filters[{i}]") for i, each in enumerate(settings.get("filters", ()))
        ],
    )


def _learner_table(settings: Mapping[str, Any], base: Path, *, needed: bool) -> _Part | None:
    """[learner]; None for an algorithm that takes none."""
    if needed and "learner" not in settings:
        raise ConfigError("a table is missing", path="$.learner", expected=f"[learner] with {_TABLES['learner']} = ...")
    if not needed and "learner" in settings:
        raise ConfigError(
            "this algorithm takes no learner", path="$.learner", got=settings["algorithm"]["name"], hint="leave it out"
        )
    return _part(settings, "learner", "learners", base) if needed else None


def _data(settings: Mapping[str, Any], base: Path, folder: Path | None, seed: int) -> _Part:
    """[data] with its paths laid beside the job file. Installed sources look there too, where no folder is named."""
    own = ":" in str(settings["data"].get("source", ""))  # a function of one's own knows what no folder means
    part = _part(settings, "data", "sources", base, offered={"folder": folder or (None if own else base), "seed": seed})
    if isinstance(named := settings["data"].get("folder"), str):
        part.arguments["folder"] = str(base / named)
    for name in _FILES:
        value = part.arguments.get(name)
        if isinstance(value, str) and (base / value).exists():
            part.arguments[name] = str(base / value)
    return part


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", path=str(path), expected="a job.toml") from None
    except OSError as error:
        raise storage_error(error, path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}", path=str(path)) from error


def _check_top(settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key not in _TOP:
            raise ConfigError("no such key", path=f"$.{key}", hint=registry.nearest(key, sorted(_TOP)))
        convert(value, _TOP[key], path=f"$.{key}")
    for key in settings.get("resources", {}):
        if key not in _ASKED:
            raise ConfigError("no such key", path=f"$.resources.{key}", hint=registry.nearest(key, _ASKED))
    for table in ("data", "algorithm"):
        if table not in settings:
            raise ConfigError("a table is missing", path=f"$.{table}", expected=f"[{table}] with {_TABLES[table]} = ...")


def _part(
    settings: Mapping[str, Any],
    table: str,
    group: str,
    base: Path,
    *,
    given: int = 0,
    offered: Mapping[str, Any] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> _Part:
    """The table, checked. The first `given` arguments are the caller's.

    `offered` arguments are handed over where the function takes them and the file does not set them; `elsewhere` are arguments
    whose keys stand in [metrics].
    """
    path = f"$.{table}"
    moved = {} if elsewhere is None else _metrics(settings)
    if both := settings[table].keys() & moved.keys():
        raise ConfigError("set twice: here and in [metrics]", path=f"{path}.{min(both)}")
    if {"epochs", "steps"} <= settings[table].keys():
        raise ConfigError("a client trains for epochs or for steps, not both", path=f"{path}.steps", hint="leave one of them out")
    part = _named(settings[table], _TABLES[table], group, base, path=path, given=given, moved=moved, elsewhere=elsewhere)
    for key, value in (offered or {}).items():
        if key in part.hints and value is not None:
            part.arguments.setdefault(key, value)
    return part


def _named(
    table: Mapping[str, Any],
    chooser: str,
    group: str,
    base: Path,
    *,
    path: str,
    given: int = 0,
    moved: Mapping[str, Any] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> _Part:
    """What a table names by its key `chooser`, with the table's other keys, and those `moved` here, as checked arguments."""
    values = dict(table)
    if chooser not in values:
        known = registry.names(group)
        hints = (registry.nearest(key, [chooser]) for key in values)
        near = next((hint for hint in hints if hint.startswith("did")), None)
        raise ConfigError("a key is missing", path=f"{path}.{chooser}", expected=f"one of {', '.join(known)}", hint=near)
    name = convert(values.pop(chooser), str, path=f"{path}.{chooser}")
    target = _target(name, group, base, path=f"{path}.{chooser}")
    if group == "learners" and _is_learner(target):
        arguments = Arguments({})
    elif callable(target):
        given = min(given, positional(target))
        arguments = Arguments.of(target, given=given)
    else:
        raise ConfigError("the name leads to something that cannot be called", path=f"{path}.{chooser}", got=type(target).__name__)
    keys = {argument: f"{path}.{argument}" for argument in arguments.hints} | dict(elsewhere or {})
    checked = arguments.check(values | dict(moved or {}), path=path, names=elsewhere, also=chooser)
    return _Part(target, checked, keys, frozenset(arguments.hints), given)


def _target(name: str, group: str, base: Path, *, path: str) -> object:
    if ":" in name:
        return load_reference(name, base=base)
    return registry.find(group, name, path=path)


def _metrics(settings: Mapping[str, Any]) -> dict[str, Any]:
    """[metrics] as arguments of the algorithm."""
    table = settings.get("metrics", {})
    arguments = {key.rpartition(".")[2]: argument for argument, key in _METRICS.items()}
    for key in table:
        if key not in arguments:
            raise ConfigError("no such key", path=f"$.metrics.{key}", hint=registry.nearest(key, sorted(arguments)))
    for i, name in enumerate(convert(table.get("names", []), list[str], path="$.metrics.names")):
        if name not in registry.names("metrics"):
            registry.find("metrics", name, path=f"$.metrics.names[{i}]")
    return {arguments[key]: value for key, value in table.items()}


def _is_learner(target: object) -> bool:
    return not inspect.isclass(target) and hasattr(target, "init") and (hasattr(target, "fit") or hasattr(target, "fit_at"))
