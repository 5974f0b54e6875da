"""Formatter: something in a context as text."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext


class Formatter(FLComponent, ABC):
    """Makes text of what a context holds."""

    @abstractmethod
    def format(self, fl_ctx: FLContext) -> str: ...
