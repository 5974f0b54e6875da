"""A local computation without a backend gives what its function says; one with a backend gives NumPy's values."""

from typing import Any, NamedTuple

import numpy as np

import hansa as hs


class Counted(NamedTuple):
    """A client's mean and its number of rows."""

    mean: np.float32
    rows: np.int32


@hs.local_computation(hs.SequenceType(np.float32))
def count(readings: list[np.float32]) -> Counted:
    return Counted(np.float32(np.mean(readings)), np.int32(len(readings)))


@hs.local_computation((np.float32, [None, 4]), backend="numpy")
def means(x: Any) -> Any:
    return x.mean(axis=0)


@hs.federated_computation(hs.FederatedType(hs.SequenceType(np.float32), hs.CLIENTS))
def average(readings: list[np.float32]) -> np.float32:
    counted: Counted = hs.federated_map(count, readings)
    return hs.federated_mean(counted.mean, weight=counted.rows)


scaled = hs.local_computation(lambda x, y: x * y, backend="numpy")
total: Counted = count([1.0, 2.0])
declared = hs.local_computation(lambda x: {"sum": x.sum()}, (np.float32, [2]), returns={"sum": np.float32})
signature: hs.FunctionType = means.type_signature
