"""The round engine, pure: `step(state, event) -> (state, commands)`. Who drives it owns the clock, the wire and the journal.

A simulation feeds it events from a virtual clock, a server from its journal; replaying the events gives the state again. The
bodies of replies never come here: the engine counts sites, the driver keeps what they sent until a `Close` or a `Discard`.

    begin -> open --Opened--> Assign to each invited site, SetTimer
             open --Replied, Refused, Lost, Ticked--> open | closed (Close) | abandoned (Abandon)

- Closes when the cohort is full, at the deadline with a quorum, or with a quorum when nobody is outstanding.
- Abandons as soon as the quorum is out of reach, or at the deadline without one; the reason names the counts.
- Each event of a site is either counted, once, or answered by exactly one `Discard` that leaves the state as it was.
- On time means before the deadline: an event at or after it finds the round ended, whether or not a `Ticked` came first.
- An open round always has an outstanding site, and what it waits for is `pending`.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from msgspec.structs import replace

from hansa.core.task import Failure
from hansa.errors import ConfigError, RefusedError

Phase: TypeAlias = Literal["open", "closed", "abandoned"]
Unwanted: TypeAlias = Literal["late", "duplicate", "stale", "foreign"]

_MOST_ATTEMPTS = 255  # an attempt number is one byte of the state
_OUTSTANDING, _ADMITTED, _REFUSED, _LOST, _LATE = b"o", b"a", b"r", b"l", b"t"


@dataclass(frozen=True, slots=True)
class Policy:
    """How many sites a round asks, how many it needs, and how long it waits.

    cohort: sites to aggregate, None for every available one; a cohort above the population is the population.
    quorum: an int counts sites, a float in (0, 1] is a share of the cohort, rounded up (1 is one site, 1.0 is all of them).
    deadline_s: seconds from the opening, None to wait for every outstanding site.
    over_select: the share of sites invited beyond the cohort (0.3: 30 % more, rounded up); the first to answer fill it.
    attempts: how often one site is asked in one round, the first time included; a site whose policy says no is not asked again.
    late: what becomes of replies after the end.

    Raises:
        ConfigError: a field is out of its range, or the quorum is above the cohort; names the field.
    """

    cohort: int | None = None
    quorum: int | float = 1
    deadline_s: float | None = None
    over_select: float = 0.0
    attempts: int = 1
    late: Literal["discard"] = "discard"

    def __post_init__(self) -> None:
        for name in ("cohort", "quorum", "deadline_s", "over_select", "attempts"):
            if isinstance(number := getattr(self, name), np.integer | np.floating):
                object.__setattr__(self, name, number.item())  # prints, and so hashes, as Python's
        a_count = "an integer of at least 1"
        _require(self.cohort is None or is_count(self.cohort), "cohort", self.cohort, f"{a_count}, or none for every site")
        is_share = isinstance(self.quorum, float) and 0 < self.quorum <= 1
        _require(is_share or is_count(self.quorum), "quorum", self.quorum, f"{a_count}, or a share in (0, 1]")
        most = math.inf if self.cohort is None else self.cohort
        _require(self.quorum <= most, "quorum", self.quorum, f"at most the cohort of {most}")
        timed = self.deadline_s is None or (is_real(self.deadline_s) and self.deadline_s > 0)
        _require(timed, "deadline_s", self.deadline_s, "seconds above 0, or none")
        _require(is_real(self.over_select) and self.over_select >= 0, "over_select", self.over_select, "a share of at least 0")
        some = is_count(self.attempts) and self.attempts <= _MOST_ATTEMPTS
        _require(some, "attempts", self.attempts, f"an integer from 1 to {_MOST_ATTEMPTS}")
        _require(self.late == "discard", "late", self.late, "'discard'")


class Opened(msgspec.Struct, frozen=True):
    """The round starts: its deadline counts from `now`, in seconds on the driver's clock."""

    now: float


class Replied(msgspec.Struct, frozen=True):
    """A reply came and passed the gate."""

    slot: int
    attempt: int
    now: float


class Refused(msgspec.Struct, frozen=True):
    """A reply came that cannot be added: the gate refused it, the site's code raised, or the site said no."""

    slot: int
    attempt: int
    failure: Failure
    now: float


class Lost(msgspec.Struct, frozen=True):
    """A site is given up for this attempt: it disconnected, or made no progress."""

    slot: int
    attempt: int
    now: float


class Ticked(msgspec.Struct, frozen=True):
    """A timer went off."""

    now: float


class Assign(msgspec.Struct, frozen=True):
    """Ask a site. Its reply must carry `attempt`, the fencing token: only the newest one counts."""

    slot: int
    attempt: int


class SetTimer(msgspec.Struct, frozen=True):
    """Send a `Ticked` at this time."""

    at: float


class Cancel(msgspec.Struct, frozen=True):
    """Tell a site that its work is not wanted any more."""

    slot: int


class Discard(msgspec.Struct, frozen=True):
    """What the site sent does not count.

    late: the site had been given up, or the round had ended. duplicate: it had been counted. stale: the site was asked again
    since. foreign: the site was not invited, or the attempt was never given out.
    """

    slot: int
    reason: Unwanted


class Close(msgspec.Struct, frozen=True):
    """Aggregate the replies of these slots, ascending."""

    admitted: tuple[int, ...]


class Abandon(msgspec.Struct, frozen=True):
    """The round ends without a result."""

    reason: str


SiteEvent: TypeAlias = Replied | Refused | Lost
Event: TypeAlias = Opened | SiteEvent | Ticked
Command: TypeAlias = Assign | SetTimer | Cancel | Discard | Close | Abandon


class State(msgspec.Struct, frozen=True):
    """One round. `target` replies fill the cohort, `needed` are the quorum.

    `marks` and `attempts` hold a byte for each invited site, in the order of `invited`: where it stands (o outstanding, a
    admitted, r refused, l lost, t too late) and the newest attempt (0 before the opening). Bytes, because a step copies them:
    a round of 10,000 sites copies 10 kB a reply.
    """

    round: int
    policy: Policy
    invited: tuple[int, ...]
    target: int
    needed: int
    marks: bytes
    attempts: bytes
    opened_at: float | None = None
    phase: Phase = "open"

    @property
    def deadline(self) -> float | None:
        """When the round ends at the latest; None before the opening, and without one in the policy."""
        if self.opened_at is None or self.policy.deadline_s is None:
            return None
        return self.opened_at + self.policy.deadline_s

    @property
    def outstanding(self) -> tuple[int, ...]:
        """Slots that the open round waits for, ascending."""
        return self._slots(_OUTSTANDING)

    @property
    def admitted(self) -> tuple[int, ...]:
        """Slots whose reply counts, ascending."""
        return self._slots(_ADMITTED)

    @property
    def refused(self) -> tuple[int, ...]:
        """Slots whose last attempt was refused, ascending."""
        return self._slots(_REFUSED)

    @property
    def lost(self) -> tuple[int, ...]:
        """Slots whose last attempt was lost, ascending."""
        return self._slots(_LOST)

    @property
    def late(self) -> tuple[int, ...]:
        """Slots that were outstanding when the round ended, ascending."""
        return self._slots(_LATE)

    def _slots(self, mark: bytes) -> tuple[int, ...]:
        return tuple(slot for slot, letter in zip(self.invited, self.marks, strict=True) if letter == mark[0])


def select(population: int, policy: Policy, rng: np.random.Generator) -> tuple[int, ...]:
    """The slots to invite, ascending: uniform without replacement. Time and memory grow with the cohort, not the population.

    >>> len(select(1_000_000, Policy(cohort=100, over_select=0.3), np.random.default_rng(0)))
    130
    """
    if policy.cohort is None:
        return tuple(range(population))
    wanted = policy.cohort + _share(policy.over_select, policy.cohort)
    if wanted >= population:
        return tuple(range(population))
    chosen = rng.choice(population, size=wanted, replace=False, shuffle=False)  # Floyd's sampling where the population is large
    chosen.sort()
    return tuple(chosen.tolist())


def begin(round: int, invited: Sequence[int], policy: Policy) -> State:  # noqa: A002  the field's word
    """The state of a round before its opening.

    >>> state = begin(1, [0, 2, 5], Policy(quorum=2))
    >>> state, commands = step(state, Opened(now=0.0))
    >>> commands
    (Assign(slot=0, attempt=1), Assign(slot=2, attempt=1), Assign(slot=5, attempt=1))
    >>> for event in Lost(2, 1, now=1.0), Replied(5, 1, now=2.0), Replied(0, 1, now=3.0):
    ...     state, commands = step(state, event)
    >>> commands
    (Close(admitted=(0, 5)),)

    Raises:
        ConfigError: the invited slots do not ascend, or name a slot twice.
    """
    slots = tuple(invited)
    for before, after in itertools.pairwise(slots):
        if before >= after:
            raise ConfigError("slots must ascend", round=round, path="invited", got=f"{before} before {after}")
    cohort = len(slots) if policy.cohort is None else policy.cohort
    # The share is of the cohort that was asked for: with fewer sites at hand a quorum must not grow weaker in silence.
    needed = _share(policy.quorum, cohort) if isinstance(policy.quorum, float) else policy.quorum
    return State(
        round=round,
        policy=policy,
        invited=slots,
        target=min(cohort, len(slots)),
        needed=max(1, needed),  # an empty cohort has no quorum
        marks=_OUTSTANDING * len(slots),
        attempts=bytes(len(slots)),
    )


def step(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """The state after an event, and what is to be done, in order. A second `Opened`, and a tick before the deadline, do nothing."""
    if isinstance(event, Opened):
        return _open(state, event.now) if state.phase == "open" and state.opened_at is None else (state, ())
    commands: tuple[Command, ...] = ()
    if state.phase == "open" and state.deadline is not None and event.now >= state.deadline:
        state, commands = _expire(state)
    if isinstance(event, Ticked):
        return state, commands
    place = _place(state, event.slot)
    reason = _unwanted(state, event, place)
    if reason is not None:
        return state, (*commands, Discard(event.slot, reason))
    return _count(state, event, place)


def pending(state: State) -> tuple[Command, ...]:
    """What an open round waits for, as commands: after a restart and a replay, these are to be issued again."""
    if state.phase != "open" or state.opened_at is None:
        return ()
    each = zip(state.invited, state.attempts, state.marks, strict=True)
    asked = tuple(Assign(slot, attempt) for slot, attempt, mark in each if mark == _OUTSTANDING[0])
    return asked if state.deadline is None else (*asked, SetTimer(state.deadline))


def _open(state: State, now: float) -> tuple[State, tuple[Command, ...]]:
    state = replace(state, opened_at=now)
    if len(state.invited) < state.needed:
        return _abandon(state, "the quorum is out of reach")
    state = replace(state, attempts=b"\x01" * len(state.invited))
    return state, pending(state)


def _place(state: State, slot: int) -> int:
    """Where the slot stands among the invited; -1 if it does not."""
    place = bisect_left(state.invited, slot)
    return place if place < len(state.invited) and state.invited[place] == slot else -1


def _unwanted(state: State, event: SiteEvent, place: int) -> Unwanted | None:
    if place < 0 or not 1 <= event.attempt <= state.attempts[place]:
        return "foreign"
    if event.attempt < state.attempts[place]:
        return "stale"
    mark = state.marks[place : place + 1]
    if mark == _OUTSTANDING:
        return None
    return "late" if mark in (_LATE, _LOST) else "duplicate"


def _count(state: State, event: SiteEvent, place: int) -> tuple[State, tuple[Command, ...]]:
    """Mark an outstanding site, or ask it once more."""
    if isinstance(event, Replied):
        return _settle(replace(state, marks=_put(state.marks, place, _ADMITTED)))
    # A site keeps the last word: where its policy said no, asking again would be pressing it.
    said_no = isinstance(event, Refused) and event.failure.code == RefusedError.code
    if event.attempt < state.policy.attempts and not said_no:
        attempts = _put(state.attempts, place, bytes([event.attempt + 1]))
        return replace(state, attempts=attempts), (Assign(event.slot, event.attempt + 1),)
    mark = _REFUSED if isinstance(event, Refused) else _LOST
    return _settle(replace(state, marks=_put(state.marks, place, mark)))


def _settle(state: State) -> tuple[State, tuple[Command, ...]]:
    """End the round if that is decided by now."""
    admitted, outstanding = state.marks.count(_ADMITTED), state.marks.count(_OUTSTANDING)
    if admitted + outstanding < state.needed:
        return _abandon(state, "the quorum is out of reach")
    return _close(state) if admitted >= state.target or not outstanding else (state, ())


def _expire(state: State) -> tuple[State, tuple[Command, ...]]:
    return _close(state) if state.marks.count(_ADMITTED) >= state.needed else _abandon(state, "the deadline passed")


def _close(state: State) -> tuple[State, tuple[Command, ...]]:
    cancels = tuple(Cancel(slot) for slot in state.outstanding)
    state = replace(state, phase="closed", marks=state.marks.replace(_OUTSTANDING, _LATE))
    return state, (*cancels, Close(state.admitted))


def _abandon(state: State, why: str) -> tuple[State, tuple[Command, ...]]:
    cancels = tuple(Cancel(slot) for slot in state.outstanding) if any(state.attempts) else ()  # if anyone was asked at all
    groups = {"admitted": state.admitted, "refused": state.refused, "lost": state.lost, "outstanding": state.outstanding}
    counts = ", ".join(f"{len(slots)} {name}" for name, slots in groups.items())
    reason = f"{why}: {state.needed} needed of {len(state.invited)} invited; {counts}"
    return replace(state, phase="abandoned", marks=state.marks.replace(_OUTSTANDING, _LATE)), (*cancels, Abandon(reason))


def _put(letters: bytes, place: int, letter: bytes) -> bytes:
    return letters[:place] + letter + letters[place + 1 :]


def _share(share: float, whole: int) -> int:
    """The share of a whole, rounded up, read as the decimal that was written: 0.07 of 100 is 7, where floats would give 8."""
    return math.ceil(Fraction(repr(float(share))) * whole)


def is_count(value: object) -> bool:
    """Whether it is an integer of at least 1, Python's or NumPy's."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def is_real(value: object) -> bool:
    """Whether it is a finite number, Python's or NumPy's."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, field: str, got: object, expected: str) -> None:
    if not holds:
        raise ConfigError("a round cannot be run like this", path=field, got=repr(got), expected=expected)
