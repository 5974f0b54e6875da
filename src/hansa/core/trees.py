"""A Tree is a nested mapping of arrays; a Spec says which leaves it has, of what dtype and shape.

A leaf is addressed by its path: the keys from the root joined by `/` ("head/weight"). A key is a non-empty string without
`/`; a framework's own name with dots ("1.weight") is one key. Functions return new trees and never touch their arguments.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hansa.errors import SpecError

Array: TypeAlias = NDArray[Any]
if TYPE_CHECKING:
    Tree: TypeAlias = Mapping[str, Array | "Tree"]
else:
    Tree = Mapping[str, Any]  # without the forward reference, which cannot be pickled with a function that names it


def leaves(tree: Tree) -> Iterator[tuple[str, Array]]:
    """Each leaf with its path, in the order of the mapping.

    >>> [path for path, _ in leaves({"head": {"weight": np.ones(2)}, "bias": np.zeros(1)})]
    ['head/weight', 'bias']
    """
    for key, value in tree.items():
        # The usual type first: to ask an abstract class costs as much as the arithmetic of a small leaf.
        if type(value) is not np.ndarray and isinstance(value, Mapping):
            for path, leaf in leaves(value):
                yield f"{key}/{path}", leaf
        else:
            yield key, value


def flatten(tree: Tree) -> dict[str, Array]:
    """A new flat dict from path to leaf; the arrays are shared."""
    return dict(leaves(tree))


def unflatten(flat: Mapping[str, Array]) -> dict[str, Any]:
    """The nested tree of a flat mapping from path to leaf.

    Raises:
        SpecError: a path is empty, has an empty part, or is both a leaf and a branch.
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *branch, last = path.split("/")
        node = tree
        for key in branch:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise SpecError("a path goes through a leaf", path=path)
        if not all((*branch, last)) or last in node:
            raise SpecError("a path is empty, or names a leaf twice", path=path)
        node[last] = leaf
    return tree


def map(fn: Callable[..., Array], tree: Tree, *others: Tree) -> dict[str, Any]:  # noqa: A001  read as trees.map
    """`fn` applied leaf by leaf; the trees must have the same keys.

    >>> map(np.add, {"a": np.ones(2)}, {"a": np.ones(2)})
    {'a': array([2., 2.])}

    Raises:
        SpecError: the keys differ; names the first path that is not in all of them.
    """
    out: dict[str, Any] = {}
    for key, value in tree.items():
        try:
            rest = [other[key] for other in others]
        except (KeyError, TypeError, IndexError):
            raise SpecError("trees with different keys cannot be combined", path=key) from None
        if type(value) is not np.ndarray and isinstance(value, Mapping):
            out[key] = map(fn, value, *cast("list[Tree]", rest))
        else:
            out[key] = fn(value, *rest)
    for other in others:
        if len(other) > len(tree):  # each has all keys of the first
            extra = other.keys() - tree.keys()
            raise SpecError("trees with different keys cannot be combined", path=sorted(extra)[0])
    return out


def add(left: Tree, right: Tree) -> dict[str, Any]:
    """left + right, in the dtype of left's leaves."""
    return map(lambda a, b: np.add(a, b, dtype=a.dtype, casting="unsafe"), left, right)


def subtract(left: Tree, right: Tree) -> dict[str, Any]:
    """left - right, in the dtype of left's leaves."""
    return map(lambda a, b: np.subtract(a, b, dtype=a.dtype, casting="unsafe"), left, right)


def scale(tree: Tree, factor: float) -> dict[str, Any]:
    """Each leaf times `factor`, taken in float64 and cast back; integer leaves are rounded to nearest even."""
    return map(lambda a: cast_like(np.multiply(a, factor, dtype=np.float64), a.dtype), tree)


def cast_like(wide: Array, dtype: np.dtype[Any]) -> Array:
    """A wide array in a narrower dtype: one rounding for floats, round-half-even for integers and booleans."""
    if wide.dtype == dtype:
        return wide
    if dtype.kind in "iub":
        wide = np.rint(wide)
    return wide.astype(dtype)


def zeros(tree: Tree) -> dict[str, Any]:
    """A tree of zeros with the same leaves."""
    return map(np.zeros_like, tree)


def copy(tree: Tree) -> dict[str, Any]:
    """A tree with its own arrays."""
    return map(lambda a: np.array(a, copy=True), tree)


def norm(tree: Tree) -> float:
    """The L2 norm over all leaves together, in float64."""
    total = 0.0
    for _, leaf in leaves(tree):
        flat = np.asarray(leaf, dtype=np.float64).ravel()
        total += float(flat @ flat)
    return float(np.sqrt(total))


def nbytes(tree: Tree) -> int:
    """Bytes of all leaves."""
    return sum(
        [leaf.nbytes if type(leaf) is np.ndarray or not isinstance(leaf, Mapping) else nbytes(leaf) for leaf in tree.values()]
    )


def equal(left: Tree, right: Tree) -> bool:
    """Whether both have the same paths and the same bits."""
    a, b = flatten(left), flatten(right)
    return a.keys() == b.keys() and all(
        x.dtype == b[path].dtype and x.shape == b[path].shape and x.tobytes() == b[path].tobytes() for path, x in a.items()
    )


def split(tree: Tree, patterns: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The leaves whose path matches one of the shell patterns, and the others.

    >>> chosen, rest = split({"head.w": np.ones(1), "body.w": np.ones(1)}, ["head.*"])
    >>> list(chosen), list(rest)
    (['head.w'], ['body.w'])
    """
    wanted = tuple(patterns)
    chosen: dict[str, Array] = {}
    rest: dict[str, Array] = {}
    for path, leaf in leaves(tree):
        (chosen if any(fnmatch.fnmatchcase(path, p) for p in wanted) else rest)[path] = leaf
    return unflatten(chosen), unflatten(rest)


def merge(left: Tree, right: Tree) -> dict[str, Any]:
    """The union of two trees; a leaf of `right` replaces one of `left` with the same path."""
    return unflatten({**flatten(left), **flatten(right)})


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf: its dtype and shape; prints as `float32[10,64]`."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return self.dtype.name + (f"[{','.join(str(n) for n in self.shape)}]" if self.shape else "")


@dataclass(frozen=True, slots=True)
class Spec:
    """The leaves of a tree by path, sorted.

    >>> print(Spec.of({"head": {"weight": np.ones((2, 3), np.float32)}}))
    <head/weight=float32[2,3]>
    """

    items: tuple[tuple[str, Leaf], ...]

    @staticmethod
    def of(tree: Tree) -> Spec:
        """The spec of a tree."""
        return Spec(tuple(sorted((path, Leaf(np.asarray(leaf).dtype, np.shape(leaf))) for path, leaf in leaves(tree))))

    @property
    def nbytes(self) -> int:
        """Bytes of a tree with this spec."""
        return sum(int(np.prod(leaf.shape, dtype=np.int64)) * leaf.dtype.itemsize for _, leaf in self.items)

    def __str__(self) -> str:
        return "<" + ",".join(f"{path}={leaf}" for path, leaf in self.items) + ">"

    def check(self, tree: object, *, path: str = "") -> None:
        """Return if the tree has exactly these leaves.

        Raises:
            SpecError: a leaf is missing, extra, or of another dtype or shape; names the first in sorted order.
        """
        if type(tree) is dict and len(tree) == len(self.items):
            for name, want in self.items:
                value = tree.get(name)
                if type(value) is not np.ndarray or value.shape != want.shape or value.dtype != want.dtype:
                    break
            else:
                return
        prefix = f"{path}/" if path else ""
        if type(tree) is not dict and not isinstance(tree, Mapping):
            raise SpecError("not a tree", path=path or None, expected=self, got=type(tree).__name__)
        found = flatten(tree)
        for name, want in self.items:
            leaf = found.pop(name, None)
            if leaf is None:
                raise SpecError("a leaf is missing", path=prefix + name, expected=want, hint="the site built another model")
            if not isinstance(leaf, np.ndarray | np.generic):
                raise SpecError("a leaf is not an array", path=prefix + name, expected=want, got=type(leaf).__name__)
            if leaf.dtype != want.dtype or leaf.shape != want.shape:
                raise SpecError("a leaf does not fit", path=prefix + name, expected=want, got=Leaf(leaf.dtype, leaf.shape))
        if found:
            raise SpecError("a leaf is not expected", path=prefix + min(found), hint="the site built another model")
