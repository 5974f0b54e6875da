"""Virtual time: seconds that pass only when told to, and an agenda of what happens when."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

from hansa.errors import ConfigError

T = TypeVar("T")


class VirtualClock:
    """A `Clock` that stands still until it is advanced.

    >>> clock = VirtualClock()
    >>> clock.advance(2.5)
    >>> clock.now()
    2.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Seconds since the clock's own zero."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let seconds pass.

        Raises:
            ConfigError: the seconds are negative or not finite.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ConfigError("time only moves forward", path="seconds", got=seconds, expected="finite seconds, at least 0")
        self._now += seconds

    def advance_to(self, at: float) -> None:
        """Let time pass until exactly `at`: a sum of steps would be off by a rounding.

        Raises:
            ConfigError: `at` is in the past, or not finite.
        """
        if not (math.isfinite(at) and at >= self._now):
            raise ConfigError("time only moves forward", path="at", got=at, expected=f"a finite time, at least {self._now}")
        self._now = at


class Agenda(Generic[T]):
    """Things to come, told in order of time; of two at one time, the one entered first. Taking one moves the clock to it.

    >>> agenda = Agenda[str](VirtualClock())
    >>> agenda.enter(3.0, "deadline"); agenda.enter(1.0, "reply")
    >>> [(agenda.clock.now(), item) for item in agenda]
    [(1.0, 'reply'), (3.0, 'deadline')]
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """Take everything, including what is entered meanwhile."""
        while self._heap:
            yield self.take()

    def enter(self, at: float, item: T) -> None:
        """Let something happen at a time.

        Raises:
            ConfigError: the time is in the past, or not finite.
        """
        if not (math.isfinite(at) and at >= self.clock.now()):
            raise ConfigError("nothing is entered in the past", path="at", got=at, expected=f"at least {self.clock.now()}")
        heapq.heappush(self._heap, (at, next(self._order), item))

    def pending(self) -> list[tuple[float, T]]:
        """What is to come with its time, in order; nothing is taken."""
        return [(at, item) for at, _, item in sorted(self._heap, key=lambda entry: entry[:2])]

    def take(self) -> T:
        """The next thing, with the clock moved to its time. What was entered before the clock passed it happens now.

        Raises:
            IndexError: nothing is to come.
        """
        at, _, item = heapq.heappop(self._heap)
        self.clock.advance_to(max(at, self.clock.now()))
        return item
