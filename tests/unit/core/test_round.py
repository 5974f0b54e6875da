import itertools
import time
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest

from hansa.core.rng import generator
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
from hansa.errors import ConfigError

NAN = Failure("not_finite", "an entry is NaN", path="weight")


def play(state: State, *events: Event) -> tuple[State, list[tuple[Command, ...]]]:
    told: list[tuple[Command, ...]] = []
    for event in events:
        state, commands = step(state, event)
        told.append(commands)
    return state, told


def opened(policy: Policy, *invited: int) -> State:
    return play(begin(1, invited, policy), Opened(0.0))[0]


# The policy


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("cohort", {"cohort": 0}),
        ("cohort", {"cohort": True}),
        ("quorum", {"quorum": 0}),
        ("quorum", {"quorum": 0.0}),
        ("quorum", {"quorum": 1.5}),
        ("quorum", {"quorum": float("nan")}),
        ("quorum", {"quorum": 4, "cohort": 3}),
        ("deadline_s", {"deadline_s": 0.0}),
        ("deadline_s", {"deadline_s": float("inf")}),
        ("over_select", {"over_select": -0.1}),
        ("attempts", {"attempts": 0}),
        ("attempts", {"attempts": 256}),
        ("attempts", {"attempts": np.True_}),
        ("cohort", {"cohort": "3"}),
        ("over_select", {"over_select": "0.3"}),
        ("late", {"late": "keep"}),
    ],
)
def test_a_policy_out_of_range_is_refused_by_the_name_of_its_field(field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(**settings)
    assert caught.value.path == field


def test_numpys_numbers_are_taken_as_pythons_and_print_alike() -> None:
    given = Policy(cohort=np.int64(3), quorum=np.int32(2), deadline_s=np.float32(2.0), attempts=np.uint8(2))  # type: ignore[arg-type]
    assert given == Policy(cohort=3, quorum=2, deadline_s=2.0, attempts=2)
    assert repr(given) == repr(Policy(cohort=3, quorum=2, deadline_s=2.0, attempts=2))


@pytest.mark.parametrize(("quorum", "needed"), [(1, 1), (1.0, 10), (0.7, 7), (0.71, 8), (0.01, 1)])
def test_a_quorum_counts_sites_as_an_int_and_is_a_share_rounded_up_as_a_float(quorum: float, needed: int) -> None:
    assert begin(1, range(10), Policy(cohort=10, quorum=quorum)).needed == needed


def test_a_share_is_read_as_the_decimal_that_was_written() -> None:
    assert begin(1, range(100), Policy(quorum=0.07)).needed == 7  # 0.07 * 100 is 7.000000000000001


def test_a_share_is_of_the_cohort_asked_for_even_when_fewer_sites_are_there() -> None:
    state, told = play(begin(1, range(4), Policy(cohort=10, quorum=0.5)), Opened(0.0))
    assert state.phase == "abandoned"
    assert told == [
        (Abandon("the quorum is out of reach: 5 needed of 4 invited; 0 admitted, 0 refused, 0 lost, 4 outstanding"),),
    ]


# The cohort


def test_the_cohort_is_ascending_without_a_slot_twice_and_the_same_for_the_same_stream() -> None:
    policy = Policy(cohort=100, over_select=0.3)
    slots = select(1_000_000, policy, generator(7, round=3, purpose="cohort"))
    assert len(slots) == 130
    assert all(a < b for a, b in itertools.pairwise(slots))
    assert 0 <= slots[0] < slots[-1] < 1_000_000
    assert slots == select(1_000_000, policy, generator(7, round=3, purpose="cohort"))
    assert slots != select(1_000_000, policy, generator(7, round=4, purpose="cohort"))


def test_over_selection_rounds_up_and_stops_at_the_population() -> None:
    rng = np.random.default_rng(0)
    assert len(select(100, Policy(cohort=10, over_select=0.25), rng)) == 13
    assert select(11, Policy(cohort=10, over_select=0.25), rng) == tuple(range(11))
    assert select(3, Policy(cohort=10), rng) == (0, 1, 2)
    assert select(3, Policy(), rng) == (0, 1, 2)
    assert select(0, Policy(cohort=2), rng) == ()


def test_every_slot_is_invited_equally_often() -> None:
    rng = np.random.default_rng(1)
    counts = np.bincount([slot for _ in range(500) for slot in select(10, Policy(cohort=3), rng)], minlength=10)
    assert counts.sum() == 1500
    assert np.all(np.abs(counts - 150) < 5 * np.sqrt(500 * 0.3 * 0.7))  # five standard deviations


def test_sampling_from_a_million_sites_keeps_the_memory_of_the_cohort() -> None:
    rng = np.random.default_rng(2)
    policy = Policy(cohort=100)
    tracemalloc.start()
    select(1_000_000, policy, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000  # bytes; the population alone would be 8 MB


# A round's ends


def test_a_round_asks_every_invited_site_and_sets_one_timer() -> None:
    state, told = play(begin(3, [1, 4], Policy(deadline_s=5.0)), Opened(10.0))
    assert told == [(Assign(1, 1), Assign(4, 1), SetTimer(15.0))]
    assert (state.phase, state.outstanding, state.deadline) == ("open", (1, 4), 15.0)


def test_the_round_closes_with_the_admitted_slots_ascending_whatever_the_order_of_arrival() -> None:
    state, told = play(opened(Policy(), 0, 1, 2), Replied(2, 1, 1.0), Replied(0, 1, 1.5), Replied(1, 1, 2.0))
    assert told == [(), (), (Close((0, 1, 2)),)]
    assert (state.phase, state.admitted) == ("closed", (0, 1, 2))


def test_with_over_selection_the_first_to_answer_fill_the_cohort_and_the_rest_are_cancelled_and_late() -> None:
    state, told = play(
        opened(Policy(cohort=2, over_select=1.0), 0, 1, 2, 3),
        Replied(3, 1, 1.0),
        Replied(1, 1, 2.0),
        Replied(0, 1, 3.0),
    )
    assert told == [(), (Cancel(0), Cancel(2), Close((1, 3))), (Discard(0, "late"),)]
    assert (state.admitted, state.late) == ((1, 3), (0, 2))


def test_at_the_deadline_a_quorum_closes_the_round() -> None:
    state, told = play(opened(Policy(quorum=1, deadline_s=5.0), 0, 1), Replied(1, 1, 4.9), Ticked(4.95), Ticked(5.0))
    assert told == [(), (), (Cancel(0), Close((1,)))]
    assert state.late == (0,)


def test_at_the_deadline_without_a_quorum_the_round_is_abandoned_with_the_counts() -> None:
    state, told = play(opened(Policy(quorum=2, deadline_s=5.0), 0, 1, 2), Replied(1, 1, 1.0), Lost(0, 1, 2.0), Ticked(5.0))
    reason = "the deadline passed: 2 needed of 3 invited; 1 admitted, 0 refused, 1 lost, 1 outstanding"
    assert told[-1] == (Cancel(2), Abandon(reason))
    assert state.phase == "abandoned"


def test_a_reply_at_the_deadline_is_late_even_when_no_timer_has_gone_off() -> None:
    state, told = play(opened(Policy(deadline_s=5.0), 0, 1), Replied(0, 1, 4.0), Replied(1, 1, 5.0), Ticked(5.0))
    assert told == [(), (Cancel(1), Close((0,)), Discard(1, "late")), ()]
    assert (state.admitted, state.late) == ((0,), (1,))


def test_the_round_is_abandoned_as_soon_as_its_quorum_is_out_of_reach() -> None:
    _, told = play(opened(Policy(quorum=2), 0, 1, 2), Refused(0, 1, NAN, 1.0), Lost(2, 1, 2.0))
    reason = "the quorum is out of reach: 2 needed of 3 invited; 0 admitted, 1 refused, 1 lost, 1 outstanding"
    assert told == [(), (Cancel(1), Abandon(reason))]


def test_every_client_failing_abandons_the_round() -> None:
    state, told = play(opened(Policy(), 0, 1), Refused(0, 1, NAN, 1.0), Refused(1, 1, NAN, 1.0))
    reason = "the quorum is out of reach: 1 needed of 2 invited; 0 admitted, 2 refused, 0 lost, 0 outstanding"
    assert told[-1] == (Abandon(reason),)
    assert state.refused == (0, 1)


def test_a_round_without_a_site_is_abandoned_when_it_opens() -> None:
    _, told = play(begin(1, [], Policy(quorum=0.5, deadline_s=1.0)), Opened(0.0))
    reason = "the quorum is out of reach: 1 needed of 0 invited; 0 admitted, 0 refused, 0 lost, 0 outstanding"
    assert told == [(Abandon(reason),)]


def test_a_round_closes_with_a_quorum_once_nobody_is_outstanding() -> None:
    state, told = play(opened(Policy(quorum=0.5), 0, 1, 2), Replied(0, 1, 1.0), Replied(2, 1, 1.0), Refused(1, 1, NAN, 2.0))
    assert told[-1] == (Close((0, 2)),)
    assert state.refused == (1,)


# Attempts


def test_a_lost_site_is_asked_again_and_its_old_attempt_is_stale() -> None:
    state, told = play(opened(Policy(attempts=2), 0, 1), Lost(0, 1, 1.0), Replied(0, 1, 2.0), Replied(0, 2, 3.0))
    assert told == [(Assign(0, 2),), (Discard(0, "stale"),), ()]
    assert state.admitted == (0,)


def test_a_site_whose_attempts_are_used_up_is_lost_and_its_reply_is_late() -> None:
    state, told = play(opened(Policy(attempts=2), 0, 1), Lost(0, 1, 1.0), Refused(0, 2, NAN, 2.0), Replied(0, 2, 3.0))
    assert told == [(Assign(0, 2),), (), (Discard(0, "duplicate"),)]
    assert (state.refused, state.lost, state.outstanding) == ((0,), (), (1,))
    state, told = play(state, Lost(1, 1, 3.0), Lost(1, 2, 4.0), Replied(1, 2, 5.0))
    assert told[-1] == (Discard(1, "late"),)
    assert state.lost == (1,)


def test_a_site_whose_policy_says_no_is_not_asked_again() -> None:
    state, told = play(opened(Policy(attempts=3), 0, 1), Refused(0, 1, Failure("refused", "the site's policy says no"), 1.0))
    assert told == [()]
    assert state.refused == (0,)


# What does not count


def test_a_duplicate_a_foreign_slot_and_a_foreign_attempt_are_discarded_and_change_nothing() -> None:
    before, _ = play(opened(Policy(), 1, 3), Replied(1, 1, 1.0))
    after, told = play(before, Replied(1, 1, 2.0), Replied(2, 1, 2.0), Replied(9, 1, 2.0), Replied(3, 2, 2.0), Replied(3, 0, 2.0))
    assert told == [
        (Discard(1, "duplicate"),),
        (Discard(2, "foreign"),),
        (Discard(9, "foreign"),),
        (Discard(3, "foreign"),),
        (Discard(3, "foreign"),),
    ]
    assert after == before


def test_nothing_changes_after_the_end() -> None:
    end, _ = play(opened(Policy(cohort=1, over_select=1.0), 0, 1), Replied(0, 1, 1.0))
    after, told = play(end, Replied(0, 1, 2.0), Refused(1, 1, NAN, 2.0), Lost(1, 1, 2.0), Ticked(9.0), Opened(9.0))
    assert told == [(Discard(0, "duplicate"),), (Discard(1, "late"),), (Discard(1, "late"),), (), ()]
    assert after == end


def test_a_second_opening_changes_nothing_and_a_reply_before_the_first_is_foreign() -> None:
    fresh = begin(1, [0], Policy())
    assert play(fresh, Replied(0, 1, 0.0), Ticked(0.0)) == (fresh, [(Discard(0, "foreign"),), ()])
    once = opened(Policy(), 0)
    assert play(once, Opened(3.0)) == (once, [()])


def test_slots_must_ascend() -> None:
    with pytest.raises(ConfigError, match="2 before 2") as caught:
        begin(4, [0, 2, 2], Policy())
    assert (caught.value.path, caught.value.round) == ("invited", 4)


# A journal


def test_what_an_open_round_waits_for_is_told_again_after_a_restart() -> None:
    state, _ = play(opened(Policy(attempts=2, deadline_s=5.0), 0, 1, 2), Replied(1, 1, 1.0), Lost(2, 1, 1.0))
    assert pending(state) == (Assign(0, 1), Assign(2, 2), SetTimer(5.0))
    assert pending(play(state, Ticked(5.0))[0]) == ()
    assert pending(begin(1, [0], Policy())) == ()


def test_a_state_survives_being_written_as_json() -> None:
    policy = Policy(cohort=3, quorum=1.0, deadline_s=5.0, attempts=2)
    state, _ = play(opened(policy, 0, 5, 70_000), Replied(5, 1, 1.0), Lost(70_000, 1, 1.0))
    back = msgspec.json.decode(msgspec.json.encode(state), type=State)
    assert back == state
    assert isinstance(back.policy.quorum, float)
    assert play(back, Ticked(5.0)) == play(state, Ticked(5.0))


def test_a_round_of_ten_thousand_sites_costs_microseconds_a_reply() -> None:
    state = opened(Policy(), *range(10_000))
    start = time.process_time()
    state, _ = play(state, *(Replied(slot, 1, 1.0) for slot in range(1000)))
    assert time.process_time() - start < 0.5  # measured: 15 ms; a quadratic step would take seconds
