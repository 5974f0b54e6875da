"""Learnable: what a workflow makes better, a dict."""

from __future__ import annotations

from typing import Any


class Learnable(dict[Any, Any]):
    """A dict that can be empty, and be bytes."""

    def is_empty(self) -> bool:
        return not self

    def to_bytes(self) -> bytes:
        """It as bytes, by our own codec."""
        from hansa.compat.flare import wire

        return wire.to_bytes(dict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Any:
        """What `to_bytes` wrote."""
        from hansa.compat.flare import wire

        made = cls()
        made.update(wire.from_bytes(data))
        return made
