"""An app folder: the configurations of server and sites, read and checked before anything of it is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hansa.errors import ConfigError, InputError

SERVER, CLIENT = "config_fed_server.json", "config_fed_client.json"
FORMAT: Final = 2
_VARIABLE: Final = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Part:
    """One entry of a configuration: a class by `path` or `name`, its arguments, and where the entry stands."""

    path: str
    name: str
    args: Mapping[str, Any]
    where: str
    id: str = ""


@dataclass(frozen=True)
class Served:
    """An executor with the names of its tasks; ["*"] is all others."""

    tasks: Sequence[str]
    executor: Part


@dataclass(frozen=True)
class Chain:
    """Filters in order, for the tasks of these names."""

    tasks: Sequence[str]
    filters: Sequence[Part]


@dataclass(frozen=True)
class Side:
    """What a configuration says of one side."""

    components: Sequence[Part]
    data_filters: Sequence[Chain]
    result_filters: Sequence[Chain]
    workflows: Sequence[Part] = ()
    executors: Sequence[Served] = ()


@dataclass(frozen=True)
class App:
    """An app folder that was read."""

    folder: Path
    server: Side
    client: Side

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def about(self) -> str:
        """What runs where, in one line."""
        flows = ", ".join(each.path or each.name for each in self.server.workflows)
        served = ", ".join(f"{each.executor.path or each.executor.name} ({' '.join(each.tasks)})" for each in self.client.executors)
        return f"FLARE app {self.name}: {flows}; at each site: {served}"


def read(folder: str | Path) -> App:
    """The app in a folder: `config/config_fed_server.json`, `config/config_fed_client.json` (or the two beside each other).

    Raises:
        InputError: there is no such file, or it is no JSON. ConfigError: an entry is not what it should be; names it.
    """
    root = Path(folder).resolve()
    config = root / "config"
    server, client = _document(config / SERVER), _document(config / CLIENT)
    return App(root, _server(server, SERVER), _client(client, CLIENT))


def _server(document: Mapping[str, Any], file: str) -> Side:
    settings = document.get("server", {})
    _require(isinstance(settings, Mapping), f"{file}: server", settings, "an object")
    beat, interval = settings.get("heart_beat_timeout", 600), settings.get("task_request_interval", 2)
    _require(_number(beat) and beat > 0, f"{file}: server/heart_beat_timeout", beat, "seconds above 0")
    _require(_number(interval) and interval >= 1, f"{file}: server/task_request_interval", interval, "seconds, at least 1")
    flows = [_part(each, where, needs_id=True) for each, where in _entries(document, "workflows", file)]
    _require(len(flows) > 0, f"{file}: workflows", len(flows), "at least one workflow")
    _unique([each.id for each in flows], f"{file}: workflows")
    return _side(document, file, workflows=flows)


def _client(document: Mapping[str, Any], file: str) -> Side:
    served = []
    for each, where in _entries(document, "executors", file):
        tasks = _tasks(each, where)
        inner: Any = each.get("executor")
        _require(isinstance(inner, Mapping), f"{where}/executor", inner, "an object with path or name")
        if not inner.get("disabled"):
            served.append(Served(tasks, _part(inner, f"{where}/executor")))
    _require(len(served) > 0, f"{file}: executors", len(served), "at least one executor")
    _unique([task for each in served for task in each.tasks], f"{file}: executors, tasks")
    return _side(document, file, executors=served)


def _side(document: Mapping[str, Any], file: str, **more: Any) -> Side:
    parts = [_part(each, where, needs_id=True) for each, where in _entries(document, "components", file)]
    _unique([each.id for each in parts], f"{file}: components")
    return Side(parts, _chains(document, "task_data_filters", file), _chains(document, "task_result_filters", file), **more)


def _chains(document: Mapping[str, Any], key: str, file: str) -> list[Chain]:
    found = []
    for each, where in _entries(document, key, file):
        filters = [_part(inner, at) for inner, at in _entries(each, "filters", where, joint="/")]
        found.append(Chain(_tasks(each, where), filters))
    return found


def _tasks(entry: Mapping[str, Any], where: str) -> list[str]:
    tasks = entry.get("tasks")
    holds = isinstance(tasks, list) and len(tasks) > 0 and all(isinstance(task, str) and task for task in tasks)
    _require(holds, f"{where}/tasks", tasks, "a list of task names")
    return list(tasks or ())


def _part(entry: Mapping[str, Any], where: str, *, needs_id: bool = False) -> Part:
    path, name, args = entry.get("path", ""), entry.get("name", ""), entry.get("args", {})
    holds = isinstance(path, str) and isinstance(name, str) and bool(path) != bool(name)
    _require(holds, where, {"path": path, "name": name}, "a class: either by path or by name")
    _require(isinstance(args, Mapping), f"{where}/args", args, "an object")
    given = entry.get("id", "")
    _require(isinstance(given, str) and (given != "" or not needs_id), f"{where}/id", given, "an id")
    return Part(path, name, args, where, given)


def _entries(document: Mapping[str, Any], key: str, file: str, *, joint: str = ": ") -> Iterator[tuple[Mapping[str, Any], str]]:
    """The entries of a list that are not disabled, each with its place."""
    listed = document.get(key, [])
    _require(isinstance(listed, list), f"{file}{joint}{key}", listed, "a list")
    for number, entry in enumerate(listed):
        where = f"{file}{joint}{key}[{number}]"
        _require(isinstance(entry, Mapping), where, entry, "an object")
        if not entry.get("disabled"):
            yield entry, where


def _document(path: Path) -> Mapping[str, Any]:
    """The JSON document of a file, with its variables put in."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "an app is a folder with config/config_fed_server.json and config/config_fed_client.json"
        raise InputError("no such configuration", path=str(path), hint=hint) from error
    except ValueError as error:
        raise InputError(f"not JSON: {error}", path=str(path)) from error
    _require(isinstance(document, dict), path.name, document, "an object")
    got = document.get("format_version")
    _require(got == FORMAT and type(got) is int, f"{path.name}: format_version", got, str(FORMAT))
    variables = {key: value for key, value in document.items() if isinstance(value, str | int | float | bool)}
    return {key: _substituted(value, variables, f"{path.name}: {key}") for key, value in document.items()}


def _substituted(value: Any, variables: Mapping[str, Any], where: str) -> Any:
    """The value with `{var}` replaced: a text that is one variable alone becomes its value, with its type."""
    if isinstance(value, Mapping):
        return {key: _substituted(each, variables, f"{where}/{key}") for key, each in value.items()}
    if isinstance(value, list):
        return [_substituted(each, variables, f"{where}[{number}]") for number, each in enumerate(value)]
    if not isinstance(value, str):
        return value
    if (whole := _VARIABLE.fullmatch(value)) is not None and whole[1] in variables:
        return variables[whole[1]]
    return _VARIABLE.sub(lambda found: str(variables.get(found[1], found[0])), value)


def _unique(names: Sequence[str], where: str) -> None:
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    _require(twice is None, where, twice, "each name once")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(holds: bool, where: str, got: object, expected: str) -> None:
    if not holds:
        raise ConfigError(
            "an entry of the app's configuration is not what it should be", path=where, got=repr(got), expected=expected
        )
