"""Tasks of a controller, and what the framework and its subclasses may expect of one."""

from __future__ import annotations

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal


class TaskCompletionStatus(Enum):
    """How a task ended."""

    OK = "ok"
    TIMEOUT = "timeout"
    ERROR = "error"
    CANCELLED = "cancelled"
    ABORTED = "aborted"
    IGNORED = "ignored"


class SendOrder(Enum):
    """Who of several targets may have a task first."""

    ANY = "any"
    SEQUENTIAL = "sequential"


class TaskOperatorKey:
    """Props of a task that say how a controller hands it out."""

    OP_ID = "op_id"
    METHOD = "method"
    TARGETS = "targets"


class Task:
    """What clients are to do: a name and data, and what the controller does meanwhile. It is used once.

    timeout: seconds from its schedule, 0 for none. The callbacks are called by keyword: `before_task_sent_cb(client_task, fl_ctx)`,
    `after_task_sent_cb(client_task, fl_ctx)`, `result_received_cb(client_task, fl_ctx)`, `task_done_cb(task, fl_ctx)`.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        name: str,
        data: Shareable,
        props: dict[str, Any] | None = None,
        timeout: int = 0,
        before_task_sent_cb: Callable[..., Any] | None = None,
        after_task_sent_cb: Callable[..., Any] | None = None,
        result_received_cb: Callable[..., Any] | None = None,
        task_done_cb: Callable[..., Any] | None = None,
    ) -> None:
        _require(isinstance(name, str), "name must be a str", name)
        _require(isinstance(data, Shareable), "data must be a Shareable", data)
        _require(props is None or isinstance(props, dict), "props must be a dict", props)
        _require(isinstance(timeout, int) and not isinstance(timeout, bool), "timeout must be an int", timeout)
        if timeout < 0:
            raise ValueError(f"timeout must be >= 0, but got {timeout}")
        callbacks = {
            "before_task_sent_cb": before_task_sent_cb,
            "after_task_sent_cb": after_task_sent_cb,
            "result_received_cb": result_received_cb,
            "task_done_cb": task_done_cb,
        }
        for what, given in callbacks.items():
            _require(given is None or callable(given), f"{what} must be callable", given)
        self.name, self.data, self.timeout = name, data, timeout
        self.props: dict[str, Any] = dict(props or {})
        self.before_task_sent_cb, self.after_task_sent_cb = before_task_sent_cb, after_task_sent_cb
        self.result_received_cb, self.task_done_cb = result_received_cb, task_done_cb
        self.targets: list[str] | None = None
        self.client_tasks: list[ClientTask] = []
        self.last_client_task_map: dict[str, ClientTask] = {}
        self.completion_status: TaskCompletionStatus | None = None
        self.is_standing = False
        self.schedule_time: float | None = None
        self.create_time: float = 0.0
        self.exception: BaseException | None = None
        self.cb_lock = threading.RLock()
        self.manager: Any = None

    def set_prop(self, key: str, value: Any) -> None:
        """Keep something with the task.

        Raises:
            ValueError: the key is the framework's.
        """
        if key.startswith("__"):
            raise ValueError(f"prop key {key!r} is the framework's: it starts with '__'")
        self.props[key] = value

    def get_prop(self, key: str) -> Any:
        return self.props.get(key)


class ClientTask:
    """A task as one client has it, or had it."""

    def __init__(self, client: Client, task: Task) -> None:
        self.client, self.task = client, task
        self.id = str(uuid.uuid4())
        self.task_send_count = 0
        self.task_sent_time: float | None = None
        self.result_received_time: float | None = None
        self.result: Any = None
        self.props: dict[str, Any] = {}

    def set_prop(self, key: str, value: Any) -> None:
        """Keep something with the client's task.

        Raises:
            ValueError: the key is the framework's.
        """
        if key.startswith("__"):
            raise ValueError(f"prop key {key!r} is the framework's: it starts with '__'")
        self.props[key] = value

    def get_prop(self, key: str) -> Any:
        return self.props.get(key)


class ControllerSpec(ABC):
    """What a workflow of one's own says of itself."""

    @abstractmethod
    def start_controller(self, fl_ctx: FLContext) -> None:
        """Prepare; called once before the flow."""

    @abstractmethod
    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Clean up; called once after the flow."""

    @abstractmethod
    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """The workflow itself: schedules tasks, and returns when all is done."""

    @abstractmethod
    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """What is done with a result that no standing task waits for."""


def _require(holds: bool, what: str, got: object) -> None:
    if not holds:
        raise TypeError(f"{what}, but got {type(got)}")
