"""FLModel: what the newer Client API receives and sends."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class ParamsType(StrEnum):
    """Whether parameters are whole, or what has changed."""

    FULL = "FULL"
    DIFF = "DIFF"


class FLModel:
    """Parameters by name, metrics by name, and of which round.

    Raises:
        ValueError: there is nothing in it, or params_type is none.
    """

    def __init__(
        self,
        params_type: ParamsType | str | None = None,
        params: dict[str, Any] | None = None,
        optimizer_params: dict[str, Any] | None = None,
        metrics: dict[str, float] | None = None,
        start_round: int | None = 0,
        current_round: int | None = None,
        total_rounds: int | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        if params is None and metrics is None:
            raise ValueError("an FLModel has params or metrics")
        self.params_type = None if params is None else ParamsType(params_type or ParamsType.FULL)
        self.params, self.optimizer_params, self.metrics = params, optimizer_params, metrics
        self.start_round, self.current_round, self.total_rounds = start_round, current_round, total_rounds
        self.meta: dict[str, Any] = dict(meta or {})
