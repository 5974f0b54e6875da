"""Types print TensorFlow Federated's notation, and fit each other by its rules (federated-language 0.5.4 printed each row)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from hansa.core.trees import Tree
from hansa.core.types import (
    CLIENTS,
    SERVER,
    TREE,
    UNKNOWN,
    Clients,
    FederatedType,
    FunctionType,
    ObjectType,
    SequenceType,
    Server,
    StructType,
    TensorType,
    assignable,
    hints,
    to_type,
)
from hansa.errors import TraceError

i32, f32 = np.int32, np.float32


class Pair(NamedTuple):
    x: np.int32
    y: np.float32


@dataclasses.dataclass
class Record:
    a: np.int32
    b: Tree


NOTATION: list[tuple[object, str]] = [
    (TensorType(i32), "int32"),
    (TensorType(f32, [10]), "float32[10]"),
    (TensorType(f32, (None, 784)), "float32[?,784]"),
    (TensorType(f32, None), "'float32'(shape=None)"),
    (TensorType(f32, ()), "float32"),
    (TensorType(f32, [0]), "float32[0]"),
    (TensorType(np.str_), "str"),
    (TensorType(np.bytes_), "str"),
    (TensorType(np.str_, [None]), "str[?]"),
    (TensorType(np.bool_), "bool"),
    (TensorType(np.complex64), "complex64"),
    (TensorType(ml_dtypes.bfloat16, [2]), "bfloat16[2]"),
    (TensorType(np.float16), "float16"),
    (TensorType(np.uint8, [1, 2, 3]), "uint8[1,2,3]"),
    (TensorType(np.dtype("int64")), "int64"),
    (StructType([]), "<>"),
    (StructType([i32]), "<int32>"),
    (StructType([i32, f32]), "<int32,float32>"),
    (StructType([("a", i32), ("b", f32)]), "<a=int32,b=float32>"),
    (StructType([("a", i32), np.bool_]), "<a=int32,bool>"),
    (StructType([i32, ("b", f32)]), "<int32,b=float32>"),
    (StructType([("a", [("b", i32), ("c", np.bool_)])]), "<a=<b=int32,c=bool>>"),
    (StructType({"a": i32, "b": (f32, [2])}), "<a=int32,b=float32[2]>"),
    (StructType([("keys", i32)]), "<keys=int32>"),
    (to_type((i32, (("x", f32), np.bool_))), "<int32,<x=float32,bool>>"),
    (to_type(((i32, [1]), (("x", (f32, [2])), (np.bool_, [3])))), "<int32[1],<x=float32[2],bool[3]>>"),
    (to_type({"b": i32, "a": f32}), "<b=int32,a=float32>"),
    (to_type(Pair), "<x=int32,y=float32>"),
    (to_type(Record), "<a=int32,b=Tree>"),
    (to_type(()), "<>"),
    (to_type((f32, None)), "'float32'(shape=None)"),
    (to_type((f32, ())), "float32"),
    (to_type([("a", i32)]), "<a=int32>"),
    (SequenceType(i32), "int32*"),
    (SequenceType(TensorType(f32, [None, 784])), "float32[?,784]*"),
    (SequenceType((TensorType(f32, [None, 784]), TensorType(i32, [None, 1]))), "<float32[?,784],int32[?,1]>*"),
    (SequenceType({"A": i32, "B": i32}), "<A=int32,B=int32>*"),
    (FunctionType(i32, f32), "(int32 -> float32)"),
    (FunctionType(None, i32), "( -> int32)"),
    (FunctionType((i32, i32), i32), "(<int32,int32> -> int32)"),
    (FunctionType([("x", i32), ("y", i32)], i32), "(<x=int32,y=int32> -> int32)"),
    (FunctionType(FunctionType(i32, i32), i32), "((int32 -> int32) -> int32)"),
    (FunctionType(FunctionType(None, i32), i32), "(( -> int32) -> int32)"),
    (FunctionType(StructType([]), i32), "(<> -> int32)"),
    (FunctionType(SequenceType(i32), i32), "(int32* -> int32)"),
    (FederatedType(f32, CLIENTS), "{float32}@CLIENTS"),
    (FederatedType(f32, SERVER), "float32@SERVER"),
    (FederatedType(f32, CLIENTS, True), "float32@CLIENTS"),
    (FederatedType(f32, SERVER, False), "{float32}@SERVER"),
    (FederatedType((i32, f32), CLIENTS), "{<int32,float32>}@CLIENTS"),
    (FederatedType(StructType([("a", i32)]), SERVER), "<a=int32>@SERVER"),
    (FederatedType(SequenceType(f32), CLIENTS), "{float32*}@CLIENTS"),
    (FederatedType([], SERVER), "<>@SERVER"),
    (FunctionType(FederatedType(f32, CLIENTS), FederatedType(f32, SERVER)), "({float32}@CLIENTS -> float32@SERVER)"),
    (
        FunctionType(
            [("state", FederatedType([], SERVER)), ("value", FederatedType(f32, CLIENTS))],
            [
                ("state", FederatedType([], SERVER)),
                ("result", FederatedType(f32, SERVER)),
                ("measurements", FederatedType([], SERVER)),
            ],
        ),
        "(<state=<>@SERVER,value={float32}@CLIENTS> -> <state=<>@SERVER,result=float32@SERVER,measurements=<>@SERVER>)",
    ),
    (to_type(Server[Pair]), "<x=int32,y=float32>@SERVER"),
    (to_type(Clients[float]), "{float32}@CLIENTS"),
    (to_type(Annotated[int, "rows"]), "int32"),
    (to_type(tuple[int, float]), "<int32,float32>"),
    (to_type(list[int]), "list[int]"),
    (to_type(bool), "bool"),
    (to_type(str), "str"),
    (to_type(Tree), "Tree"),
    (to_type(Any), "?"),
    (to_type(Callable[[int], int]), "collections.abc.Callable[[int], int]"),
]


@pytest.mark.parametrize(("kind", "text"), NOTATION, ids=[text for _, text in NOTATION])
def test_a_type_prints_in_the_notation(kind: object, text: str) -> None:
    assert str(kind) == text


@pytest.mark.parametrize("spec", [np.object_, int, "int32", np.datetime64, np.dtype("datetime64[s]")])
def test_what_is_no_dtype_is_refused(spec: object) -> None:
    with pytest.raises(TraceError, match="not a dtype"):
        TensorType(spec)


@pytest.mark.parametrize("spec", [None, 5, "int32", (f32, 10), FunctionType])
def test_what_is_no_type_is_refused_or_a_class(spec: object) -> None:
    if spec is FunctionType:
        assert isinstance(to_type(spec), StructType | ObjectType)
        return
    with pytest.raises(TraceError):
        to_type(spec)


@pytest.mark.parametrize(
    "inside", [FederatedType(i32, CLIENTS), FunctionType(i32, i32), StructType([FederatedType(i32, SERVER)])], ids=str
)
def test_placed_values_and_functions_are_not_placed_again(inside: object) -> None:
    with pytest.raises(TraceError, match="holds values"):
        FederatedType(inside, CLIENTS)


@pytest.mark.parametrize("inside", [FunctionType(None, i32), FederatedType(i32, CLIENTS)], ids=str)
def test_a_sequence_holds_values(inside: object) -> None:
    with pytest.raises(TraceError, match="a sequence holds values"):
        SequenceType(inside)


def test_sequences_may_be_collected_to_a_sequence() -> None:
    assert str(SequenceType(SequenceType(i32))) == "int32**"


FITS: list[tuple[object, object, bool]] = [
    (TensorType(f32, [None]), TensorType(f32, [10]), True),
    (TensorType(f32, [10]), TensorType(f32, [None]), False),
    (TensorType(f32, [None]), TensorType(f32, [3, 4]), False),
    (TensorType(f32, None), TensorType(f32, [3, 4]), True),
    (TensorType(f32, [3]), TensorType(f32, None), False),
    (TensorType(f32, [1]), TensorType(f32), False),
    (f32, i32, False),
    (i32, np.int64, False),
    ([("a", i32)], [i32], True),
    ([i32], [("a", i32)], False),
    ([("a", i32), ("b", i32)], [("b", i32), ("a", i32)], False),
    ([i32], [i32, i32], False),
    ([i32, i32], (i32, i32), True),
    (SequenceType(TensorType(f32, [None])), SequenceType(TensorType(f32, [2])), True),
    (SequenceType(i32), i32, False),
    (FunctionType((i32, [3]), i32), FunctionType((i32, [None]), i32), True),
    (FunctionType((i32, [None]), i32), FunctionType((i32, [3]), i32), False),
    (FunctionType([i32], i32), FunctionType([("a", i32)], i32), True),
    (FunctionType(None, i32), FunctionType(i32, i32), False),
    (FunctionType(None, (f32, [None])), FunctionType(None, (f32, [2])), True),
    (FederatedType(i32, CLIENTS), FederatedType(i32, CLIENTS, True), True),
    (FederatedType(i32, CLIENTS, True), FederatedType(i32, CLIENTS), False),
    (FederatedType(i32, SERVER, False), FederatedType(i32, SERVER), True),
    (FederatedType(i32, CLIENTS), FederatedType(i32, SERVER), False),
    (FederatedType(i32, SERVER), i32, False),
    (i32, FederatedType(i32, SERVER), False),
    (UNKNOWN, i32, True),
    (i32, UNKNOWN, True),
    (TREE, TREE, True),
    (TREE, ObjectType("int", int), True),
    (ObjectType("int", int), ObjectType("bool", bool), True),
    (ObjectType("bool", bool), ObjectType("int", int), False),
    (ObjectType("tuple", tuple), Pair, True),
    (ObjectType("list", list), Pair, False),
    (ObjectType("int", int), i32, False),
    (Pair, TREE, True),
]


@pytest.mark.parametrize(("target", "source", "fits"), FITS, ids=[f"{to_type(t)} from {to_type(s)}" for t, s, _ in FITS])
def test_assignability_follows_the_rules(target: object, source: object, fits: bool) -> None:
    assert assignable(to_type(target), to_type(source)) is fits


def test_types_are_equal_when_they_restore_the_same_containers() -> None:
    assert to_type([i32, f32]) != to_type((i32, f32))
    assert to_type([i32, f32]).is_equivalent_to(to_type((i32, f32)))
    assert hash(TensorType(f32, [2])) == hash(TensorType(np.dtype(">f4"), (2,)))
    pair = to_type((i32, f32))
    assert isinstance(pair, StructType)
    assert pair.container is tuple


def test_an_annotation_that_names_nothing_at_hand_is_unknown_and_the_others_are_read() -> None:
    def fn(a: int, b: "Nowhere", c: "Mapping[str, Any]") -> float: ...  # type: ignore[empty-body,name-defined]  # noqa: F821

    found = hints(fn)
    assert (str(found["a"]), found["b"], str(found["return"])) == ("int32", UNKNOWN, "float32")
