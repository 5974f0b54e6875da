"""`--set a.b=v` laid over a job file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from hansa.errors import ConfigError


def apply(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the settings with each override in its place, in the order given.

    >>> apply({"algorithm": {"name": "fedavg"}}, ["algorithm.rounds=5", "learner.kind=numpy.softmax"])
    {'algorithm': {'name': 'fedavg', 'rounds': 5}, 'learner': {'kind': 'numpy.softmax'}}

    Raises:
        ConfigError: an override is not `key=value`, or goes through a value that is not a table.
    """
    result = _copy(settings)
    for override in overrides:
        key, equals, text = override.partition("=")
        *tables, last = (part.strip() for part in key.split("."))
        if not equals or not all((*tables, last)):
            raise ConfigError("not an override", got=repr(override), expected="key=value, as in algorithm.rounds=5")
        node = result
        for table in tables:
            node = node.setdefault(table, {})
            if not isinstance(node, dict):
                raise ConfigError("an override goes through a value that is not a table", path=f"$.{key}", got=repr(override))
        node[last] = value(text)
    return result


def value(text: str) -> Any:
    """The TOML value that the text is, else the text itself.

    >>> value("0.5"), value("true"), value('["loss"]'), value("fedprox")
    (0.5, True, ['loss'], 'fedprox')
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text  # a line break could smuggle a second key in


def _copy(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(item) if isinstance(item, Mapping) else item for key, item in node.items()}
