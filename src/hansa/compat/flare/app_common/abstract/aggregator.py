"""Aggregator: from contributions to one result."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class Aggregator(FLComponent, ABC):
    """Takes contributions in, and gives their aggregate."""

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget what was accepted."""

    @abstractmethod
    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Whether the contribution was taken in."""

    @abstractmethod
    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The aggregate of what was accepted since the last time."""
