"""Responder: what the framework asks of a workflow at the server."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal


class Responder(FLComponent, ABC):
    """Gives tasks to clients that ask, and takes what they submit."""

    @abstractmethod
    def initialize_run(self, fl_ctx: FLContext) -> None: ...

    @abstractmethod
    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None: ...

    @abstractmethod
    def process_task_request(self, client: Client, fl_ctx: FLContext) -> tuple[str, str, Shareable | None]: ...

    @abstractmethod
    def handle_exception(self, task_id: str, fl_ctx: FLContext) -> None: ...

    @abstractmethod
    def process_submission(self, client: Client, task_name: str, task_id: str, result: Shareable, fl_ctx: FLContext) -> None: ...

    @abstractmethod
    def finalize_run(self, fl_ctx: FLContext) -> None: ...
