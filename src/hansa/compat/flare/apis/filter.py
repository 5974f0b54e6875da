"""Filter: a step on task data or results."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable


class Filter(FLComponent, ABC):
    """A step on task data or results, at the server or at a site."""

    @abstractmethod
    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """What goes on in place of the shareable."""
