"""An engine for controllers whose clients ask and answer when a test says so, on a clock that it moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.dxo import DXO, DataKind
from hansa.compat.flare.apis.fl_context import FLContext, FLContextManager
from hansa.compat.flare.apis.impl.controller import Controller, Task
from hansa.compat.flare.apis.shareable import Shareable
from hansa.testing.clock import FakeClock


class Flow(Controller):
    """A controller that a test holds in its hand."""

    def __init__(self) -> None:
        super().__init__()
        self.unknown: list[tuple[str, str]] = []

    def start_controller(self, fl_ctx: FLContext) -> None: ...

    def stop_controller(self, fl_ctx: FLContext) -> None: ...

    def control_flow(self, abort_signal: Any, fl_ctx: FLContext) -> None: ...

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        self.unknown.append((client.name, task_name))


class Hand:
    """Clients `a`, `b`, `c`; `step` is what `*_and_wait` does when it lets the run go on."""

    def __init__(self, names: str = "abc") -> None:
        self.clock = FakeClock()
        self.clients = {name: Client(name, f"t-{name}") for name in names}
        self.contexts = FLContextManager(self, "server", 1)
        self.stopped = ""
        self.aborted: list[str] = []
        self.steps: list[Callable[[], object]] = []
        self.flow = Flow()
        self.ctx = self.contexts.new_context()
        self.flow.initialize_run(self.ctx)
        self.held: dict[str, tuple[str, str]] = {}

    def now(self) -> float:
        return self.clock.now()

    def get_clients(self) -> list[Client]:
        return list(self.clients.values())

    def new_context(self) -> FLContext:
        return self.contexts.new_context()

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None: ...

    def ask_to_stop(self, reason: str = "") -> None:
        self.stopped = reason

    def abort_client_tasks(self, ids: list[str]) -> None:
        self.aborted += ids

    def advance(self, least: float | None = None) -> bool:
        if not self.flow.check_tasks():
            if not self.steps:
                return False
            self.steps.pop(0)()
            self.flow.check_tasks()
        return True

    def ask(self, client: str) -> str:
        """The name of the task that the client gets; "" for none."""
        name, task_id, data = self.flow.process_task_request(self.clients[client], self.new_context())
        if data is not None:
            self.held[client] = name, task_id
        return name

    def answer(self, client: str, *, rc: str = "OK", of: str | None = None) -> None:
        """The client submits a result of what it had last, or of what the client `of` had."""
        name, task_id = self.held[of or client]
        self.submit(client, name, task_id, rc=rc)

    def submit(self, client: str, name: str, task_id: str, *, rc: str = "OK") -> None:
        result = DXO(DataKind.METRICS, {"from": client}).to_shareable()
        result.set_return_code(rc)
        self.flow.process_submission(self.clients[client], name, task_id, result, self.new_context())

    def after(self, seconds: float) -> None:
        """Let time pass, and the tasks that have ended end."""
        self.clock.advance(seconds)
        self.flow.check_tasks()


class Told:
    """A task with all callbacks, that takes down what it is told, in order."""

    def __init__(self, name: str = "train", timeout: int = 0, **acts: Callable[..., object]) -> None:
        self.lines: list[str] = []
        self._acts = acts
        callbacks: dict[str, Any] = {
            "before_task_sent_cb": lambda client_task, fl_ctx: self._note("before", client_task),
            "after_task_sent_cb": lambda client_task, fl_ctx: self._note("after", client_task),
            "result_received_cb": lambda client_task, fl_ctx: self._note("result", client_task),
            "task_done_cb": lambda task, fl_ctx: self._note("done", task),
        }
        self.task = Task(name, Shareable(), timeout=timeout, **callbacks)

    def _note(self, what: str, whom: Any) -> None:
        self.lines.append(f"{what} {self.status if isinstance(whom, Task) else whom.client.name}")
        if (act := self._acts.get(what)) is not None:
            act(whom)

    @property
    def status(self) -> str:
        """How the task ended; "" while it stands."""
        return "" if self.task.completion_status is None else self.task.completion_status.name
