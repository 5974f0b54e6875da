"""The round engine's policies on the virtual clock, and what a workflow may ask of a federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tests.unit.simulation.means import job, sites

import hansa as hs
from hansa.core import trees
from hansa.core.protocols import Replies
from hansa.core.round import Policy
from hansa.core.task import Expect, FLContext, Shareable, Signal, Task
from hansa.core.trees import Spec, Tree
from hansa.errors import ConfigError, QuorumError, RunError
from hansa.simulation.crews import Loop
from hansa.simulation.engine import simulate
from hansa.simulation.faults import Faults, fate
from hansa.simulation.federation import SimulatedFederation
from hansa.simulation.sites import Answer, Call, Sites


class Slots(hs.Executor):
    """Answers its slot, and puts it into its memory."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        assert fl_ctx.memory is not None
        fl_ctx.memory.put("seen", {"n": np.array(fl_ctx.slot)})
        return Shareable({"n": np.array(fl_ctx.slot)})


class Watched:
    """A loop that says which calls it was asked for."""

    def __init__(self, crew: Loop) -> None:
        self.crew = crew
        self.calls: list[Call] = []
        self.coming: list[Call] = []

    def begin(self, task: Task, calls: Sequence[Call], kept: Mapping[int, Mapping[str, Tree]]) -> None:
        self.coming = list(calls)
        self.crew.begin(task, calls, kept)

    def answer(self, call: Call) -> Answer:
        self.calls.append(call)
        return self.crew.answer(call)

    def close(self) -> None:
        self.crew.close()


def federation(count: int, faults: Faults | None = None, *, seed: int = 0) -> tuple[SimulatedFederation, Watched]:
    asking = hs.Job("ask", lambda _: None, executor=Slots())
    names = [f"s{slot}" for slot in range(count)]
    crew = Watched(Loop(Sites(asking, asking.serve(), {}, names, seed)))
    return SimulatedFederation(names, seed, crew, faults or Faults()), crew


def ask(many: SimulatedFederation, policy: Policy, *, round_: int = 1) -> tuple[list[int], Replies]:
    replies = many.task(Task("count", round=round_), range(len(many.sites)), policy)
    return [reply.slot for reply in replies], replies


def test_without_faults_every_site_answers_in_slot_order_after_a_virtual_second() -> None:
    many, _ = federation(5)
    slots, replies = ask(many, Policy())
    assert (slots, list(replies.refused), list(replies.lost), many.clock.now()) == ([0, 1, 2, 3, 4], [], [], 1.0)


def test_over_selected_sites_beyond_the_cohort_are_late_and_not_asked_to_work() -> None:
    many, crew = federation(6)
    slots, replies = ask(many, Policy(cohort=4, over_select=0.5))
    others = [slot for slot in range(6) if slot not in slots]
    assert len(others) == 2
    assert [(r.slot, r.failure.code if r.failure else "") for r in replies.lost] == [(slot, "late") for slot in others]
    assert sorted(call.slot for call in crew.calls) == slots
    assert crew.coming[:4] == crew.calls


def test_of_over_selected_sites_that_are_equally_fast_the_lot_decides_and_all_get_their_turn() -> None:
    trained: set[int] = set()
    for number in range(1, 9):
        [one, _], [again, _] = (ask(federation(6)[0], Policy(cohort=2, over_select=2.0), round_=number) for _ in range(2))
        assert one == again == sorted(one)
        trained.update(one)
    assert trained == set(range(6))


def test_the_fastest_of_the_over_selected_fill_the_cohort() -> None:
    faults = Faults(spread=1.0)
    many, _ = federation(9, faults, seed=4)
    durations = {slot: fate(faults, seed=4, round=1, slot=slot, attempt=1, task="count").duration_s for slot in range(9)}
    fastest = sorted(durations, key=durations.__getitem__)[:6]
    slots, _ = ask(many, Policy(cohort=6, over_select=0.5))
    assert slots == sorted(fastest)
    assert many.clock.now() == durations[fastest[-1]]


def test_stragglers_miss_the_deadline_and_the_quorum_carries_the_round() -> None:
    faults = Faults(straggle=0.4, slowdown=10.0)
    slow = [slot for slot in range(10) if fate(faults, seed=2, round=1, slot=slot, attempt=1, task="count").duration_s > 5]
    assert 0 < len(slow) < 8
    many, crew = federation(10, faults, seed=2)
    slots, replies = ask(many, Policy(quorum=2, deadline_s=5.0))
    assert slots == [slot for slot in range(10) if slot not in slow]
    assert [reply.slot for reply in replies.lost] == slow
    assert many.clock.now() == 5.0
    assert crew.coming == crew.calls  # nobody was made to work in vain


def test_without_a_deadline_the_round_waits_for_stragglers() -> None:
    many, _ = federation(10, Faults(straggle=0.4, slowdown=10.0), seed=2)
    slots, _ = ask(many, Policy())
    assert (slots, many.clock.now()) == (list(range(10)), 10.0)


def test_a_deadline_without_a_quorum_ends_the_run_and_counts_who_did_what() -> None:
    many, _ = federation(4, Faults(duration_s=6.0))
    with pytest.raises(QuorumError, match="the deadline passed: 2 needed of 4 invited; 0 admitted, 0 refused, 0 lost, 4 outst"):
        ask(many, Policy(quorum=2, deadline_s=5.0))


def test_drop_outs_are_lost_by_seed_and_another_attempt_may_bring_them_back() -> None:
    faults = Faults(dropout=0.5)
    gone = [slot for slot in range(12) if fate(faults, seed=2, round=1, slot=slot, attempt=1, task="count").dropped]
    again = [slot for slot in gone if fate(faults, seed=2, round=1, slot=slot, attempt=2, task="count").dropped]
    assert len(again) < len(gone)
    for attempts, lost in ((1, gone), (2, again)):
        many, _ = federation(12, faults, seed=2)
        slots, replies = ask(many, Policy(attempts=attempts))
        assert [reply.slot for reply in replies.lost] == lost
        assert slots == [slot for slot in range(12) if slot not in lost]


def test_bad_updates_are_refused_by_seed_and_the_model_is_that_of_the_others() -> None:
    faults = Faults(bad=0.5)
    bad = [slot for slot in range(6) if fate(faults, seed=5, round=1, slot=slot, attempt=1, task="local_train").spoil]
    good = [slot for slot in range(6) if slot not in bad]
    assert bad
    assert good
    result = simulate(job(), sites(*range(6)), seed=5, faults=faults)
    assert [each["site"] for each in result.metrics[0]["refused"]] == [chr(ord("a") + slot) for slot in bad]
    assert trees.equal(result.model, simulate(job(), sites(*good), seed=5).model)


def test_the_order_of_arrival_does_not_change_a_bit() -> None:
    plain = simulate(job(rounds=3), sites(*range(8)))
    mixed = simulate(job(rounds=3), sites(*range(8)), faults=Faults(spread=2.0))
    assert trees.equal(plain.model, mixed.model)
    assert [record["sites"] for record in plain.metrics] == [record["sites"] for record in mixed.metrics]


def test_what_a_site_put_is_kept_once_its_reply_is_admitted() -> None:
    many, _ = federation(6)
    slots, _ = ask(many, Policy(cohort=4, over_select=0.5))
    assert sorted(many.memory) == slots


def test_a_site_whose_reply_could_not_be_added_keeps_nothing_of_it() -> None:
    many, _ = federation(3)
    replies = many.task(Task("ask"), [0, 1, 2], Policy())
    for reply in replies:
        assert many.memory == {}  # kept when the task has ended
        if reply.slot == 1:
            replies.drop(reply)
    assert sorted(many.memory) == [0, 2]


def test_kept_memory_cannot_be_written_to() -> None:
    many, _ = federation(1)
    ask(many, Policy())
    [leaf] = trees.flatten(many.memory[0]["seen"]).values()
    assert not leaf.flags.writeable


def test_traffic_counts_bodies_both_ways_and_starts_anew_with_each_report() -> None:
    records: list[dict[str, Any]] = []
    many, _ = federation(3)
    many.on_report = records.append
    for replies in [many.task(Task("count", Shareable({"w": np.zeros(5, np.float32)})), [0, 2], Policy()) for _ in range(2)]:
        list(replies)
        many.report({"round": 1})
    for record in records:
        assert (record["bytes_down"], record["bytes_up"]) == (2 * 20, 2 * 8)


def test_the_replies_of_a_task_are_taken_once() -> None:
    many, _ = federation(2)
    replies = many.task(Task("count"), [0, 1], Policy())
    list(replies)
    with pytest.raises(RunError, match="once"):
        list(replies)


def test_two_tasks_may_be_asked_for_before_either_is_taken() -> None:
    many, _ = federation(2)
    both = [many.task(Task(name), [slot], Policy()) for slot, name in enumerate(("first", "second"))]
    assert [[reply.slot for reply in replies] for replies in both] == [[0], [1]]


def test_taking_two_tasks_at_a_time_is_an_error_and_not_a_mixture() -> None:
    many, _ = federation(2)
    first, second = (many.task(Task("count"), [0, 1], Policy()) for _ in range(2))
    with pytest.raises(RunError, match="the next task began"):
        list(zip(first, second, strict=True))


@pytest.mark.parametrize("slot", [-1, 2])
def test_a_slot_that_no_site_has_is_an_error(slot: int) -> None:
    many, _ = federation(2)
    with pytest.raises(ConfigError, match=f"no such slot.*expected 0 to 1; got {slot}"):
        many.task(Task("count"), [slot], Policy())


def test_slots_may_be_numpy_integers() -> None:
    many, _ = federation(3)
    assert [reply.slot for reply in many.task(Task("count"), np.array([0, 2]), Policy())] == [0, 2]  # type: ignore[arg-type]


def test_the_task_that_a_site_gets_cannot_be_written_to_and_the_callers_can() -> None:
    class Writes(hs.Executor):
        def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
            shareable.body["w"][0] = 1  # type: ignore[index]  # a leaf
            return shareable

    body = {"w": np.zeros(2)}

    def workflow(federation: Any) -> None:
        list(federation.task(Task("write", Shareable(body)), [0], Policy()))

    with pytest.raises(QuorumError, match="read-only"):
        simulate(hs.Job("writes", workflow, executor=Writes()), sites(0))
    assert body["w"].flags.writeable


@pytest.mark.parametrize(
    ("state", "notes", "name"), [({"memory": np.ones(1)}, {}, "memory"), ({}, {"federation": 1}, "federation")]
)
def test_a_checkpoint_may_not_use_the_federations_own_names(state: Tree, notes: dict[str, Any], name: str) -> None:
    many, _ = federation(1)
    many.restore()
    with pytest.raises(ConfigError) as caught:
        many.checkpoint(1, state, notes)
    assert (caught.value.path, caught.value.round) == (name, 1)


def test_a_restored_federation_has_the_memory_the_clock_and_the_count_of_the_checkpoint() -> None:
    saved: list[Any] = []
    many, _ = federation(2)
    many.on_checkpoint = lambda *state: saved.append(state)
    many.restore()
    ask(many, Policy())
    many.checkpoint(1, {"state": {"w": np.ones(1)}}, {"best": 3})
    again, _ = federation(2)
    again.saved = saved[0]
    restored = again.restore()
    assert restored is not None
    number, state, notes = restored
    assert (number, sorted(state), notes) == (1, ["state"], {"best": 3})
    assert (again.clock.now(), again.journal.seq, again.traffic) == (1.0, 1, many.traffic)
    assert {slot: sorted(names) for slot, names in again.memory.items()} == {0: ["seen"], 1: ["seen"]}


def test_a_record_may_hold_numpys_numbers() -> None:
    records: list[dict[str, Any]] = []
    many, _ = federation(1)
    many.on_report = records.append
    many.report({"round": np.int64(1), "global": {"loss": np.float32(0.5), "auc": np.array(1.0), "none": float("nan")}})
    assert type(records[0]["round"]) is int
    assert [type(value) for value in records[0]["global"].values()] == [float, float, float]


def test_a_record_that_json_cannot_hold_is_refused() -> None:
    many, _ = federation(1)
    with pytest.raises(ConfigError, match="not for a record; expected numbers, text, lists and mappings; got ndarray"):
        many.report({"round": 1, "weights": np.ones(3)})


def test_a_workflow_that_checkpoints_without_asking_for_one_first_is_told() -> None:
    many, _ = federation(1)
    with pytest.raises(RunError, match=r"begins with `federation\.restore\(\)`"):
        many.checkpoint(1, {}, {})


def test_what_is_shown_of_a_round_under_way_is_its_training() -> None:
    many, _ = federation(3)
    shown: list[tuple[int, int]] = []
    many.on_answer = lambda answered, asked: shown.append((answered, asked))
    ask(many, Policy())
    list(many.task(Task("count", expect=(Expect("n"),)), [0, 2], Policy()))  # a sum of metrics: finite, of any leaves
    assert shown == []
    update = Spec.of({"": np.array(0)})
    list(many.task(Task("count", expect=(Expect("n", update),)), [0, 2], Policy()))
    assert shown == [(1, 2), (2, 2)]
