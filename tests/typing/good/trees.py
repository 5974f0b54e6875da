"""A tree is a nested mapping of arrays: plain dicts are accepted, and results can be edited."""

import numpy as np

from hansa import Spec, Tree
from hansa.core import trees


def mean(left: Tree, right: Tree) -> Tree:
    return trees.scale(trees.add(left, right), 0.5)


flat: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] = {"weight": np.ones(2, np.float32)}
nested: Tree = {"head": {"weight": np.ones((2, 3))}, "bias": np.zeros(1)}
spec: Spec = Spec.of(mean(flat, nested))
size: int = spec.nbytes
