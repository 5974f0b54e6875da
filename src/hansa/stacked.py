"""Values of many clients as one value, whose arrays have a first axis over the clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Stacked(Sequence[Any]):
    """Values of many clients kept as one: `whole` is such a value, whose arrays have a first axis over the clients.

    >>> some = Stacked({"w": np.array([[1, 2], [3, 4]])}, 2)
    >>> some[1], len(some)
    ({'w': array([3, 4])}, 2)
    """

    def __init__(self, whole: Any, count: int) -> None:
        self.whole, self._count = whole, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(self._count)[i]]
        return _of(self.whole, range(self._count)[i])


def _of(whole: Any, i: int) -> Any:
    """One client's value; of a record's column of numbers, the number."""
    if isinstance(whole, np.ndarray):
        return whole[i, ...]
    if isinstance(whole, Mapping):
        return {name: _of(item, i) for name, item in whole.items()}
    return type(whole)(*(item[i].item() if isinstance(item, np.ndarray) and item.ndim == 1 else _of(item, i) for item in whole))
