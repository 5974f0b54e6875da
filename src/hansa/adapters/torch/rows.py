"""A site's rows as batches of tensors, in the order that the site's stream draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from hansa.adapters.torch.objective import Targets
from hansa.adapters.training import require_targets
from hansa.core.trees import Array, Leaf
from hansa.errors import DataError

_NATIVE = (torch.float32, torch.float64, torch.int64)
_WINDOW_BYTES = 1 << 20  # of rows gathered ahead, for several steps in one copy that stays in the cache


def input_dtype(x: Array, floats: torch.dtype) -> torch.dtype:
    """Floats become the model's; so do booleans and uint8, whose values stay 0 to 255; other integers are int64 (token ids).

    Raises:
        DataError: not numbers.
    """
    if x.dtype.kind == "f" or x.dtype in (np.uint8, np.bool_):
        return floats
    if x.dtype.kind in "iu":
        return torch.int64
    raise DataError("rows must be numbers", path="x", got=Leaf(x.dtype, x.shape), hint="cast them, for example to float32")


def target_dtype(y: Array, floats: torch.dtype, targets: Targets) -> torch.dtype:
    """Labels are int64 and values are the model's floats; under a loss that is not known, y's own kind decides.

    Raises:
        DataError: not numbers; or class labels that are floats.
    """
    if y.dtype.kind not in "iubf":
        raise DataError("targets must be numbers", path="y", got=Leaf(y.dtype, y.shape), hint="number the classes from 0")
    if targets == "labels" and y.dtype.kind == "f" and y.ndim == 1:
        raise DataError("class labels must be integers", path="y", got=Leaf(y.dtype, y.shape), hint="y.astype('int64')")
    return floats if targets == "values" or y.dtype.kind == "f" else torch.int64


class Rows:
    """Batches of x and y on a device. On the CPU they are gathered from the arrays; elsewhere all rows are moved there first.

    Raises:
        DataError: x or y are not what the model and the loss can take.
    """

    def __init__(self, x: Array, y: Array | None, *, floats: torch.dtype, device: torch.device, targets: Targets) -> None:
        self._columns = [(_native(x), input_dtype(x, floats))]
        if y is not None:
            require_targets(x, y)
            self._columns.append((_native(y), target_dtype(y, floats, targets)))
        self._row_bytes = sum(values.nbytes // (len(values) or 1) for values, _ in self._columns)
        self._device = device
        self._moved = (
            [] if device.type == "cpu" else [self._take(i, np.arange(len(x))).to(device) for i in range(len(self._columns))]
        )

    def batch(self, index: Array) -> list[Tensor]:
        """x, and y if there is one, of the rows with these numbers."""
        if not self._moved:
            return [self._take(i, index) for i in range(len(self._columns))]
        chosen = torch.from_numpy(index).to(self._device)
        return [column.index_select(0, chosen) for column in self._moved]

    def batches(self, epochs: Iterable[Array], *, size: int) -> Iterator[list[Tensor]]:
        """x, and y, of each step: an epoch's rows cut into batches of `size`, 0 for one batch. Several are gathered in one copy."""
        for rows in epochs:
            step = size or len(rows)
            window = step * max(1, _WINDOW_BYTES // max(1, step * self._row_bytes))
            for first in range(0, len(rows), window):
                columns = self.batch(rows[first : first + window])
                # Tensors of their own: what a model does in place to one batch must not tie the others to its graph.
                arrays = [] if self._moved else [column.numpy() for column in columns if column.dtype in _NATIVE]
                for start in range(0, len(columns[0]), step):
                    if len(arrays) == len(columns):  # half the price of a slice and `detach`
                        yield [torch.from_numpy(array[start : start + step]) for array in arrays]
                    else:
                        yield [column[start : start + step].detach() for column in columns]

    def _take(self, column: int, index: Array) -> Tensor:
        # Taking copies, so the tensor has memory of its own and the site's array may be read-only or memory-mapped.
        values, dtype = self._columns[column]
        return torch.from_numpy(values.take(index, axis=0)).to(dtype)


def _native(values: Array) -> Array:
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
