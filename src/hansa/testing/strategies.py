"""Hypothesis strategies for trees, their specs, and updates that share a spec."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from hansa.core.trees import Array, Leaf, Spec, unflatten
from hansa.errors import MissingExtraError

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError:
    raise MissingExtraError("hypothesis", extra="dev") from None

Weighted: TypeAlias = tuple[dict[str, Any], float]

FLOATS = ("float16", "float32", "float64")
DTYPES = (*FLOATS, "int64", "int32", "uint8", "bool")
_KEYS = ("a", "b", "head", "1.weight", "ü")
_BRANCHES = ("A", "HEAD")  # never a leaf's name, so that no path runs through a leaf


def specs(*, dtypes: tuple[str, ...] = DTYPES, min_leaves: int = 1, max_leaves: int = 4) -> st.SearchStrategy[Spec]:
    """Specs of up to `max_leaves` leaves, one or two keys deep, with zero to three axes of 0 to 3 entries each."""
    keys = st.sampled_from(_KEYS)
    paths = keys | st.builds("{}/{}".format, st.sampled_from(_BRANCHES), keys)
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    leaf = st.builds(Leaf, st.sampled_from(dtypes).map(np.dtype), shapes)
    made = st.dictionaries(paths, leaf, min_size=min_leaves, max_size=max_leaves)
    return made.map(lambda found: Spec(tuple(sorted(found.items(), key=lambda item: item[0]))))


def trees(
    spec: Spec | None = None, *, dtypes: tuple[str, ...] = DTYPES, max_leaves: int = 4, bound: int = 1000
) -> st.SearchStrategy[dict[str, Any]]:
    """Trees of the spec, or of any spec: finite entries from -bound to bound, as far as the leaf's dtype goes."""
    if spec is None:
        return specs(dtypes=dtypes, max_leaves=max_leaves).flatmap(lambda found: trees(found, bound=bound))
    return st.fixed_dictionaries({path: _arrays(leaf, bound) for path, leaf in spec.items}).map(unflatten)


def updates(
    spec: Spec | None = None,
    *,
    dtypes: tuple[str, ...] = DTYPES,
    min_size: int = 1,
    max_size: int = 5,
    bound: int = 1000,
    max_weight: float = 1000.0,
) -> st.SearchStrategy[list[Weighted]]:
    """Lists of (update, weight), in slot order, whose updates share one spec; weights lie in [0.001, max_weight]."""
    if spec is None:
        return specs(dtypes=dtypes).flatmap(
            lambda found: updates(found, min_size=min_size, max_size=max_size, bound=bound, max_weight=max_weight)
        )
    weighted = st.tuples(trees(spec, bound=bound), st.floats(0.001, max_weight))
    return st.lists(weighted, min_size=min_size, max_size=max_size)


def _arrays(leaf: Leaf, bound: int) -> st.SearchStrategy[Array]:
    return hnp.arrays(leaf.dtype, leaf.shape, elements=_entries(leaf.dtype, bound))


def _entries(dtype: np.dtype[Any], bound: int) -> st.SearchStrategy[Any]:
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return st.integers(max(int(info.min), -bound), min(int(info.max), bound))
    widths: dict[int, Literal[16, 32, 64]] = {2: 16, 4: 32, 8: 64}
    return st.floats(-bound, bound, width=widths[dtype.itemsize], allow_nan=False, allow_infinity=False)
