"""Learning-rate schedules: from the number of finished rounds to a step size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hansa.core.registry import nearest
from hansa.errors import ConfigError

Schedule: TypeAlias = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The same step size in every round."""

    value: float

    def __call__(self, done: int) -> float:  # noqa: ARG002  a schedule's signature
        return self.value


@dataclass(frozen=True)
class Exponential:
    """start * decay^round.

    >>> Exponential(0.1, 0.5)(2)
    0.025
    """

    start: float
    decay: float

    def __call__(self, done: int) -> float:
        return self.start * self.decay ** int(done)


@dataclass(frozen=True)
class Inverse:
    """start / (1 + round)."""

    start: float

    def __call__(self, done: int) -> float:
        return self.start / (1 + int(done))


@dataclass(frozen=True)
class Step:
    """start * decay^(round // every)."""

    start: float
    decay: float
    every: int

    def __call__(self, done: int) -> float:
        return self.start * self.decay ** (int(done) // self.every)


@dataclass(frozen=True)
class Cosine:
    """From start down to end along half a cosine over `rounds` rounds, then end (Loshchilov & Hutter 2017, without restarts)."""

    start: float
    rounds: int
    end: float = 0.0

    def __call__(self, done: int) -> float:
        share = min(int(done), self.rounds) / self.rounds
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2


KINDS: Mapping[str, type] = {
    "constant": Constant,
    "cosine": Cosine,
    "exponential": Exponential,
    "inverse": Inverse,
    "step": Step,
}


def of(spec: float | Schedule | Mapping[str, Any], *, path: str) -> Schedule:
    """A schedule from a number, a callable, or a table such as `{kind = "exponential", start = 0.1, decay = 0.99}`.

    >>> of({"kind": "inverse", "start": 0.1}, path="client_lr")(1)
    0.05

    Raises:
        ConfigError: an unknown kind or field, or a step size that is not positive; names the path.
    """
    if isinstance(spec, Mapping):
        fields = dict(spec)
        kind = str(fields.pop("kind", ""))
        if kind not in KINDS:
            raise ConfigError("no such schedule", path=f"{path}.kind", got=repr(kind), hint=nearest(kind, sorted(KINDS)))
        try:
            schedule: Schedule = KINDS[kind](**fields)
        except TypeError as error:
            raise ConfigError(f"a {kind} schedule does not take this: {error}", path=path) from None
    elif callable(spec):
        schedule = spec
    else:
        schedule = Constant(spec)
    try:
        first = float(schedule(0))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"the schedule has no value: {error}", path=path) from None
    if not (math.isfinite(first) and first > 0):
        raise ConfigError("a step size is finite and positive", path=path, got=first)
    return schedule
