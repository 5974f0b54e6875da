"""The round engine against a naive model, and the laws that hold for whatever comes in whatever order."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hansa.core.round import (
    Abandon,
    Assign,
    Cancel,
    Close,
    Command,
    Discard,
    Event,
    Lost,
    Opened,
    Policy,
    Refused,
    Replied,
    SetTimer,
    State,
    Ticked,
    begin,
    pending,
    select,
    step,
)
from hansa.core.task import Failure

SITES = 6
CRASH, VETO = Failure("client", "it raised"), Failure("refused", "the site's policy says no")


@dataclass
class Model:
    """The same rules said again, naively: one entry a site, mutable, without a thought for cost or replay."""

    target: int
    needed: int
    attempts: int
    deadline_s: float | None
    where: dict[int, str] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    ends: float = math.inf
    over: bool = False

    def count(self, *places: str) -> int:
        return sum(place in places for place in self.where.values())

    def open(self, now: float) -> list[Command]:
        if len(self.where) < self.needed:
            return self.end()
        self.tries = dict.fromkeys(self.where, 1)
        out: list[Command] = [Assign(slot, 1) for slot in self.where]
        if self.deadline_s is not None:
            self.ends = now + self.deadline_s
            out.append(SetTimer(self.ends))
        return out

    def end(self) -> list[Command]:
        self.over = True
        out: list[Command] = [Cancel(slot) for slot, place in self.where.items() if place == "working" and self.tries]
        self.where = {slot: "late" if place == "working" else place for slot, place in self.where.items()}
        admitted = tuple(slot for slot, place in self.where.items() if place == "admitted")
        return [*out, Close(admitted) if len(admitted) >= self.needed else Abandon("")]

    def tell(self, kind: str, slot: int, attempt: int, now: float) -> list[Command]:
        out = self.tick(now)
        if attempt < 1 or attempt > self.tries.get(slot, 0):
            return [*out, Discard(slot, "foreign")]
        if attempt < self.tries[slot]:
            return [*out, Discard(slot, "stale")]
        if self.where[slot] in ("admitted", "refused"):
            return [*out, Discard(slot, "duplicate")]
        if self.where[slot] in ("lost", "late"):
            return [*out, Discard(slot, "late")]
        if kind in ("refused", "lost") and attempt < self.attempts:
            self.tries[slot] += 1
            return [Assign(slot, attempt + 1)]
        self.where[slot] = "refused" if kind == "veto" else kind
        full = self.count("admitted") == self.target
        hopeless = self.count("admitted", "working") < self.needed
        return self.end() if full or hopeless or not self.count("working") else []

    def tick(self, now: float) -> list[Command]:
        return self.end() if not self.over and now >= self.ends else []


def policies() -> st.SearchStrategy[Policy]:
    return st.builds(
        lambda cohort, quorum, deadline_s, over_select, attempts: Policy(
            cohort=cohort,
            quorum=min(quorum, cohort) if cohort and isinstance(quorum, int) else quorum,
            deadline_s=deadline_s,
            over_select=over_select,
            attempts=attempts,
        ),
        cohort=st.none() | st.integers(1, SITES),
        quorum=st.integers(1, SITES) | st.sampled_from([0.1, 0.5, 0.7, 1.0]),
        deadline_s=st.sampled_from([None, 1.0, 2.0, 3.0]),
        over_select=st.sampled_from([0.0, 0.3, 1.0]),
        attempts=st.integers(1, 3),
    )


def without_reasons(commands: tuple[Command, ...] | list[Command]) -> list[Command]:
    return [Abandon("") if isinstance(command, Abandon) else command for command in commands]


class Rounds(RuleBasedStateMachine):
    """Any site may say anything, with any attempt, at any time; model and engine must answer alike."""

    @initialize(policy=policies(), population=st.integers(0, SITES), seed=st.integers(0, 9), now=st.sampled_from([0.0, 3.5]))
    def start(self, policy: Policy, population: int, seed: int, now: float) -> None:
        self.policy, self.now = policy, now
        invited = select(population, policy, np.random.default_rng(seed))
        asked = policy.cohort or len(invited)
        share = math.ceil(round(policy.quorum * asked, 9)) if isinstance(policy.quorum, float) else policy.quorum
        self.model = Model(min(asked, len(invited)), max(1, share), policy.attempts, policy.deadline_s)
        self.model.where = dict.fromkeys(invited, "working")
        self.first = self.state = begin(1, invited, policy)
        self.journal: list[Event] = []
        self.told: list[Command] = []
        self.send(Opened(now), self.model.open(now))

    def send(self, event: Event, expected: list[Command]) -> None:
        before = self.state
        self.state, commands = step(before, event)
        assert without_reasons(commands) == without_reasons(expected)
        if before.phase != "open":  # terminal states are final
            assert self.state == before
            assert all(isinstance(command, Discard) for command in commands)
        if commands and all(isinstance(command, Discard) for command in commands):
            assert self.state == before
        self.journal.append(event)
        self.told.extend(commands)

    @rule(kind=st.sampled_from(["admitted", "refused", "veto", "lost"]), slot=st.integers(-1, SITES), back=st.integers(-1, 2))
    def tell(self, kind: str, slot: int, back: int) -> None:
        attempt = self.model.tries.get(slot, 1) - back  # the newest attempt, or a little off
        self.say(kind, slot, attempt)

    @rule(kind=st.sampled_from(["admitted", "admitted", "refused", "veto", "lost"]), pick=st.integers(0, SITES))
    def answer(self, kind: str, pick: int) -> None:
        if working := self.state.outstanding:
            slot = working[pick % len(working)]
            self.say(kind, slot, self.model.tries.get(slot, 1))

    def say(self, kind: str, slot: int, attempt: int) -> None:
        events: dict[str, Event] = {
            "admitted": Replied(slot, attempt, self.now),
            "refused": Refused(slot, attempt, CRASH, self.now),
            "veto": Refused(slot, attempt, VETO, self.now),
            "lost": Lost(slot, attempt, self.now),
        }
        self.send(events[kind], self.model.tell(kind, slot, attempt, self.now))

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0]), rings=st.booleans())
    def wait(self, seconds: float, rings: bool) -> None:
        self.now += seconds
        if rings:
            self.send(Ticked(self.now), self.model.tick(self.now))

    @rule()
    def open_again(self) -> None:
        self.send(Opened(self.now), [])

    @invariant()
    def each_invited_slot_stands_in_one_place(self) -> None:
        state = self.state
        places = [*state.outstanding, *state.admitted, *state.refused, *state.lost, *state.late]
        assert sorted(places) == list(state.invited)
        assert len(state.admitted) <= state.target

    @invariant()
    def nothing_hangs_and_what_is_pending_is_the_newest_assignment(self) -> None:
        if self.state.phase != "open":
            assert pending(self.state) == ()
            return
        assert self.state.outstanding
        newest = {command.slot: command for command in self.told if isinstance(command, Assign)}
        assert [c for c in pending(self.state) if isinstance(c, Assign)] == [newest[slot] for slot in self.state.outstanding]
        assert (self.state.deadline is None) == (self.policy.deadline_s is None)

    @invariant()
    def a_round_ends_once_and_closes_only_with_a_quorum(self) -> None:
        ends = [command for command in self.told if isinstance(command, Close | Abandon)]
        assert len(ends) == (self.state.phase != "open")
        for end in ends:
            if isinstance(end, Close):
                assert self.state.phase == "closed"
                assert end.admitted == self.state.admitted
                assert len(end.admitted) >= self.state.needed
            else:
                assert self.state.phase == "abandoned"
                assert len(self.state.admitted) < self.state.needed

    @invariant()
    def every_event_of_a_site_is_counted_or_discarded_once(self) -> None:
        said = Counter(type(event) for event in self.journal)
        discards = sum(isinstance(command, Discard) for command in self.told)
        again = sum(isinstance(command, Assign) and command.attempt > 1 for command in self.told)
        counted = len(self.state.admitted) + len(self.state.refused) + len(self.state.lost)
        assert said[Replied] + said[Refused] + said[Lost] == discards + again + counted

    def teardown(self) -> None:
        if hasattr(self, "journal"):  # recovery is replay
            state: State = self.first
            for event in self.journal:
                state, _ = step(state, event)
            assert state == self.state


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@settings(max_examples=100, deadline=None)
@given(policies(), st.permutations(range(SITES)), st.sets(st.integers(0, SITES - 1)))
def test_without_over_selection_what_closes_does_not_depend_on_the_order_of_arrival(
    policy: Policy, order: list[int], failing: set[int]
) -> None:
    everyone = Policy(quorum=policy.quorum, attempts=policy.attempts)

    def run(slots: list[int]) -> tuple[str, tuple[int, ...]]:
        state, _ = step(begin(1, range(SITES), everyone), Opened(0.0))
        for slot in slots:
            state, _ = step(state, Refused(slot, 1, VETO, 1.0) if slot in failing else Replied(slot, 1, 1.0))
        return state.phase, state.admitted if state.phase == "closed" else ()

    assert run(order) == run(sorted(order))


@settings(max_examples=100, deadline=None)
@given(policies(), st.integers(0, 10**12), st.integers(0, 2**32))
def test_a_cohort_is_ascending_distinct_and_within_the_population(policy: Policy, population: int, seed: int) -> None:
    if policy.cohort is None:
        population %= 1000
    slots = select(population, policy, np.random.default_rng(seed))
    wanted = population if policy.cohort is None else policy.cohort + math.ceil(round(policy.over_select * policy.cohort, 9))
    assert len(slots) == min(wanted, population)
    assert list(slots) == sorted(set(slots))
    assert all(0 <= slot < population for slot in slots)
