"""ModelProcessor: weights out of a framework's model, and into it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from hansa.compat.flare.apis.fl_component import FLComponent
from hansa.compat.flare.app_common.abstract.learnable import Learnable


class ModelProcessor(FLComponent, ABC):
    """Extracts and applies weights."""

    @abstractmethod
    def extract_model(
        self, network: Any, multi_processes: bool = False, model_vars: Any = None, fl_ctx: Any = None
    ) -> Learnable: ...

    @abstractmethod
    def apply_model(self, network: Any, multi_processes: bool, model_params: Any, fl_ctx: Any, options: Any = None) -> None: ...
