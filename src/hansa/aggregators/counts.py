"""Counts that no site can inflate: the streaming aggregators below composed ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hansa.core.trees import Tree
from hansa.errors import SpecError


@dataclass(frozen=True, slots=True)
class Count:
    """How many clients sent a number, as int32; with `positive`, how many sent one above 0. Whatever it is, each counts once.

    >>> count = Count(positive=True)
    >>> count.finish(count.add(count.add(0, {"value": np.int32(5)}), {"value": np.int32(0)}))
    {'value': array(1, dtype=int32)}
    """

    positive: bool = False

    def zero(self, like: Tree) -> int:  # noqa: ARG002  the protocol's
        """None so far."""
        return 0

    def add(self, acc: int, update: Tree, weight: float = 1.0) -> int:  # noqa: ARG002  the protocol's
        """One more, if it counts.

        Raises:
            SpecError: it is no single number.
        """
        leaf = np.asarray(update.get("value"))
        if leaf.shape != () or leaf.dtype.kind not in "iuf":
            raise SpecError(
                "what is counted is one number of each site", expected="a number", got=f"{leaf.dtype}{list(leaf.shape)}"
            )
        return acc + int(not self.positive or leaf > 0)

    def merge(self, left: int, right: int) -> int:
        """Both."""
        return left + right

    def finish(self, acc: int | None) -> dict[str, Any]:
        """The count; 0 where nobody answered."""
        return {"value": np.asarray(acc or 0, np.int32)}
