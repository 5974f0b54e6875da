"""ResponseProcessor: what is asked in a broadcast, and what is done with the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class ResponseProcessor(FLComponent, ABC):
    """Makes the data of one broadcast, and takes the answers in."""

    @abstractmethod
    def create_task_data(self, task_name: str, fl_ctx: FLContext) -> Shareable: ...

    @abstractmethod
    def process_client_response(self, client: Client, task_name: str, response: Shareable, fl_ctx: FLContext) -> bool: ...

    @abstractmethod
    def final_process(self, fl_ctx: FLContext) -> bool: ...
