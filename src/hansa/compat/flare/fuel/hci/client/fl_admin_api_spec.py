"""What the admin API takes and gives."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from hansa.compat.flare.fuel.hci.client.api_status import APIStatus


class TargetType(StrEnum):
    """Whom a verb is for."""

    ALL = "all"
    SERVER = "server"
    CLIENT = "client"


class FLAdminAPIResponse(dict[str, Any]):
    """`status`, `details` (facts, by name) and `raw` (what a person would read)."""

    def __init__(self, status: APIStatus, details: dict[str, Any] | None = None, raw: str = "") -> None:
        super().__init__(status=status, details=details or {}, raw=raw)
