from typing import NamedTuple

import numpy as np

import hansa as hs


class Counted(NamedTuple):
    mean: np.float32
    rows: np.int32


@hs.local_computation(hs.SequenceType(np.float32))
def count(readings: list[np.float32]) -> Counted:
    return Counted(np.float32(np.mean(readings)), np.int32(len(readings)))


@hs.federated_computation(hs.FederatedType(hs.SequenceType(np.float32), hs.CLIENTS))
def average(readings: list[np.float32]) -> np.float32:
    counted = hs.federated_map(count, readings)
    return hs.federated_mean(counted.weight)  # E: "Counted" has no attribute "weight"


@hs.federated_computation(hs.FederatedType(hs.SequenceType(np.float32), hs.CLIENTS))
def rows(readings: list[np.float32]) -> np.float32:
    return hs.federated_sum(hs.federated_map(count, readings).rows)  # E: Argument 1 to "federated_sum" has incompatible type


number: int = count([1.0])  # E: Incompatible types in assignment (expression has type "Counted", variable has type "int")
hs.local_computation(np.float32, backend=3)  # E: No overload variant of "local_computation" matches argument types
hs.local_computation(np.float32, framework="torch")  # E: No overload variant of "local_computation" matches argument types
hs.federated_map(hs.to_type(np.float32), 1)  # E: Argument 1 to "federated_map" has incompatible type "Type"
