"""Learning-rate schedules: from the number of finished rounds to a step size.

A step size is finite and positive in every round: a step of 0 would train for nothing, and SCAFFOLD divides by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from hansa.core.round import is_count, is_real
from hansa.errors import ConfigError
from hansa.registry import nearest

Schedule: TypeAlias = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The same step size in every round."""

    value: float

    def __post_init__(self) -> None:
        _checked(self)

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

    def __post_init__(self) -> None:
        _checked(self)

    def __call__(self, done: int) -> float:
        return self.start * self.decay ** int(done)


@dataclass(frozen=True)
class Inverse:
    """start / (1 + round)."""

    start: float

    def __post_init__(self) -> None:
        _checked(self)

    def __call__(self, done: int) -> float:
        return self.start / (1 + int(done))


@dataclass(frozen=True)
class Step:
    """start * decay^(round // every)."""

    start: float
    decay: float
    every: int

    def __post_init__(self) -> None:
        _checked(self)

    def __call__(self, done: int) -> float:
        return self.start * self.decay ** (int(done) // self.every)


@dataclass(frozen=True)
class Cosine:
    """From start down to end along half a cosine over `rounds` rounds, then end (Loshchilov & Hutter 2017, without restarts).

    The end is reached after `rounds` rounds, so end = 0 is for jobs of at most `rounds` rounds: a longer one is refused.
    """

    start: float
    rounds: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _checked(self)

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


@dataclass(frozen=True, repr=False)
class Checked:
    """A schedule whose every value is checked when it is used; prints as the schedule."""

    schedule: Schedule
    path: str

    def __call__(self, done: int) -> float:
        """The step size after `done` rounds.

        Raises:
            ConfigError: it is no finite number > 0; names the path and the round.
        """
        try:
            value = float(self.schedule(done))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(f"the schedule has no value: {error}", path=self.path, got=f"round {done + 1}") from None
        if not (math.isfinite(value) and value > 0):
            raise ConfigError("a step size is finite and positive", path=self.path, got=f"{value} in round {done + 1}")
        return value

    def check(self, rounds: int) -> None:
        """Return if each of so many rounds has a step size; of a job that may go on for ever, the first 10,000 are tried."""
        for done in range(min(rounds, 10_000)):
            self(done)

    def __repr__(self) -> str:
        return repr(self.schedule)


def of(spec: float | Schedule | Mapping[str, Any], *, path: str) -> Checked:
    """A schedule from a number, a callable, or a table such as `{kind = "exponential", start = 0.1, decay = 0.99}`.

    >>> of({"kind": "inverse", "start": 0.1}, path="client_lr")(1)
    0.05

    Raises:
        ConfigError: an unknown kind or field, a field out of its range, or a step size that is not positive; names the path.
    """
    if isinstance(spec, Mapping):
        schedule = _of_table(dict(spec), path)
    elif callable(spec):
        schedule = spec
    else:
        _positive(spec, path)
        schedule = Constant(spec)
    checked = Checked(schedule, path)
    checked(0)
    return checked


def _of_table(given: dict[str, Any], path: str) -> Schedule:
    kind = str(given.pop("kind", ""))
    if kind not in KINDS:
        raise ConfigError("no such schedule", path=f"{path}.kind", got=repr(kind), hint=nearest(kind, sorted(KINDS)))
    try:
        schedule: Schedule = KINDS[kind](**given)
    except TypeError as error:
        raise ConfigError(f"a {kind} schedule does not take this: {error}", path=path) from None
    except ConfigError as error:
        error.path = f"{path}.{error.path}"
        raise
    return schedule


def _checked(schedule: Any) -> None:
    """Return if the fields of a schedule are numbers in their range."""
    for field in fields(schedule):
        value = getattr(schedule, field.name)
        if field.name in ("every", "rounds"):
            if not is_count(value):
                raise ConfigError("not a number of rounds", path=field.name, expected="at least 1", got=repr(value))
        elif not (field.name == "end" and is_real(value) and value == 0):
            _positive(value, field.name)


def _positive(value: object, path: str) -> None:
    if not (is_real(value) and value > 0):  # type: ignore[operator]  # is_real says that it is a number
        raise ConfigError("a step size is finite and positive", path=path, got=repr(value))
