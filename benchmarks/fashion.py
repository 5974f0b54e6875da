"""Fashion-MNIST for the workloads: from the folder named by HANSA_DATA, else noise of the same shape, which takes the same time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hansa.core.rng import generator
from hansa.core.trees import Array
from hansa.data.federated import FederatedRows, Rows, population

FILE = "fashion_mnist_12k.npz"


def source() -> str:
    """What the rows are, for the record."""
    return FILE if _path() else "noise of Fashion-MNIST's shape (set HANSA_DATA for the real one)"


def rows(count: int) -> tuple[Array, Array]:
    """x (count, 784) float32 from 0 to 1 and y (count,) int64 from 0 to 9; a smaller set is repeated."""
    path = _path()
    if path is None:
        rng = generator(0, purpose="fashion")
        return rng.random((count, 784), np.float32), rng.integers(0, 10, count)
    with np.load(path) as file:
        x = file["x_train"].reshape(-1, 784).astype(np.float32) / 255
        y = file["y_train"].astype(np.int64)
    times = -(-count // len(x))
    return np.tile(x, (times, 1))[:count], np.tile(y, times)[:count]


def clients(x: Array, y: Array, *, each: int, registered: int | None = None) -> FederatedRows:
    """Clients of `each` consecutive rows; where more are registered than the rows suffice for, they share them."""
    distinct = len(x) // each

    def load(slot: int) -> Rows:
        first = slot % distinct * each
        return Rows(x[first : first + each], y[first : first + each])

    return population(registered or distinct, load)


def _path() -> Path | None:
    folder = os.environ.get("HANSA_DATA")
    path = Path(folder) / FILE if folder else None
    return path if path and path.is_file() else None
