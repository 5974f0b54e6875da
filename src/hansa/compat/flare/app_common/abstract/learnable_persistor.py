"""LearnablePersistor: loads and saves a learnable."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.app_common.abstract.learnable import Learnable


class LearnablePersistor(FLComponent, ABC):
    """Loads and saves a learnable."""

    @abstractmethod
    def load(self, fl_ctx: FLContext) -> Learnable: ...

    @abstractmethod
    def save(self, learnable: Learnable, fl_ctx: FLContext) -> None: ...
