"""Bounding the size of an update."""

from __future__ import annotations

import math

import numpy as np

from hansa.core import trees
from hansa.core.trees import Tree
from hansa.errors import ConfigError, NotFiniteError


def clip(update: Tree, *, norm: float) -> tuple[Tree, bool]:
    """Scale an update so that its L2 norm, over all floating leaves together, is at most `norm` (to the rounding of its dtypes).

    Returns the update and whether it was scaled. Leaves keep shape and dtype; the norm is taken in float64. Integer and boolean
    leaves (batch norm's num_batches_tracked) count something: they take no part in the norm, are not scaled, and so not bounded.

    >>> clip({"w": np.array([3.0, 4.0])}, norm=1.0)
    ({'w': array([0.6, 0.8])}, True)

    Raises:
        ConfigError: `norm` is not a finite number > 0.
        NotFiniteError: an entry is inf or NaN; names the leaf. A poisoned update must not be averaged away.
    """
    if not (math.isfinite(norm) and norm > 0):
        raise ConfigError("not a norm to clip to", path="norm", expected="a finite number > 0", got=norm)
    moving = {path: leaf for path, leaf in trees.leaves(update) if leaf.dtype.kind not in "iub"}
    with np.errstate(over="ignore", invalid="ignore"):
        size = trees.norm(moving)
    if not math.isfinite(size):
        bad = next((path for path, leaf in moving.items() if not np.isfinite(leaf).all()), None)
        raise NotFiniteError("the update's norm is not finite", path=bad, expected="finite numbers", got=f"norm {size:g}")
    if size <= norm:
        return update, False
    return trees.merge(update, trees.scale(moving, norm / size)), True
