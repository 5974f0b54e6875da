"""Instances of generic types: labels are bound where something is taken, and hold everywhere else."""

from typing import Any

import numpy as np
import pytest

from hansa.core.types import CLIENTS, SERVER, AbstractType, FederatedType, FunctionType, SequenceType, TensorType, Type, to_type
from hansa.errors import TraceError
from hansa.generics import check_concrete_instance_of

T, U = AbstractType("T"), AbstractType("U")
f32, i32 = np.float32, np.int32


def fn(takes: object, gives: object) -> FunctionType:
    return FunctionType(takes, gives)


def at(member: object, placement: Any = CLIENTS) -> FederatedType:
    return FederatedType(member, placement)


MAP = fn([fn(T, U), SequenceType(T)], SequenceType(U))
FITS: list[tuple[Type, Type, dict[str, str]]] = [
    (fn(i32, i32), fn(T, T), {"T": "int32"}),
    (fn((i32, [3]), (i32, [None])), fn(T, T), {"T": "int32[3]"}),
    (fn([i32, f32], [i32, f32]), fn([T, U], [T, U]), {"T": "int32", "U": "float32"}),
    (fn([("a", i32)], i32), fn([("a", T)], T), {"T": "int32"}),
    (fn([fn((i32, [None]), f32), SequenceType((i32, [3]))], SequenceType(f32)), MAP, {"T": "int32[3]", "U": "float32"}),
    (fn(at(f32), at(f32, SERVER)), fn(at(T), at(T, SERVER)), {"T": "float32"}),
    (fn([i32, f32], f32), fn([i32, T], T), {"T": "float32"}),
]
REFUSED: list[tuple[Type, Type, str]] = [
    (fn(T, T), fn(T, T), r"a concrete type has no labels; got \(T -> T\)"),
    (fn([i32, f32], i32), fn([T, T], T), "T stands for two types; expected int32; got float32"),
    (fn(i32, f32), fn(T, T), "what T stands for cannot stand here; expected float32; got int32"),
    (fn((i32, [None]), (i32, [3])), fn(T, T), r"cannot stand here; expected int32\[3\]; got int32\[\?\]"),
    (fn(None, i32), fn(None, T), "nothing that is taken says what T stands for"),
    (fn([i32, i32], i32), fn(SequenceType(T), T), "different structures"),
    (fn([("b", i32)], i32), fn([("a", T)], T), "different structures"),
    (fn(at(f32, SERVER), f32), fn(at(T), T), "different structures"),
    (fn([f32, i32], i32), fn([i32, T], T), "not an instance of the generic type; expected int32; got float32"),
]


@pytest.mark.parametrize(("concrete", "generic", "bound"), FITS, ids=[str(row[0]) for row in FITS])
def test_each_label_of_an_instance_stands_for_a_type(concrete: Type, generic: Type, bound: dict[str, str]) -> None:
    assert {label: str(kind) for label, kind in check_concrete_instance_of(concrete, generic).items()} == bound


@pytest.mark.parametrize(("concrete", "generic", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_is_no_instance_is_told_why(concrete: Type, generic: Type, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        check_concrete_instance_of(concrete, generic)


def test_types_are_checked_under_tffs_names() -> None:
    wide, narrow = TensorType(f32, [None]), TensorType(f32, [3])
    wide.check_assignable_from(narrow)
    with pytest.raises(TraceError, match=r"cannot stand here; expected float32\[3\]; got float32\[\?\]"):
        narrow.check_assignable_from(wide)
    to_type([f32]).check_equivalent_to(to_type((f32,)))
    assert not to_type([f32]).is_identical_to(to_type((f32,)))
    with pytest.raises(TraceError, match=r"not equivalent; expected float32\[\?\]; got float32\[3\]"):
        wide.check_equivalent_to(narrow)
