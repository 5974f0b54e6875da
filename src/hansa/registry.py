"""Things found by name: entry points that this and other distributions declare. Names are never taken from the network."""

from __future__ import annotations

import difflib
import functools
from importlib.metadata import EntryPoint, entry_points

from hansa.errors import ConfigError


@functools.cache
def _group(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"hansa.{group}")}


def names(group: str) -> list[str]:
    """The names of one group, sorted: `sources`, `partitions`, `learners`, `algorithms`, `aggregators`, `metrics`, ..."""
    return sorted(_group(group))


def find(group: str, name: str, *, path: str | None = None) -> object:
    """What the name stands for, imported now.

    Raises:
        ConfigError: no installed distribution declares the name; says the nearest one. `path` is the key that asked.
    """
    point = _group(group).get(name)
    if point is None:
        raise ConfigError(f"no {group.removesuffix('s')} is called {name!r}", path=path, hint=nearest(name, names(group)))
    return _loaded(point)


_loaded = functools.cache(EntryPoint.load)


def nearest(name: str, known: list[str]) -> str:
    """A hint: the closest known name, else all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
