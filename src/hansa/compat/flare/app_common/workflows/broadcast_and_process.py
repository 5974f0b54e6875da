"""BroadcastAndProcess: one broadcast, and a processor for the answers."""

from __future__ import annotations

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.impl.controller import ClientTask, Controller, Task
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal
from hansa.compat.flare.app_common.abstract.response_processor import ResponseProcessor
from hansa.compat.flare.app_common.workflows.parts import aborted, natural, part


class BroadcastAndProcess(Controller):
    """Broadcasts the processor's data to the clients (None: all). An answer that it does not take ends the run.

    processor: a ResponseProcessor, or the id of one.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        processor: str | ResponseProcessor,
        task_name: str,
        min_responses_required: int = 0,
        wait_time_after_min_received: int = 10,
        timeout: int = 0,
        clients: list[str] | None = None,
        task_check_period: float = 0.5,
    ) -> None:
        super().__init__(task_check_period)
        if not isinstance(processor, str | ResponseProcessor):
            raise TypeError(f"processor must be a ResponseProcessor or its id, but got {type(processor)}")
        if not task_name:
            raise ValueError("task_name must not be empty")
        for given, what in (
            (min_responses_required, "min_responses_required"),
            (wait_time_after_min_received, "wait_time_after_min_received"),
            (timeout, "timeout"),
        ):
            natural(given, what)
        self._given, self.task_name, self.clients = processor, task_name, clients
        self._least, self._grace_s, self._timeout = min_responses_required, wait_time_after_min_received, timeout
        self.processor: ResponseProcessor

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Find the processor."""
        given = self._given
        self.processor = part(fl_ctx, given, ResponseProcessor, "processor") if isinstance(given, str) else given

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Ask, and let the processor finish."""
        data: object = self.processor.create_task_data(self.task_name, fl_ctx)
        if not isinstance(data, Shareable):
            self.system_panic(f"the processor's task data must be a Shareable, but they are {type(data)}", fl_ctx)
            return
        task = Task(self.task_name, data, timeout=self._timeout, result_received_cb=self._received)
        self.broadcast_and_wait(task, fl_ctx, self.clients, self._least, self._grace_s, abort_signal)
        if not aborted(abort_signal) and not self.processor.final_process(fl_ctx):
            self.system_panic(f"what the clients answered to {self.task_name!r} cannot be processed", fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is held."""

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """What came too late is said in the log, and left out."""
        del client_task_id, result
        self.log_warning(fl_ctx, f"answer of {client.name!r} to {task_name!r} came too late")

    def _received(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        taken = self.processor.process_client_response(client_task.client, self.task_name, client_task.result, fl_ctx)
        if not taken:
            self.system_panic(f"the answer of {client_task.client.name!r} to {self.task_name!r} was not taken", fl_ctx)
