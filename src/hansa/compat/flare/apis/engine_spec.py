"""What components of either side may ask of the framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.apis.workspace import Workspace


class EngineSpec(ABC):
    """The framework at one place, as `fl_ctx.get_engine()` gives it."""

    @abstractmethod
    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None: ...

    @abstractmethod
    def send_fed_event(self, event_type: str, event_data: Shareable, targets: list[str] | None = None) -> None: ...

    @abstractmethod
    def new_context(self) -> FLContext: ...

    @abstractmethod
    def get_workspace(self) -> Workspace: ...

    @abstractmethod
    def get_component(self, component_id: str) -> Any: ...
