"""Types as TensorFlow Federated prints and compares them: each row of tests/golden/types.txt; DIFFERS are meant."""

import collections
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from hansa.core.types import (
    CLIENTS,
    SERVER,
    AbstractType,
    FederatedType,
    FunctionType,
    PlacementType,
    SequenceType,
    StructType,
    TensorType,
    infer_type,
    to_type,
)
from hansa.errors import TraceError

GOLDEN = Path(__file__).parents[2] / "golden" / "types.txt"
DIFFERS = {  # docs/tff-differences.md gives the reasons
    "Q(Q(np.int32))": "int32**",
    "S([('items',np.int32)])": "<items=int32>",
    "to_type(int)": "int32",
    "infer_type(None)": "NoneType",
    "infer_type(object())": "object",
    "infer_type(lambda x:x)": "function",
}
CONTAINER_KEPT = "infer_type([('a',1),('b',2.0)])"


class NT(NamedTuple):
    x: np.int32
    y: np.float32


@dataclasses.dataclass
class At:
    a: Any
    b: Any


class Factory:
    """What the rows call `type_factory`."""

    @staticmethod
    def reduction_op(result: object, element: object) -> FunctionType:
        return FunctionType(StructType([result, element]), result)

    @staticmethod
    def binary_op(of: object) -> FunctionType:
        return FunctionType(StructType([of, of]), of)


NAMES: dict[str, Any] = {
    "T": TensorType,
    "S": StructType,
    "SP": StructType,
    "Q": SequenceType,
    "F": FunctionType,
    "A": AbstractType,
    "P": PlacementType,
    "Fd": FederatedType,
    "C": CLIENTS,
    "SV": SERVER,
    "NT": NT,
    "At": At,
    "np": np,
    "ml_dtypes": ml_dtypes,
    "collections": collections,
    "to_type": to_type,
    "infer_type": infer_type,
    "type_factory": Factory,
}


def rows(block: int) -> list[list[str]]:
    lines = GOLDEN.read_text(encoding="utf-8").split("\n\n")[block].strip().splitlines()
    return [[part.strip() for part in line.split(" | ")] for line in lines if not line.startswith("#")]


def made(expression: str) -> Any:
    return eval(expression, NAMES)  # noqa: S307  rows of our own file


@pytest.mark.parametrize("row", rows(0), ids=lambda row: row[0])
def test_a_type_prints_as_in_tensorflow_federated(row: list[str]) -> None:
    expression, text, shown = row[0], row[1].removesuffix(" |"), row[-1]
    if expression in DIFFERS:
        assert str(made(expression)) == DIFFERS[expression]
    elif text == "refused":
        with pytest.raises(TypeError):
            made(expression)
    else:
        assert str(made(expression)) == text
        as_printed = shown + " as list" if expression == CONTAINER_KEPT else shown
        assert repr(made(expression)).replace("np.bool_", "np.bool") == as_printed


@pytest.mark.parametrize("row", rows(1), ids=lambda row: " <- ".join(row[:2]))
def test_types_are_assignable_equivalent_and_identical_as_in_tensorflow_federated(row: list[str]) -> None:
    target, source = made(row[0]), made(row[1])
    assignable, equivalent, identical = row[2].split()
    for method, expected in ((target.is_assignable_from, assignable), (target.is_equivalent_to, equivalent)):
        if expected == "refused":
            with pytest.raises(TraceError, match="abstract"):
                method(source)
        else:
            assert str(method(source)) == expected
    assert str(target == source) == identical


def test_the_formatted_notation_has_a_line_for_each_element() -> None:
    state = FederatedType([("a", np.int32), ("b", (np.float32, [2, 2]))], SERVER)
    data = FederatedType(SequenceType([("x", (np.float32, [None, 4])), ("y", np.int32)]), CLIENTS)
    big = FunctionType([("state", state), ("data", data)], FederatedType([], SERVER))
    assert big.formatted_representation() == (
        "(<\n  state=<\n    a=int32,\n    b=float32[2,2]\n  >@SERVER,\n"
        "  data={<\n    x=float32[?,4],\n    y=int32\n  >*}@CLIENTS\n> -> <>@SERVER)"
    )
    assert big.compact_representation() == str(big)


def test_a_structs_elements_are_reached_by_name_and_place() -> None:
    struct = StructType([("a", np.int32), ("b", (np.float32, [2])), np.bool_])
    assert [str(each) for each in (struct.a, struct[1], struct["b"], *struct)] == [
        "int32", "float32[2]", "float32[2]", "int32", "float32[2]", "bool",
    ]  # fmt: skip
    assert (len(struct), struct.fields(), list(dict(struct.items()))) == (3, ["a", "b"], ["a", "b", None])
    assert not hasattr(struct, "zz")
    with pytest.raises(AttributeError, match=r"no field 'zz'.*\['a', 'b'\]"):
        _ = struct.zz
    with pytest.raises(IndexError):
        _ = struct[9]


def test_placements_know_their_names_and_defaults() -> None:
    assert [(str(p), repr(p), p.uri, p.default_all_equal) for p in (CLIENTS, SERVER)] == [
        ("CLIENTS", "PlacementLiteral('clients')", "clients", False),
        ("SERVER", "PlacementLiteral('server')", "server", True),
    ]
