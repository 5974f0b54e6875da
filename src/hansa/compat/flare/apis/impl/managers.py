"""Who may have a standing task, when it ends, and when either can change: one manager for each way to hand a task out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum

from hansa.compat.flare.apis.controller_spec import ClientTask, SendOrder, Task, TaskCompletionStatus

Exit = TaskCompletionStatus | None


class TaskCheckStatus(Enum):
    """Whether a client may have a task."""

    SEND = "send"
    BLOCK = "block"  # it may have nothing at all now
    NO_BLOCK = "no_block"  # it may have another one


SEND, BLOCK, NO_BLOCK = TaskCheckStatus.SEND, TaskCheckStatus.BLOCK, TaskCheckStatus.NO_BLOCK


class TaskManager(ABC):
    """Looks at a task and a time. One manager is of one task."""

    @abstractmethod
    def may_have(self, task: Task, client: str, now: float) -> TaskCheckStatus:
        """Whether the client may have the task now."""

    @abstractmethod
    def exit(self, task: Task, now: float, everyone: Sequence[str]) -> Exit:
        """How the task has ended; None while it stands. `everyone` are the clients of the run."""

    def next_time(self, task: Task, now: float) -> float | None:
        """When something changes by itself, after `now`; None if it never does."""
        del task, now
        return None

    def given(self, task: Task, client: str, now: float) -> None:
        """The client gets the task that it may have."""
        del task, client, now

    def is_late(self, client_task: ClientTask) -> bool:
        """Whether a result of this client's task comes after another client got it."""
        del client_task
        return False


class Broadcast(TaskManager):
    """Each target has the task once; it ends when enough have answered and the grace is over, or all have."""

    def __init__(self, min_responses: int, grace_s: float) -> None:
        self._least, self._grace_s = min_responses, grace_s

    def may_have(self, task: Task, client: str, now: float) -> TaskCheckStatus:
        del now
        if client in task.last_client_task_map:
            return NO_BLOCK
        return SEND if task.targets is None or client in task.targets else NO_BLOCK

    def exit(self, task: Task, now: float, everyone: Sequence[str]) -> Exit:
        if not task.client_tasks:
            return None
        answered = [each for each in task.client_tasks if each.result_received_time is not None]
        wanted = everyone if task.targets is None else task.targets
        if len(answered) == len(task.client_tasks) >= max(len(wanted), 1):
            return TaskCompletionStatus.OK
        if self._least == 0:  # all that have it must answer
            return TaskCompletionStatus.OK if len(answered) == len(task.client_tasks) else None
        if (since := self._enough(task)) is None or now - since < self._grace_s:
            return None
        return TaskCompletionStatus.OK

    def next_time(self, task: Task, now: float) -> float | None:
        since = self._enough(task)
        return None if since is None or since + self._grace_s <= now else since + self._grace_s

    def _enough(self, task: Task) -> float | None:
        """When as many had answered as must; None before."""
        times = sorted(each.result_received_time for each in task.client_tasks if each.result_received_time is not None)
        return times[self._least - 1] if 0 < self._least <= len(times) else None


class Forever(TaskManager):
    """Each target has the task again whenever it asks; it never ends by itself."""

    def may_have(self, task: Task, client: str, now: float) -> TaskCheckStatus:
        del now
        return SEND if task.targets is None or client in task.targets else NO_BLOCK

    def exit(self, task: Task, now: float, everyone: Sequence[str]) -> Exit:
        del task, now, everyone
        return None


class Send(TaskManager):
    """One target has the task: whoever asks first, or the first that asks when it is its turn."""

    def __init__(self, order: SendOrder, assignment_timeout: float) -> None:
        self._order, self._each_s = order, assignment_timeout

    def may_have(self, task: Task, client: str, now: float) -> TaskCheckStatus:
        targets = task.targets or []
        if task.client_tasks or client not in targets:
            return NO_BLOCK
        if self._order is SendOrder.ANY or targets.index(client) <= self._eligible(task, now):
            return SEND
        return BLOCK

    def exit(self, task: Task, now: float, everyone: Sequence[str]) -> Exit:
        del now, everyone
        return TaskCompletionStatus.OK if any(each.result_received_time is not None for each in task.client_tasks) else None

    def next_time(self, task: Task, now: float) -> float | None:
        if self._order is SendOrder.ANY or task.client_tasks or not self._each_s:
            return None
        turn = self._eligible(task, now) + 1
        return task.create_time + turn * self._each_s if turn < len(task.targets or []) else None

    def _eligible(self, task: Task, now: float) -> int:
        """The last place in the targets whose turn it is."""
        return turns(now - task.create_time, self._each_s)


class RelayInOrder(TaskManager):
    """One target after the other has the task; who does not ask in time is passed over, who does not answer in time, too."""

    def __init__(self, assignment_timeout: float, result_timeout: float, dynamic_targets: bool) -> None:
        self._each_s, self._answer_s, self._dynamic = assignment_timeout, result_timeout, dynamic_targets
        self.places: list[int] = []  # of `task.client_tasks`, in the targets

    def may_have(self, task: Task, client: str, now: float) -> TaskCheckStatus:
        targets = task.targets if task.targets is not None else []
        if client not in targets:
            if not self._dynamic:
                return NO_BLOCK
            targets.append(client)
            task.targets = targets
        window = self._window(task, now)
        if window is None:
            return BLOCK
        start, end = window
        if client in targets[start:end]:
            return SEND
        return BLOCK if client in targets[start:] else NO_BLOCK

    def given(self, task: Task, client: str, now: float) -> None:
        window = self._window(task, now)
        start = 0 if window is None else window[0]
        self.places.append((task.targets or []).index(client, start))

    def exit(self, task: Task, now: float, everyone: Sequence[str]) -> Exit:
        del everyone
        window = self._window(task, now)
        targets = task.targets or []
        if window is None or not targets or (window[0] < len(targets) and window[1] - 1 < len(targets)):
            return None
        last = task.client_tasks[-1] if task.client_tasks else None
        return (
            TaskCompletionStatus.OK if last is not None and last.result_received_time is not None else TaskCompletionStatus.TIMEOUT
        )

    def next_time(self, task: Task, now: float) -> float | None:
        last = task.client_tasks[-1] if task.client_tasks else None
        if last is not None and last.result_received_time is None:
            sent = last.task_sent_time or 0.0
            return sent + self._answer_s if self._answer_s and sent + self._answer_s > now else self._grows(task, now)
        return self._grows(task, now)

    def is_late(self, client_task: ClientTask) -> bool:
        return client_task is not client_task.task.client_tasks[-1]

    def _grows(self, task: Task, now: float) -> float | None:
        since = self._since(task, now)
        return since + (turns(now - since, self._each_s) + 1) * self._each_s if since is not None and self._each_s else None

    def _since(self, task: Task, now: float) -> float | None:
        """Since when it is the next target's turn; None while the last one has the task."""
        last = task.client_tasks[-1] if task.client_tasks else None
        if last is None:
            return task.schedule_time or 0.0
        if last.result_received_time is not None:
            return last.result_received_time
        expires = (last.task_sent_time or 0.0) + self._answer_s
        return expires if self._answer_s and now >= expires else None

    def _window(self, task: Task, now: float) -> tuple[int, int] | None:
        """The places whose turn it is, from and to (not included)."""
        since = self._since(task, now)
        if since is None:
            return None
        start = self.places[-1] + 1 if self.places else 0
        return start, start + 1 + turns(now - since, self._each_s)


class RelayInAnyOrder(TaskManager):
    """One target after the other has the task: whichever asks next and had it not yet."""

    def __init__(self, result_timeout: float, dynamic_targets: bool) -> None:
        self._answer_s, self._dynamic = result_timeout, dynamic_targets

    def may_have(self, task: Task, client: str, now: float) -> TaskCheckStatus:
        targets = task.targets if task.targets is not None else []
        if client not in targets:
            if not self._dynamic:
                return NO_BLOCK
            targets.append(client)
            task.targets = targets
        if client in task.last_client_task_map:
            return NO_BLOCK
        return SEND if self._free(task, now) else BLOCK

    def exit(self, task: Task, now: float, everyone: Sequence[str]) -> Exit:
        del everyone
        served = set(task.last_client_task_map)
        if not task.client_tasks or not served >= set(task.targets or []) or not self._free(task, now):
            return None
        answered = task.client_tasks[-1].result_received_time is not None
        return TaskCompletionStatus.OK if answered else TaskCompletionStatus.TIMEOUT

    def next_time(self, task: Task, now: float) -> float | None:
        if not self._answer_s or not task.client_tasks or task.client_tasks[-1].result_received_time is not None:
            return None
        expires = (task.client_tasks[-1].task_sent_time or 0.0) + self._answer_s
        return expires if expires > now else None

    def is_late(self, client_task: ClientTask) -> bool:
        return client_task is not client_task.task.client_tasks[-1]

    def _free(self, task: Task, now: float) -> bool:
        """Whether nobody has the task at present."""
        last = task.client_tasks[-1] if task.client_tasks else None
        if last is None or last.result_received_time is not None:
            return True
        return bool(self._answer_s) and now >= (last.task_sent_time or 0.0) + self._answer_s


def turns(elapsed: float, each_s: float) -> int:
    """How many whole turns have passed; of those that never end, none."""
    return int(elapsed / each_s) if each_s else 0
