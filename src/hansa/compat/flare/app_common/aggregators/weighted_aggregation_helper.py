"""A weighted mean by name, one contribution at a time: the mean of our own aggregation, in float64."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.aggregation.accumulate import Accumulator
from hansa.aggregation.mean import Mean

_MEAN = Mean()


class WeightedAggregationHelper:
    """Adds weighted contributions up. Names that match `exclude_vars` are left out; each name's mean is over those that had it."""

    def __init__(self, exclude_vars: str | None = None) -> None:
        self.exclude_vars = re.compile(exclude_vars) if exclude_vars else None
        self.reset_stats()

    def reset_stats(self) -> None:
        """Forget what was added."""
        self.total: dict[str, Accumulator] = {}
        self.kinds: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.history: list[dict[str, Any]] = []

    def add(self, data: Mapping[str, Any], weight: float, contributor_name: str, contribution_round: int) -> None:
        """Add one contribution.

        Raises:
            ValueError: an array has another shape than those before; nothing was added.
        """
        if (why := self.mismatch(data)) is not None:
            raise ValueError(f"{contributor_name!r}: {why}")
        for name, value in self._wanted(data).items():
            if name not in self.total:
                kind = value.dtype if value.dtype.kind == "f" else np.dtype(np.float64)  # the mean of counts is no count
                self.kinds[name] = value.shape, kind
                self.total[name] = _MEAN.zero({"of": np.empty(value.shape, kind)})
            given = np.asarray(value, self.kinds[name][1])
            self.total[name] = _MEAN.add(self.total[name], {"of": given}, weight)
        self.history.append({"contributor_name": contributor_name, "round": contribution_round, "weight": weight})

    def get_result(self) -> dict[str, Any]:
        """The weighted means, with the dtypes that came where those are floats; all is forgotten then."""
        made = {name: _MEAN.finish(total)["of"] for name, total in self.total.items()}
        self.reset_stats()
        return made

    def get_history(self) -> list[dict[str, Any]]:
        return self.history

    def get_len(self) -> int:
        return len(self.history)

    def mismatch(self, data: Mapping[str, Any]) -> str | None:
        """Which array has another shape than those before; None if none has."""
        for name, value in self._wanted(data).items():
            if name in self.kinds and self.kinds[name][0] != value.shape:
                return f"{name!r} has shape {list(value.shape)}, and before it had {list(self.kinds[name][0])}"
        return None

    def _wanted(self, data: Mapping[str, Any]) -> dict[str, Any]:
        left_out = self.exclude_vars
        return {name: np.asarray(value) for name, value in data.items() if left_out is None or not left_out.search(name)}
