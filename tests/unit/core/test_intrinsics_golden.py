"""The intrinsics' typing rules: each row of tests/golden/intrinsics.txt; DIFFERS are meant."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa import sequences
from hansa.core import intrinsics
from hansa.core.computation import Computation, federated_computation
from hansa.core.graph import LocalFunction
from hansa.core.types import CLIENTS, SERVER, FederatedType, SequenceType, StructType, TensorType, to_type
from hansa.errors import TraceError

GOLDEN = Path(__file__).parents[2] / "golden" / "intrinsics.txt"
DIFFERS = {  # docs/tff-differences.md gives the reasons
    "federated_map raw python lambda": "({float32}@CLIENTS -> {?}@CLIENTS)",
    "aggregate wrong zero": "({int32}@CLIENTS -> float64@SERVER)",
    "sequence_reduce federated w/ unplaced zero": "({int32*}@CLIENTS -> {float32}@CLIENTS)",
}


def ext(parameter: object, result: object) -> LocalFunction:
    """A function of one type to another, which is never run."""
    takes = () if parameter is None else (("arg", to_type(parameter)),)
    return LocalFunction(lambda arg: arg, "f", takes, to_type(result))


f32, i32 = np.float32, np.int32
NAMES: dict[str, Any] = {
    **{name: getattr(intrinsics, name) for name in dir(intrinsics) if name.startswith("federated_")},
    **{name: getattr(sequences, name) for name in dir(sequences) if name.startswith(("sequence_", "federated_"))},
    "federated_computation": federated_computation,
    "collections": collections,
    "np": np,
    "ext": ext,
    "f32": f32,
    "i32": i32,
    "T": TensorType,
    "S": StructType,
    "Q": SequenceType,
    "Fd": FederatedType,
    "C": CLIENTS,
    "SV": SERVER,
    "cf": FederatedType(f32, CLIENTS),
    "sf": FederatedType(f32, SERVER),
    "ci": FederatedType(i32, CLIENTS),
    "ce": FederatedType(f32, CLIENTS, True),
    "ks": FederatedType((i32, [3]), CLIENTS),
    "m": ext(f32, i32),
    "acc": ext([f32, i32], f32),
    "mer": ext([f32, f32], f32),
    "rep": ext(f32, np.float64),
}
ROWS = [line.split(" | ") for line in GOLDEN.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def traced(types: str, body: str) -> str:
    made = federated_computation(eval(body, NAMES), *eval(types, NAMES))  # noqa: S307  rows of our own file
    assert isinstance(made, Computation)
    return str(made.type_signature)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_intrinsic_has_the_type_that_it_has_in_tensorflow_federated(row: list[str]) -> None:
    label, types, body, expected = row
    if label not in DIFFERS and expected == "refused":
        with pytest.raises(TraceError, match=r"\[<string>:1\]|path|not a placement"):  # the user's line, or the way to the fault
            traced(types, body)
    else:
        assert traced(types, body) == DIFFERS.get(label, expected)
