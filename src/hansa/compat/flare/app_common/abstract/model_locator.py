"""ModelLocator: the server's models by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.dxo import DXO
from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext


class ModelLocator(FLComponent, ABC):
    """Finds models."""

    @abstractmethod
    def get_model_names(self, fl_ctx: FLContext) -> list[str]: ...

    @abstractmethod
    def locate_model(self, model_name: str, fl_ctx: FLContext) -> DXO: ...
