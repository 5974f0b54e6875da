"""ShareableGenerator: between a learnable and task data."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.apis.fl_context import FLContext
from hansa.compat.flare.apis.shareable import Shareable
from hansa.compat.flare.app_common.abstract.learnable import Learnable


class ShareableGenerator(FLComponent, ABC):
    """Makes task data of a learnable, and a learnable of results."""

    @abstractmethod
    def learnable_to_shareable(self, model: Learnable, fl_ctx: FLContext) -> Shareable: ...

    @abstractmethod
    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Learnable: ...
