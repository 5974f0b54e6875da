"""The task engine's scenarios: each task is asked for and answered by hand, at times that the test says."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.compat.flare.hand import Hand, Told

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.fl_exception import WorkflowError
from hansa.compat.flare.apis.impl.controller import SendOrder, Task, TaskCompletionStatus
from hansa.compat.flare.apis.shareable import ReservedHeaderKey, Shareable
from hansa.compat.flare.apis.signal import Signal


def test_a_broadcast_is_given_to_each_target_once_and_ends_with_the_last_answer_without_its_grace() -> None:
    hand, told = Hand(), Told()
    hand.flow.broadcast(told.task, hand.ctx, ["a", "b"], min_responses=1, wait_time_after_min_received=10)
    assert [hand.ask(name) for name in "abc"] == ["train", "train", ""]
    hand.answer("a")
    hand.after(0)
    assert told.status == ""
    hand.answer("b")
    hand.after(0)
    assert told.lines == ["before a", "after a", "before b", "after b", "result a", "result b", "done OK"]
    assert hand.flow.get_num_standing_tasks() == 0


def test_a_broadcast_with_enough_answers_waits_its_grace_and_not_longer() -> None:
    hand, told = Hand(), Told()
    hand.flow.broadcast(told.task, hand.ctx, min_responses=2, wait_time_after_min_received=10)
    for name in "abc":
        hand.ask(name)
    hand.answer("a")
    hand.after(3)
    assert hand.flow.next_time() is None
    hand.answer("b")
    assert hand.flow.next_time() == 13.0
    hand.after(9.9)
    assert told.status == ""
    hand.after(0.1)
    assert told.status == "OK"
    hand.answer("c")
    assert hand.flow.unknown == [("c", "train")]


def test_with_no_least_number_all_that_have_the_task_must_answer_and_a_bad_return_code_is_an_answer() -> None:
    hand, told = Hand(), Told()
    hand.flow.broadcast(told.task, hand.ctx, min_responses=0)
    hand.after(100)
    assert told.status == ""  # nobody has it yet
    hand.ask("a")
    hand.ask("b")
    hand.answer("a", rc="EXECUTION_EXCEPTION")
    hand.after(100)
    assert told.status == ""
    hand.answer("b")
    hand.after(0)
    assert told.status == "OK"


def test_a_task_times_out_from_its_schedule_and_nothing_is_given_out_after_that() -> None:
    hand, told = Hand(), Told(timeout=5)
    hand.flow.broadcast(told.task, hand.ctx)
    assert hand.flow.next_time() == 5.0
    hand.after(5)
    assert (told.lines, hand.ask("a")) == (["done TIMEOUT"], "")


def test_a_client_that_asks_again_before_it_answered_gets_the_same_task() -> None:
    hand, told = Hand(), Told()
    hand.flow.broadcast(told.task, hand.ctx)
    hand.ask("a")
    first = hand.held["a"]
    ctx = hand.new_context()
    hand.flow.process_task_request(hand.clients["a"], ctx)
    assert (hand.ask("a"), hand.held["a"]) == ("train", first)
    assert ctx.get_prop("__is_resend__") is True
    assert [each.task_send_count for each in told.task.client_tasks] == [3]


def test_results_that_come_twice_or_from_another_client_or_of_another_name_change_nothing() -> None:
    hand, told = Hand(), Told()
    hand.flow.broadcast(told.task, hand.ctx, min_responses=2)
    hand.ask("a")
    hand.answer("b", of="a")
    assert "result b" not in told.lines
    hand.answer("a")
    hand.answer("a")
    assert told.lines.count("result a") == 1
    hand.ask("b")
    with pytest.raises(ValueError, match="does not match"):
        hand.submit("b", "validate", hand.held["b"][1])
    hand.submit("c", "train", "no such id")
    assert hand.flow.unknown == [("c", "train")]


def test_a_broadcast_forever_is_given_again_after_each_answer_until_it_is_cancelled() -> None:
    hand, told = Hand(), Told()
    hand.flow.broadcast_forever(told.task, hand.ctx, ["a"])
    for _ in range(3):
        assert hand.ask("a") == "train"
        hand.answer("a")
        hand.after(1000)
    assert (told.lines.count("result a"), hand.ask("b")) == (3, "")
    hand.flow.cancel_task(told.task)
    assert hand.ask("a") == ""  # marked: nothing is given out, and the callback comes when the run goes on
    hand.after(0)
    assert told.lines[-1] == "done CANCELLED"


def test_send_in_order_waits_for_the_first_target_alone_unless_it_has_a_time_to_ask() -> None:
    hand, told = Hand(), Told()
    hand.flow.send(told.task, hand.ctx, ["a", "b"])
    hand.after(1000)
    assert [hand.ask(name) for name in "bca"] == ["", "", "train"]
    hand.answer("a")
    hand.after(0)
    assert told.status == "OK"


def test_send_in_order_opens_for_the_next_target_with_each_assignment_timeout_and_one_client_gets_it() -> None:
    hand, told = Hand(), Told()
    hand.flow.send(told.task, hand.ctx, ["a", "b", "c"], SendOrder.SEQUENTIAL, task_assignment_timeout=4)
    assert (hand.flow.next_time(), hand.ask("b")) == (4.0, "")
    hand.after(4)
    assert hand.ask("c") == ""
    assert hand.ask("b") == "train"
    hand.after(8)
    assert hand.ask("a") == ""


def test_a_target_whose_turn_has_not_come_is_given_no_later_task_either() -> None:
    hand, first, second = Hand(), Told("first"), Told("second")
    hand.flow.send(first.task, hand.ctx, ["a", "b"])
    hand.flow.broadcast(second.task, hand.ctx)
    assert (hand.ask("b"), hand.ask("c"), hand.ask("a")) == ("", "second", "first")


def test_send_to_any_is_the_first_that_asks() -> None:
    hand, told = Hand(), Told()
    hand.flow.send(told.task, hand.ctx, ["a", hand.clients["b"]], SendOrder.ANY)  # type: ignore[arg-type]  # names and clients
    assert [hand.ask(name) for name in "cba"] == ["", "train", ""]


def test_a_relay_goes_from_target_to_target_in_order_and_a_target_may_come_twice() -> None:
    hand, told = Hand(), Told()
    hand.flow.relay(told.task, hand.ctx, ["a", "b", "a"], dynamic_targets=False)
    for name, others in (("a", "bc"), ("b", "ac"), ("a", "bc")):
        assert [hand.ask(other) for other in others] == ["", ""]
        assert hand.ask(name) == "train"
        assert told.status == ""
        hand.answer(name)
        hand.after(0)
    assert told.status == "OK"


def test_a_relay_passes_over_who_does_not_ask_and_goes_on_without_who_does_not_answer() -> None:
    hand, told = Hand(), Told()
    hand.flow.relay(told.task, hand.ctx, ["a", "b", "c"], task_assignment_timeout=2, task_result_timeout=5, dynamic_targets=False)
    hand.after(2)
    assert (hand.ask("c"), hand.ask("b")) == ("", "train")  # the window is a and b by now
    assert hand.flow.next_time() == 7.0
    hand.after(4.9)
    assert hand.ask("c") == ""
    hand.after(0.1)
    assert hand.ask("c") == "train"
    hand.answer("b")
    late = told.task.client_tasks[0].result
    assert (late.get_header(ReservedHeaderKey.REPLY_IS_LATE), told.lines[-1]) == (True, "result b")
    hand.answer("c")
    hand.after(0)
    assert told.status == "OK"


def test_a_relay_whose_last_target_never_answers_times_out() -> None:
    hand, told = Hand(), Told()
    hand.flow.relay(told.task, hand.ctx, ["a"], task_result_timeout=5, dynamic_targets=False)
    hand.ask("a")
    hand.after(5)
    assert told.status == "TIMEOUT"


def test_a_relay_with_dynamic_targets_takes_on_who_asks() -> None:
    hand, told = Hand(), Told()
    hand.flow.relay(told.task, hand.ctx)
    assert [hand.ask(name) for name in "cab"] == ["train", "", ""]
    hand.answer("c")
    hand.after(0)
    assert [hand.ask(name) for name in "cba"] == ["", "", "train"]
    assert told.task.targets == ["c", "a", "b"]


def test_a_relay_in_any_order_serves_each_target_once_one_at_a_time() -> None:
    hand, told = Hand(), Told()
    hand.flow.relay(told.task, hand.ctx, ["a", "b", "c"], SendOrder.ANY, task_result_timeout=5, dynamic_targets=False)
    assert [hand.ask(name) for name in "cab"] == ["train", "", ""]
    hand.answer("c")
    assert [hand.ask(name) for name in "cba"] == ["", "train", ""]
    hand.after(5)  # b had its time
    assert hand.ask("a") == "train"
    hand.answer("b")
    assert told.task.client_tasks[1].result.get_header(ReservedHeaderKey.REPLY_IS_LATE) is True
    hand.answer("a")
    hand.after(0)
    assert told.status == "OK"


@pytest.mark.parametrize(
    ("when", "given", "lines"),
    [
        ("before", "", ["before a", "done CANCELLED"]),
        ("after", "", ["before a", "after a", "done CANCELLED"]),
        ("result", "train", ["before a", "after a", "result a", "done CANCELLED"]),
    ],
)
def test_a_task_that_is_cancelled_in_a_callback_is_given_to_nobody_and_ends_once(when: str, given: str, lines: list[str]) -> None:
    hand = Hand()
    cancel: Any = {when: lambda client_task: hand.flow.cancel_task(client_task.task)}
    told = Told(**cancel)
    hand.flow.broadcast(told.task, hand.ctx, min_responses=0)
    assert hand.ask("a") == given
    if given:
        hand.answer("a")
    assert hand.ask("b") == ""
    hand.after(0)
    hand.after(0)
    assert told.lines == lines


def test_cancelling_in_the_last_callback_changes_nothing_any_more() -> None:
    hand = Hand()
    told = Told(done=lambda task: hand.flow.cancel_task(task))
    hand.flow.broadcast(told.task, hand.ctx, ["a"])
    hand.ask("a")
    hand.answer("a")
    hand.after(0)
    assert told.status == "OK"


@pytest.mark.parametrize("when", ["before", "after", "result", "done"])
def test_a_callback_may_schedule_another_task_and_wait_for_it(when: str) -> None:
    hand, second = Hand(), Told("second")

    def schedule(_: object) -> None:
        hand.flow.broadcast(second.task, hand.ctx, ["b"])

    acts: Any = {when: schedule}
    told = Told("first", **acts)
    hand.flow.broadcast(told.task, hand.ctx, ["a"])
    hand.ask("a")
    hand.answer("a")
    hand.after(0)
    assert (hand.ask("b"), told.status) == ("second", "OK")
    hand.answer("b")
    hand.after(0)
    assert second.status == "OK"


def test_what_a_callback_raises_ends_its_task_and_a_workflow_error_the_run() -> None:
    def fail(error: Exception) -> Any:
        def act(_: object) -> None:
            raise error

        return act

    hand = Hand()
    told = Told("first", result=fail(ValueError("odd")))
    hand.flow.broadcast(told.task, hand.ctx)
    hand.ask("a")
    hand.answer("a")
    hand.after(0)
    assert (told.status, repr(told.task.exception), hand.stopped) == ("ERROR", "ValueError('odd')", "")
    other, worse = Told("other"), Told("second", done=fail(WorkflowError("no model")))
    hand.flow.broadcast(worse.task, hand.ctx, ["a"])
    hand.flow.broadcast(other.task, hand.ctx, ["b"])
    hand.ask("a")
    hand.answer("a")
    hand.after(0)
    assert (worse.status, other.status, hand.stopped) == ("ERROR", "", "no model")  # 2.0 marked the wrong task


def test_the_data_may_be_changed_before_they_are_sent() -> None:
    hand = Hand()

    def change(client_task: Any) -> None:
        client_task.task.data = Shareable()
        client_task.task.data["to"] = client_task.client.name

    told = Told(before=change)
    hand.flow.broadcast(told.task, hand.ctx)
    data = [hand.flow.process_task_request(hand.clients[name], hand.new_context())[2] for name in "ab"]
    assert [each["to"] for each in data if each is not None] == ["a", "b"]


def test_waiting_lets_the_run_go_on_until_the_task_has_ended() -> None:
    hand, told = Hand(), Told()
    hand.steps = [lambda: hand.ask("a"), lambda: hand.answer("a"), lambda: pytest.fail("it had ended")]
    hand.flow.broadcast_and_wait(told.task, hand.ctx, ["a"])
    assert (told.status, len(hand.steps)) == ("OK", 1)


def test_an_abort_while_one_waits_cancels_the_task() -> None:
    hand, told, signal = Hand(), Told(), Signal()
    hand.steps = [lambda: hand.ask("a"), lambda: signal.trigger("enough")]
    hand.flow.relay_and_wait(told.task, hand.ctx, ["a"], abort_signal=signal)
    assert told.lines[-1] == "done ABORTED"


def test_aborting_all_tasks_tells_those_that_work_on_them() -> None:
    hand, one, other = Hand(), Told("one"), Told("other")
    hand.flow.broadcast(one.task, hand.ctx, ["a", "b"])
    hand.flow.send(other.task, hand.ctx, ["c"])
    for name in "abc":
        hand.ask(name)
    hand.answer("a")
    hand.flow.abort_all_tasks(hand.ctx)
    assert hand.aborted == [hand.held["b"][1], hand.held["c"][1]]
    hand.after(0)
    assert (one.status, other.status) == ("ABORTED", "ABORTED")


def test_the_end_of_the_run_cancels_what_stands() -> None:
    hand, told = Hand(), Told()
    hand.flow.broadcast_forever(told.task, hand.ctx)
    hand.flow.finalize_run(hand.ctx)
    assert told.lines == ["done CANCELLED"]


def test_a_task_is_used_once_and_its_arguments_are_checked() -> None:
    hand, told = Hand(), Told(timeout=3)
    with pytest.raises(ValueError, match="greater than the number of targets"):
        hand.flow.broadcast(told.task, hand.ctx, ["a"], min_responses=2)
    with pytest.raises(ValueError, match="task_assignment_timeout"):
        hand.flow.send(told.task, hand.ctx, ["a"], task_assignment_timeout=4)
    with pytest.raises(ValueError, match="needs targets"):
        hand.flow.send(told.task, hand.ctx, [])
    with pytest.raises(ValueError, match="needs targets"):
        hand.flow.relay(told.task, hand.ctx, dynamic_targets=False)
    hand.flow.broadcast(told.task, hand.ctx, ["a"])
    with pytest.raises(ValueError, match="already used"):
        hand.flow.broadcast(told.task, hand.ctx, ["a"])
    bad: tuple[Any, ...] = ({"timeout": -1}, {"timeout": 1.5}, {"data": {}}, {"name": 3}, {"task_done_cb": 3})
    for each in bad:
        with pytest.raises((TypeError, ValueError)):
            Task(**{"name": "train", "data": Shareable(), **each})
    with pytest.raises(TypeError):
        hand.flow.process_submission(Client("a", ""), "train", "id", {}, hand.ctx)  # type: ignore[arg-type]  # a client's mistake
    with pytest.raises(ValueError, match="starts with '__'"):
        told.task.set_prop("__mine", 1)
    assert TaskCompletionStatus.OK.name == "OK"
