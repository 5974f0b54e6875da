"""Client: a site, as the server's components know it."""

from __future__ import annotations

from typing import Any


class Client:
    """A site by name."""

    def __init__(self, name: str, token: str) -> None:
        self.name = name
        self.token = token
        self.props: dict[str, Any] = {}

    def set_token(self, token: str) -> None:
        self.token = token

    def get_token(self) -> str:
        return self.token

    def set_prop(self, name: str, value: Any) -> None:
        self.props[name] = value

    def get_prop(self, name: str, default: Any = None) -> Any:
        return self.props.get(name, default)
