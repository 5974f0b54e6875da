"""What components at a site may ask of the framework."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from hansa.compat.flare.apis.engine_spec import EngineSpec


class ClientEngineSpec(EngineSpec):
    """The framework at a site."""

    @abstractmethod
    def get_all_components(self) -> dict[str, Any]: ...
