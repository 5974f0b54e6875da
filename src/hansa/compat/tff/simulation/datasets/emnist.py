"""`tff.simulation.datasets.emnist`: handwritten digits by writer. Not EMNIST itself: clients share MNIST, unlike labels each."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import numpy as np

from hansa.compat.tff.simulation.datasets.client_data import ClientData
from hansa.compat.tff.simulation.datasets.rows import client_data
from hansa.core.protocols import Dataset
from hansa.data import datasets, partition
from hansa.data.rows import Rows
from hansa.errors import DataError

CLIENTS, ALPHA = 600, 0.5


def load_data(only_digits: bool = True, cache_dir: str | None = None) -> tuple[ClientData, ClientData]:
    """MNIST's training and test pictures as 600 clients of about 100 pictures, whose labels differ (Dirichlet 0.5).

    Elements are `label` int32 and `pixels` float32[28,28] from 0 (ink, unlike in MNIST) to 1. MNIST is looked for in `cache_dir`,
    else in the folder that the environment variable HANSA_DATA names; see `hansa.data.datasets.mnist`.

    Raises:
        DataError: it is not there, or letters are asked for.
    """
    if not only_digits:
        raise DataError("there are digits only", path="only_digits", expected="True")
    rows = datasets.mnist(folder=cache_dir or os.environ.get("HANSA_DATA"))
    return _clients(rows, CLIENTS)


def get_synthetic() -> ClientData:
    """scikit-learn's digits, enlarged to 28x28, as 20 clients: no download, no file.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    rows = datasets.digits()
    large = np.pad(np.kron(rows.x, np.ones((1, 3, 3), np.float32)), ((0, 0), (2, 2), (2, 2)))
    return _clients(Rows(large, rows.y, parts=np.zeros(len(rows), np.int8)), 20)[0]


def _clients(rows: Rows, count: int) -> tuple[ClientData, ClientData]:
    sites = partition.dirichlet(rows, sites=count, alpha=ALPHA, seed=0, split=(1, 0, 0))
    train = client_data(sites, "train", _elements)
    return train, client_data(sites, "test", _elements) if rows.parts is not None and (rows.parts == 2).any() else train


def _elements(rows: Dataset) -> dict[str, Any]:
    return OrderedDict(label=rows.y.astype(np.int32), pixels=1 - rows.x)
