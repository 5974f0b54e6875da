"""Executor: what serves tasks at a site."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.signal import Signal


class Executor(FLComponent, ABC):
    """Serves the tasks that the app's configuration names."""

    @abstractmethod
    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The site's result of a task."""
