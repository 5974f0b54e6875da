"""Components from a configuration: classes by dotted path or bare name, with their arguments; code of the app is imported here."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hansa.compat.flare.apis.filter import Filter
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.app import Chain, Part
from hansa.compat.flare.mapping import OURS, ours
from hansa.compat.flare.seeds import seed_torch
from hansa.errors import ConfigError
from hansa.registry import nearest

_CLASS: Final = re.compile(r"^class (\w+)", re.MULTILINE)
_HERE: Final = Path(__file__).parent


class Builder:
    """Makes the objects of one place. `handlers` are all components that were made, in the order of their making.

    seed: where PyTorch's generator begins when a component brings it.
    """

    def __init__(self, custom: Path, seed: int) -> None:
        self._custom, self._seed = custom, seed
        self.handlers: list[FLComponent] = []

    def part(self, part: Part) -> Any:
        """The object of an entry.

        Raises:
            ConfigError: there is no such class, or it does not take these arguments; names the entry.
        """
        return self._made(part.path or self._path_of(part.name, part.where), part.args, part.where)

    def chains(self, chains: Iterable[Chain]) -> list[tuple[Sequence[str], list[Filter]]]:
        """Filters with the tasks that they are for.

        Raises:
            ConfigError: one is no filter; names the entry.
        """
        made = []
        for chain in chains:
            filters = [(self.part(each), each.where) for each in chain.filters]
            for each, where in filters:
                if not isinstance(each, Filter):
                    raise ConfigError("not a filter", path=where, got=type(each).__name__)
            made.append((chain.tasks, [each for each, _ in filters]))
        return made

    def _made(self, path: str, args: Mapping[str, Any], where: str) -> Any:
        module, _, name = path.rpartition(".")
        try:
            kind = getattr(self._imported(module), name)
        except (ModuleNotFoundError, ValueError) as error:
            hint = "a module of the app stands in custom/; what of FLARE is known here: docs/flare.md"
            raise ConfigError(f"no module for {path!r}: {error}", path=where, hint=hint) from error
        except AttributeError:
            raise ConfigError(f"module {module} has no {name!r}", path=where) from None
        given = {key: self._argument(value, f"{where}/args/{key}") for key, value in args.items()}
        try:
            made = kind(**given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name} cannot be made: {error}", path=where, got=repr(dict(args))) from error
        if isinstance(made, FLComponent):
            self.handlers.append(made)
        return made

    def _imported(self, module: str) -> ModuleType:
        """The module; a PyTorch that it brings begins where the other generators began."""
        fresh = "torch" not in sys.modules
        made = importlib.import_module(ours(module))
        if fresh:
            seed_torch(self._seed)
        return made

    def _argument(self, value: Any, where: str) -> Any:
        """An argument: an object that names a class becomes what it makes."""
        if isinstance(value, list):
            return [self._argument(each, f"{where}[{number}]") for number, each in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if bool(value.get("path")) != bool(value.get("name")) and value.keys() <= {"path", "name", "args", "disabled", "id"}:
            return self.part(Part(value.get("path", ""), value.get("name", ""), value.get("args", {}), where))
        return {key: self._argument(each, f"{where}/{key}") for key, each in value.items()}

    def _path_of(self, name: str, where: str) -> str:
        """The dotted path of a class of this name: one of the app's, or one of ours."""
        own = {each: f"{file.stem}.{each}" for file in sorted(self._custom.glob("*.py")) for each in _classes(file)}
        if name in own:
            return own[name]
        known = _known()
        if name not in known:
            raise ConfigError(f"no class is called {name!r}", path=where, hint=nearest(name, sorted(known | own)))
        return known[name]


@functools.cache
def _known() -> dict[str, str]:
    """Our classes by name; nothing is imported."""
    found: dict[str, str] = {}
    for file in sorted([*_HERE.glob("a*/**/*.py"), *_HERE.glob("widgets/*.py")]):
        module = ".".join(file.relative_to(_HERE).with_suffix("").parts)
        found |= {name: f"{OURS}.{module}.{name}" for name in _classes(file)}
    return found


def _classes(file: Path) -> list[str]:
    return _CLASS.findall(file.read_text(encoding="utf-8"))
