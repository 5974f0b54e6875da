"""The task engine: tasks stand until they end, clients that are free are given them, and callbacks say what happened.

Nothing is polled and nothing runs beside it: `*_and_wait` lets the framework go on (hand out, wait for the next result or the
next time at which something can change) until its task has ended. So one sequence of results gives one sequence of callbacks.
"""

from __future__ import annotations

import uuid
from abc import ABC
from collections.abc import Callable
from typing import Any

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.controller_spec import ClientTask, ControllerSpec, SendOrder, Task, TaskCompletionStatus
from hansa.compat.flare.apis.fl_constant import FLContextKey
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.fl_exception import WorkflowError
from hansa.compat.flare.apis.impl.managers import (
    BLOCK,
    SEND,
    Broadcast,
    Forever,
    RelayInAnyOrder,
    RelayInOrder,
    Send,
    TaskManager,
)
from hansa.compat.flare.apis.responder import Responder
from hansa.compat.flare.apis.shareable import ReservedHeaderKey, Shareable
from hansa.compat.flare.apis.signal import Signal

__all__ = ["ClientTask", "Controller", "SendOrder", "Task", "TaskCompletionStatus"]

Targets = list[Client] | list[str] | None
NOTHING: tuple[str, str, None] = ("", "", None)
_IDS = uuid.UUID("5b0a0a3e-6f0c-4f0e-9d2a-3f1c1b7e7a10")


class Controller(Responder, ControllerSpec, ABC):
    """A workflow at the server: schedules tasks in `control_flow` and in callbacks. `task_check_period` is kept and not needed."""

    def __init__(self, task_check_period: float = 0.5) -> None:
        super().__init__()
        self._task_check_period = task_check_period
        self._engine: Any = None
        self._tasks: list[Task] = []
        self._client_task_map: dict[str, ClientTask] = {}
        self._given_out = 0

    def initialize_run(self, fl_ctx: FLContext) -> None:
        """Begin, and let the subclass begin."""
        self._engine = fl_ctx.get_engine()
        if self._engine is None:
            raise RuntimeError("the context of a run has no engine")
        self.start_controller(fl_ctx)

    def finalize_run(self, fl_ctx: FLContext) -> None:
        """End what still stands, and let the subclass end."""
        self.cancel_all_tasks()
        self.check_tasks()
        self.stop_controller(fl_ctx)

    def process_task_request(self, client: Client, fl_ctx: FLContext) -> tuple[str, str, Shareable | None]:
        """The name, id and data of the task that the client gets now; `("", "", None)` if there is none.

        Raises:
            TypeError: an argument is not what it should be.
        """
        _is(client, Client, "client")
        _is(fl_ctx, FLContext, "fl_ctx")
        found = self._find(client.name)
        if found is None:
            return NOTHING
        task, held = found
        resend, client_task = held is not None, held or ClientTask(client, task)
        if not resend:
            self._given_out += 1
            client_task.id = str(uuid.uuid5(_IDS, f"{self._given_out}/{client.name}/{task.name}"))
            task.manager.given(task, client.name, self._now())
        fl_ctx.put(FLContextKey.IS_CLIENT_TASK_RESEND, resend)
        if not self._call(task.before_task_sent_cb, task, client_task=client_task, fl_ctx=fl_ctx):
            return NOTHING
        name, data = task.name, task.data
        client_task.task_sent_time = self._now()
        client_task.task_send_count += 1
        if not resend:
            task.client_tasks.append(client_task)
            task.last_client_task_map[client.name] = client_task
            self._client_task_map[client_task.id] = client_task
        if not self._call(task.after_task_sent_cb, task, client_task=client_task, fl_ctx=fl_ctx):
            return NOTHING
        return name, client_task.id, data

    def has_task_for(self, client: str) -> bool:
        """Whether the client would get a task now."""
        return self._find(client) is not None

    def process_submission(self, client: Client, task_name: str, task_id: str, result: Shareable, fl_ctx: FLContext) -> None:
        """Take a client's result in. One that is sent twice, or by another client than has the task, changes nothing.

        Raises:
            TypeError: an argument is not what it should be. ValueError: the task of that id has another name.
        """
        for given, kind, what in (
            (client, Client, "client"),
            (fl_ctx, FLContext, "fl_ctx"),
            (task_name, str, "task_name"),
            (result, Shareable, "result"),
        ):
            _is(given, kind, what)
        client_task = self._client_task_map.get(task_id)
        if client_task is None:
            self.process_result_of_unknown_task(client, task_name, task_id, result, fl_ctx)
            return
        task = client_task.task
        if task.name != task_name:
            raise ValueError(f"client specified task name {task_name!r} does not match {task.name!r}")
        why = None
        if client_task.client.name != client.name:
            why = f"the task was given to {client_task.client.name!r}"
        elif client_task.result_received_time is not None:
            why = "it has a result already"
        elif task.completion_status is not None:
            why = f"the task has ended: {task.completion_status.value}"
        if why is not None:
            self.log_info(fl_ctx, f"result of {client.name!r} for task {task_name!r} dropped: {why}")
            return
        client_task.result, client_task.result_received_time = result, self._now()
        if task.manager.is_late(client_task):
            result.set_header(ReservedHeaderKey.REPLY_IS_LATE, True)
        self._call(task.result_received_cb, task, client_task=client_task, fl_ctx=fl_ctx)

    def handle_exception(self, task_id: str, fl_ctx: FLContext) -> None:
        """A task could not be given to its client after all."""
        if (client_task := self._client_task_map.get(task_id)) is not None:
            client_task.task.completion_status = TaskCompletionStatus.ERROR
            self.log_error(fl_ctx, f"task {client_task.task.name!r} could not be given to {client_task.client.name!r}")

    def check_tasks(self) -> bool:
        """End the tasks that have ended; whether there was one."""
        ended = False
        for task in list(self._tasks):
            if task.completion_status is None:
                task.completion_status = self._status(task)
            if task.completion_status is not None and task.is_standing:
                ended = True
                self._end(task)
        return ended

    def next_time(self) -> float | None:
        """When something changes by itself; None if it never does."""
        now = self._now()
        times = [task.manager.next_time(task, now) for task in self._tasks]
        times += [task.schedule_time + task.timeout for task in self._tasks if task.timeout and task.schedule_time is not None]
        return min((at for at in times if at is not None), default=None)

    @property
    def standing(self) -> list[str]:
        """The names of the tasks that stand."""
        return [task.name for task in self._tasks]

    def broadcast(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        min_responses: int = 1,
        wait_time_after_min_received: int = 0,
    ) -> None:
        """Give the task to each target (None: all clients). It ends when `min_responses` have answered (0: all that have it)
        and the wait time after that is over, or all targets have.

        Raises:
            TypeError, ValueError: an argument is not what it should be, or the task was used before.
        """
        _natural(min_responses, "min_responses")
        _natural(wait_time_after_min_received, "wait_time_after_min_received")
        names = _names(targets, unique=True)
        if names is not None and min_responses > len(names):
            raise ValueError(f"min_responses ({min_responses}) must not be greater than the number of targets ({len(names)})")
        self._schedule(task, fl_ctx, Broadcast(min_responses, wait_time_after_min_received), names)

    def broadcast_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        min_responses: int = 1,
        wait_time_after_min_received: int = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        """`broadcast`, and wait until it has ended."""
        self.broadcast(task, fl_ctx, targets, min_responses, wait_time_after_min_received)
        self.wait_for_task(task, abort_signal)

    def broadcast_forever(self, task: Task, fl_ctx: FLContext, targets: Targets = None) -> None:
        """Give the task to each target whenever it asks, until it is cancelled or times out."""
        self._schedule(task, fl_ctx, Forever(), _names(targets, unique=True))

    def send(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int = 0,
    ) -> None:
        """Give the task to one of the targets: in order, each with so many seconds to ask, or to any. It ends with the result.

        Raises:
            TypeError, ValueError: an argument is not what it should be, or the task was used before.
        """
        self._check_order(task, send_order, task_assignment_timeout)
        names = _names(targets, unique=True)
        if not names:
            raise ValueError("send needs targets")
        self._schedule(task, fl_ctx, Send(send_order, task_assignment_timeout), names)

    def send_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        """`send`, and wait until it has ended."""
        self.send(task, fl_ctx, targets, send_order, task_assignment_timeout)
        self.wait_for_task(task, abort_signal)

    def relay(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int = 0,
        task_result_timeout: int = 0,
        dynamic_targets: bool = True,
    ) -> None:
        """Give the task to one target after the other; each gets it when the one before has answered, or had its time.

        dynamic_targets: clients that ask and are no target become one, at the end. Targets may repeat.

        Raises:
            TypeError, ValueError: an argument is not what it should be, or the task was used before.
        """
        self._check_order(task, send_order, task_assignment_timeout)
        _natural(task_result_timeout, "task_result_timeout")
        names = _names(targets, unique=send_order is SendOrder.ANY)
        if not names and not dynamic_targets:
            raise ValueError("relay needs targets, or dynamic_targets")
        manager: TaskManager = RelayInAnyOrder(task_result_timeout, dynamic_targets)
        if send_order is SendOrder.SEQUENTIAL:
            manager = RelayInOrder(task_assignment_timeout, task_result_timeout, dynamic_targets)
        self._schedule(task, fl_ctx, manager, names if names is not None else [])

    def relay_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: Targets = None,
        send_order: SendOrder = SendOrder.SEQUENTIAL,
        task_assignment_timeout: int = 0,
        task_result_timeout: int = 0,
        dynamic_targets: bool = True,
        abort_signal: Signal | None = None,
    ) -> None:
        """`relay`, and wait until it has ended."""
        self.relay(task, fl_ctx, targets, send_order, task_assignment_timeout, task_result_timeout, dynamic_targets)
        self.wait_for_task(task, abort_signal)

    def wait_for_task(self, task: Task, abort_signal: Signal | None = None) -> None:
        """Let the run go on until the task has ended; an abort cancels it."""
        while task.is_standing:
            if abort_signal is not None and abort_signal.triggered:
                self.cancel_task(task, TaskCompletionStatus.ABORTED)
            self._engine.advance()

    def get_num_standing_tasks(self) -> int:
        """How many tasks stand. Who asks waits for that to change: the run goes on until it does, or nothing can happen."""
        before = len(self._tasks)
        while before and len(self._tasks) == before and self._engine.advance(least=self._task_check_period):
            pass
        return len(self._tasks)

    def cancel_task(
        self,
        task: Task,
        completion_status: TaskCompletionStatus = TaskCompletionStatus.CANCELLED,
        fl_ctx: FLContext | None = None,
    ) -> None:
        """Mark the task as ended; its `task_done_cb` is called when the run goes on."""
        del fl_ctx
        if task.completion_status is None:
            task.completion_status = completion_status

    def cancel_all_tasks(
        self, completion_status: TaskCompletionStatus = TaskCompletionStatus.CANCELLED, fl_ctx: FLContext | None = None
    ) -> None:
        """Mark all tasks as ended."""
        for task in self._tasks:
            self.cancel_task(task, completion_status, fl_ctx)

    def abort_task(self, task: Task, fl_ctx: FLContext) -> None:
        """Cancel the task, and tell the clients that work on it to stop."""
        self.cancel_task(task, TaskCompletionStatus.ABORTED, fl_ctx)
        working = [each for each in task.client_tasks if each.result_received_time is None]
        self._engine.abort_client_tasks([each.id for each in working])

    def abort_all_tasks(self, fl_ctx: FLContext) -> None:
        """Cancel all tasks, and tell the clients that work on them to stop."""
        for task in list(self._tasks):
            self.abort_task(task, fl_ctx)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Say that a result came that no standing task waits for."""
        del client_task_id, result
        self.log_info(fl_ctx, f"result of {client.name!r} for task {task_name!r} came when no such task stood")

    def _schedule(self, task: Task, fl_ctx: FLContext, manager: TaskManager, names: list[str] | None) -> None:
        _is(task, Task, "task")
        _is(fl_ctx, FLContext, "fl_ctx")
        if task.schedule_time is not None:
            raise ValueError("Task was already used. Please create a new task object.")
        task.manager, task.targets = manager, names
        task.create_time = task.schedule_time = self._now()
        task.is_standing = True
        self._tasks.append(task)

    def _check_order(self, task: Task, order: SendOrder, assignment_timeout: int) -> None:
        _is(task, Task, "task")
        _is(order, SendOrder, "send_order")
        _natural(assignment_timeout, "task_assignment_timeout")
        if task.timeout and assignment_timeout > task.timeout:
            raise ValueError(f"task_assignment_timeout ({assignment_timeout}) must not be greater than the task's ({task.timeout})")

    def _find(self, client: str) -> tuple[Task, ClientTask | None] | None:
        """The task that the client gets, and the client task that it had before and never answered, if that is why."""
        now = self._now()
        for task in self._tasks:
            if task.completion_status is not None:
                continue
            held = task.last_client_task_map.get(client)
            if held is not None and held.result_received_time is None:
                return task, held
            verdict = task.manager.may_have(task, client, now)
            if verdict is SEND:
                return task, None
            if verdict is BLOCK:
                return None
        return None

    def _call(self, callback: Callable[..., Any] | None, task_: Task, **given: Any) -> bool:
        """Call back; whether the task still stands then. What the callback raises ends the task: an app's code is called here."""
        if callback is not None:
            try:
                with task_.cb_lock:
                    callback(**given)
            except Exception as error:
                task_.completion_status, task_.exception = TaskCompletionStatus.ERROR, error
                self.log_exception(given["fl_ctx"], f"a callback of task {task_.name!r} failed: {error}")
                if isinstance(error, WorkflowError):
                    self._engine.ask_to_stop(str(error))
        return task_.completion_status is None

    def _status(self, task: Task) -> TaskCompletionStatus | None:
        now = self._now()
        if task.timeout and task.schedule_time is not None and now - task.schedule_time >= task.timeout:
            return TaskCompletionStatus.TIMEOUT
        status: TaskCompletionStatus | None = task.manager.exit(task, now, [each.name for each in self._engine.get_clients()])
        return status

    def _end(self, task: Task) -> None:
        task.is_standing = False
        self._tasks.remove(task)
        for each in task.client_tasks:
            self._client_task_map.pop(each.id, None)
        if task.task_done_cb is not None:
            with self._engine.new_context() as fl_ctx:
                self._call(task.task_done_cb, task, task=task, fl_ctx=fl_ctx)

    def _now(self) -> float:
        return float(self._engine.now())


def _names(targets: Targets, *, unique: bool) -> list[str] | None:
    if targets is None:
        return None
    _is(targets, list, "targets")
    names = []
    for each in targets:
        if not isinstance(each, Client | str):
            raise TypeError(f"a target must be a Client or a str, but got {type(each)}")
        names.append(each.name if isinstance(each, Client) else each)
    return list(dict.fromkeys(names)) if unique else names


def _natural(given: object, what: str) -> None:
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise TypeError(f"{what} must be a number, but got {type(given)}")
    if given < 0:
        raise ValueError(f"{what} must be >= 0, but got {given}")


def _is(given: object, kind: type, what: str) -> None:
    if not isinstance(given, kind):
        raise TypeError(f"{what} must be an instance of {kind.__name__}, but got {type(given)}")
