"""A site's rows as matrices, refused with the column or the label that cannot be trained on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hansa.core.trees import Array
from hansa.errors import DataError


def matrix(x: Array, *, features: int, dtype: np.dtype[Any]) -> Array:
    """Rows (n, ...) as (n, features) of `dtype`; a view where nothing has to change.

    Raises:
        DataError: another number of features.
    """
    x = np.asarray(x)
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    if flat.shape[1] != features:
        raise DataError("rows do not fit the model", path="x", expected=f"{features} features", got=flat.shape[1])
    return flat.astype(dtype, copy=False)


def require_finite(x: Array, *, path: str = "x") -> None:
    """Return if every entry of rows (n, features) is finite.

    Raises:
        DataError: one is NaN or infinite: names the first such column.
    """
    # One NaN or infinity anywhere makes the sum one too: a pass over the rows, without an array of booleans.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(x.sum())
    if suspicious and not (finite := np.isfinite(x).all(axis=0)).all():
        column = int(np.argmin(finite))
        raise DataError(
            "an entry is NaN or infinite",
            path=f"{path} column {column}",
            expected="finite numbers",
            got=f"{int((~np.isfinite(x[:, column])).sum())} of {len(x)} rows",
            hint="impute and scale by a federated statistics round: algorithm.standardise = true, in Python standardise=True",
        )


def labels(y: Array, *, rows: int, classes: int) -> Array:
    """Labels (n,) or (n, 1) as int64.

    Raises:
        DataError: another number of labels than rows, or a label that is not one of 0 ... classes - 1: names the first.
    """
    y = np.asarray(y).ravel()
    if len(y) != rows:
        raise DataError("each row needs one label", path="y", expected=rows, got=len(y))
    if y.dtype.kind not in "iubf":
        raise DataError("labels must be numbers", path="y", expected=f"0 to {classes - 1}", got=y.dtype.name)
    if y.dtype.kind == "f":
        whole: Array = np.nan_to_num(y, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
        wrong = (whole < 0) | (whole >= classes) | (whole != y)
    else:
        whole = y.astype(np.int64, copy=False)
        if not len(whole) or whole.view(np.uint64).max() < classes:  # as unsigned, a negative label is a huge one
            return whole
        wrong = (whole < 0) | (whole >= classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError("a label is not a class of the model", path=f"y row {row}", expected=f"0 to {classes - 1}", got=y[row])
    return whole
