from typing import Any

import numpy as np
import pytest

from hansa.core import trees
from hansa.core.gate import admit
from hansa.core.rng import generator
from hansa.core.round import (
    Assign,
    Command,
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
    select,
    step,
)
from hansa.core.task import Expect, Failure, Shareable
from hansa.core.trees import Leaf, Spec
from hansa.errors import ConfigError, HansaError, UpdateError
from hansa.simulation.clock import Agenda, VirtualClock
from hansa.simulation.faults import KINDS, Fate, Faults, Kind, fate, spoil

DELTA = {"bias": np.array([1.0, 2.0], np.float32), "steps": np.array([3, 4])}
GOOD = Shareable({"delta": DELTA, "examples": np.array(60), "loss": np.array(0.5)}, metrics={"loss": 0.5})
EXPECT = (Expect("delta", Spec.of(DELTA), "examples"), Expect("loss", Spec((("", Leaf(np.dtype(float), ())),))))
CERTAIN = Faults(dropout=1.0, straggle=1.0, slowdown=3.0, bad=1.0, kinds=("nan",))


def fates(faults: Faults, sites: int = 2000) -> list[Fate]:
    return [fate(faults, seed=7, round=1, slot=slot, attempt=1) for slot in range(sites)]


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("dropout", {"dropout": 1.1}),
        ("dropout", {"dropout": float("nan")}),
        ("straggle", {"straggle": -0.1}),
        ("bad", {"bad": 2}),
        ("slowdown", {"slowdown": 0.5}),
        ("duration_s", {"duration_s": 0.0}),
        ("spread", {"spread": -1.0}),
        ("kinds", {"kinds": ()}),
        ("kinds", {"kinds": ("nan", "typo")}),
    ],
)
def test_faults_out_of_range_are_refused_by_the_name_of_the_field(field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Faults(**settings)
    assert caught.value.path == field


def test_without_faults_every_task_takes_the_same_time_and_succeeds() -> None:
    assert set(fates(Faults(duration_s=2.5), 20)) == {Fate(dropped=False, duration_s=2.5, spoil=None)}


def test_a_fate_depends_on_seed_round_slot_and_attempt_alone() -> None:
    faults = Faults(spread=1.0)
    first = fate(faults, seed=7, round=1, slot=2, attempt=1)
    assert first == fate(faults, seed=7, round=1, slot=2, attempt=1)
    others = [(8, 1, 2, 1), (7, 2, 2, 1), (7, 1, 3, 1), (7, 1, 2, 2)]
    assert len({first, *(fate(faults, seed=s, round=r, slot=n, attempt=a) for s, r, n, a in others)}) == 5


def test_each_fault_comes_as_often_as_asked() -> None:
    found = fates(Faults(dropout=0.3, straggle=0.2, bad=0.1, slowdown=10.0))
    assert sum(one.dropped for one in found) / 2000 == pytest.approx(0.3, abs=0.04)
    assert sum(one.duration_s == 10.0 for one in found) / 2000 == pytest.approx(0.2, abs=0.04)
    assert sum(one.spoil is not None for one in found) / 2000 == pytest.approx(0.1, abs=0.03)
    assert {one.spoil for one in found} == {None, "nan", "inf", "shape", "weight"}


def test_a_probability_of_one_is_certain() -> None:
    assert all(one.dropped and one.duration_s == 3.0 and one.spoil == "nan" for one in fates(CERTAIN, 50))


def test_the_spread_of_durations_leaves_their_mean() -> None:
    durations = np.array([one.duration_s for one in fates(Faults(duration_s=2.0, spread=0.5))])
    assert durations.mean() == pytest.approx(2.0, rel=0.05)
    assert np.log(durations).std() == pytest.approx(0.5, rel=0.05)


def test_more_dropout_keeps_those_who_dropped_out_and_moves_no_other_fault() -> None:
    few, many = fates(Faults(dropout=0.1, bad=0.2), 300), fates(Faults(dropout=0.4, bad=0.2, straggle=0.5), 300)
    assert all(later.dropped for before, later in zip(few, many, strict=True) if before.dropped)
    assert [one.spoil for one in few] == [one.spoil for one in many]


@pytest.mark.parametrize(
    ("kind", "path", "said"),
    [
        ("nan", "delta/bias", "expected finite numbers; got nan at [0]"),
        ("inf", "delta/bias", "expected finite numbers; got inf at [0]"),
        ("shape", "delta/bias", "expected float32[2]; got float32[1,2]"),
        ("dtype", "delta/bias", "expected float32[2]; got float64[2]"),
        ("missing", "delta/bias", "expected float32[2]"),
        ("weight", "examples", "expected a finite number > 0; got -60"),
        ("weight_zero", "examples", "expected a finite number > 0; got 0"),
        ("weight_nan", "examples", "expected a finite number > 0; got nan"),
    ],
)
def test_the_gate_names_what_was_spoiled(kind: Kind, path: str, said: str) -> None:
    admit(GOOD, EXPECT)
    with pytest.raises(UpdateError) as caught:
        admit(spoil(GOOD, kind, expect=EXPECT), EXPECT)
    assert caught.value.path == path
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_spoiling_leaves_the_reply_it_was_given_as_it_was(kind: Kind) -> None:
    before = trees.copy(GOOD.body)
    bad = spoil(GOOD, kind)
    assert trees.equal(GOOD.body, before)
    assert not trees.equal(bad.body, before)
    assert bad.metrics == GOOD.metrics


def test_nan_is_put_into_the_first_float_leaf_with_entries() -> None:
    reply = Shareable({"a": np.zeros(0), "b": np.array([1, 2]), "c": np.array([[1.0, 2.0]])})
    bad = trees.flatten(spoil(reply, "nan").body)
    np.testing.assert_array_equal(bad["c"], [[np.nan, 2.0]])
    np.testing.assert_array_equal(bad["b"], [1, 2])


def test_half_precision_of_other_makes_can_be_spoiled() -> None:
    import ml_dtypes

    bad = trees.flatten(spoil(Shareable({"w": np.ones(2, ml_dtypes.bfloat16)}), "inf").body)["w"]
    assert bad.dtype == ml_dtypes.bfloat16
    assert bad.astype(float).tolist() == [np.inf, 1.0]


def test_an_unweighted_reply_has_no_weight_to_spoil_and_integers_no_nan() -> None:
    unweighted = (Expect("delta"),)
    with pytest.raises(ConfigError, match="'weight'"):
        spoil(GOOD, "weight", expect=unweighted)
    with pytest.raises(ConfigError, match="leave this kind out"):
        spoil(Shareable({"n": np.array([1])}), "nan")


# Virtual time


def test_things_happen_in_order_of_time_and_of_two_at_once_the_first_entered() -> None:
    agenda = Agenda[str](VirtualClock(10.0))
    for at, item in ((12.0, "b"), (11.0, "a"), (12.0, "c")):
        agenda.enter(at, item)
    assert len(agenda) == 3
    assert [(agenda.take(), agenda.clock.now()) for _ in range(3)] == [("a", 11.0), ("b", 12.0), ("c", 12.0)]


def test_what_is_entered_while_taking_is_taken_in_its_turn() -> None:
    agenda, seen = Agenda[int](VirtualClock()), []
    agenda.enter(1.0, 3)
    for left in agenda:
        seen.append((agenda.clock.now(), left))
        if left:
            agenda.enter(agenda.clock.now() + 0.5, left - 1)
    assert seen == [(1.0, 3), (1.5, 2), (2.0, 1), (2.5, 0)]


def test_virtual_time_only_moves_forward() -> None:
    clock = VirtualClock()
    clock.advance_to(0.3)
    assert clock.now() == 0.3
    with pytest.raises(ConfigError, match="forward"):
        clock.advance(-0.1)
    with pytest.raises(ConfigError, match="forward"):
        clock.advance_to(0.2)
    with pytest.raises(ConfigError, match="past"):
        Agenda[int](clock).enter(0.2, 1)
    with pytest.raises(HansaError):
        clock.advance(float("nan"))
    assert clock.now() == 0.3


def test_what_was_due_while_the_clock_was_advanced_happens_now() -> None:
    agenda = Agenda[str](VirtualClock())
    agenda.enter(1.0, "due")
    agenda.clock.advance(5.0)
    assert (agenda.take(), agenda.clock.now()) == ("due", 5.0)


# The round engine under faults, as a simulation drives it


def play(policy: Policy, faults: Faults, *, seed: int) -> tuple[State, list[Command], float]:
    invited = select(1_000_000, policy, generator(seed, round=1, purpose="cohort"))
    agenda, state, told = Agenda[Event](VirtualClock()), begin(1, invited, policy), list[Command]()
    agenda.enter(0.0, Opened(0.0))
    for event in agenda:
        state, commands = step(state, event)
        told.extend(commands)
        for command in commands:
            if isinstance(command, SetTimer):
                agenda.enter(command.at, Ticked(command.at))
            elif isinstance(command, Assign):
                slot, attempt = command.slot, command.attempt
                luck = fate(faults, seed=seed, round=1, slot=slot, attempt=attempt)
                at = agenda.clock.now() + luck.duration_s
                bad = Refused(slot, attempt, Failure("update", luck.spoil or ""), at)
                agenda.enter(at, Lost(slot, attempt, at) if luck.dropped else bad if luck.spoil else Replied(slot, attempt, at))
        if state.phase != "open":
            break
    return state, told, agenda.clock.now()


def test_a_round_with_faults_ends_by_its_deadline_and_the_same_way_each_time() -> None:
    policy = Policy(cohort=20, quorum=0.5, deadline_s=4.0, over_select=0.5, attempts=2)
    faults = Faults(dropout=0.3, straggle=0.2, spread=0.3, bad=0.1)
    state, told, seconds = play(policy, faults, seed=2)
    assert (state.phase, len(state.admitted), len(state.invited)) == ("closed", 20, 30)
    assert seconds < 4.0
    assert (state, told, seconds) == play(policy, faults, seed=2)
    assert state != play(policy, faults, seed=4)[0]


def test_a_round_of_stragglers_alone_is_abandoned_at_its_deadline() -> None:
    state, _, seconds = play(Policy(cohort=5, deadline_s=4.0), Faults(straggle=1.0), seed=0)
    assert (state.phase, len(state.late), seconds) == ("abandoned", 5, 4.0)


def test_the_tasks_of_a_round_have_luck_of_their_own() -> None:
    half = Faults(dropout=0.5)
    gone = {
        task: [slot for slot in range(40) if fate(half, seed=1, round=1, slot=slot, attempt=2, task=task).dropped]
        for task in ("local_train", "evaluate_valid")
    }
    assert gone["local_train"] != gone["evaluate_valid"]
