"""A weighted mean by name, in float64 and one contribution at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np


class WeightedAggregationHelper:
    """Adds weighted contributions up. Names that match `exclude_vars` are left out; each name's mean is over those that had it."""

    def __init__(self, exclude_vars: str | None = None) -> None:
        self.exclude_vars = re.compile(exclude_vars) if exclude_vars else None
        self.reset_stats()

    def reset_stats(self) -> None:
        """Forget what was added."""
        self.total: dict[str, Any] = {}
        self.counts: dict[str, float] = {}
        self.kinds: dict[str, np.dtype[Any]] = {}
        self.history: list[dict[str, Any]] = []

    def add(self, data: Mapping[str, Any], weight: float, contributor_name: str, contribution_round: int) -> None:
        """Add one contribution.

        Raises:
            ValueError: an array has another shape than those before; nothing was added.
        """
        if (why := self.mismatch(data)) is not None:
            raise ValueError(f"{contributor_name!r}: {why}")
        given = self._wanted(data)
        for name, value in given.items():
            added = np.multiply(value, weight, dtype=np.float64)
            if name in self.total:
                self.total[name] += added
            else:
                self.total[name], self.kinds[name] = added, value.dtype
            self.counts[name] = self.counts.get(name, 0.0) + weight
        self.history.append({"contributor_name": contributor_name, "round": contribution_round, "weight": weight})

    def mismatch(self, data: Mapping[str, Any]) -> str | None:
        """Which array has another shape than those before; None if none has."""
        for name, value in self._wanted(data).items():
            if name in self.total and self.total[name].shape != value.shape:
                return f"{name!r} has shape {list(value.shape)}, and before it had {list(self.total[name].shape)}"
        return None

    def get_result(self) -> dict[str, Any]:
        """The weighted means, with the dtypes that came where those are floats; all is forgotten then."""
        made = {}
        for name, total in self.total.items():
            mean = total / self.counts[name]
            made[name] = mean.astype(self.kinds[name]) if self.kinds[name].kind == "f" else mean
        self.reset_stats()
        return made

    def get_history(self) -> list[dict[str, Any]]:
        return self.history

    def get_len(self) -> int:
        return len(self.history)

    def _wanted(self, data: Mapping[str, Any]) -> dict[str, Any]:
        left_out = self.exclude_vars
        return {name: np.asarray(value) for name, value in data.items() if left_out is None or not left_out.search(name)}
