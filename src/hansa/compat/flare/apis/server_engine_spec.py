"""What components at the server may ask of the framework."""

from __future__ import annotations

from abc import abstractmethod

from hansa.compat.flare.apis.client import Client
from hansa.compat.flare.apis.engine_spec import EngineSpec


class ServerEngineSpec(EngineSpec):
    """The framework at the server."""

    @abstractmethod
    def get_clients(self) -> list[Client]: ...

    @abstractmethod
    def validate_clients(self, client_names: list[str]) -> tuple[list[Client], list[str]]: ...

    @abstractmethod
    def ask_to_stop(self) -> None: ...
