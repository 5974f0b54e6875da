"""Values between Python and the wire."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

from hansa.core.types import SequenceType, TensorType, to_type
from hansa.core.values import conform, pack, scalar, unpack
from hansa.errors import SpecError, TraceError


class Step(NamedTuple):
    delta: Any
    rows: int


@dataclasses.dataclass
class Point:
    x: np.float32
    y: np.float32


@pytest.mark.parametrize(
    "value",
    [
        3,
        2.5,
        True,
        np.float32(1.5),
        np.int32(4),
        (1, 2.0),
        [1.0, [2, 3]],
        {"a": 1.0, "b": {"c": 2}},
        Step({"w": np.ones(2)}, 3),
        Point(np.float32(1), np.float32(2)),
    ],
    ids=repr,
)
def test_what_is_packed_comes_back_in_its_container(value: Any) -> None:
    kind = to_type(type(value)) if isinstance(value, Step | Point) else _kind(value)
    again = unpack(pack(value), kind)
    assert type(again) is type(value)
    if isinstance(value, Step):
        assert again.rows == 3
        assert again.delta["w"].tolist() == [1.0, 1.0]
    else:
        assert again == value


def _kind(value: Any) -> Any:
    if isinstance(value, dict):
        return to_type({name: _kind(item) for name, item in value.items()})
    if isinstance(value, list | tuple):
        return to_type(type(value)(_kind(item) for item in value))
    return TensorType(np.asarray(value).dtype)


def test_scalars_keep_a_narrow_dtype_and_become_python_numbers_otherwise() -> None:
    assert type(scalar(np.asarray(1.0))) is float
    assert type(scalar(np.asarray(1))) is int
    assert type(scalar(np.asarray(1.0, np.float32))) is np.float32
    assert scalar(np.ones(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("value", "path"), [("text", None), ({"a": [1, "b"]}, "a/1"), (Step(object(), 1), "delta")])
def test_only_numbers_cross_and_the_path_of_what_does_not_is_named(value: Any, path: str | None) -> None:
    with pytest.raises(SpecError, match="only arrays, numbers") as caught:
        pack(value)
    assert caught.value.path == path


CONFORMS: list[tuple[Any, Any, Any]] = [
    (1, np.float32, np.float32(1)),
    (0.1, np.float32, np.float32(0.1)),
    (np.int64(7), np.int32, np.int32(7)),
    (True, np.bool_, np.bool_(True)),
    ([1, 2], (np.float32, [2]), [1.0, 2.0]),
    ([1, 2], (np.float32, [None]), [1.0, 2.0]),
    (np.array([1, 2]), (np.float32, [2]), [1.0, 2.0]),
    (np.array([1, 2]), (np.int8, [2]), [1, 2]),
    (np.array([0.5], np.float32), (np.float64, [1]), [0.5]),
    (np.float64(0.1), np.float32, np.float32(0.1)),
    (float("inf"), np.float32, np.float32("inf")),
    ([], (np.int8, [None]), []),
]


@pytest.mark.parametrize(("value", "kind", "expected"), CONFORMS, ids=repr)
def test_a_value_takes_its_declared_type(value: Any, kind: Any, expected: Any) -> None:
    found = conform(value, to_type(kind), path="x")
    assert np.asarray(found).tolist() == np.asarray(expected).tolist()
    assert np.asarray(found).dtype == getattr(to_type(kind), "dtype", None)


REFUSED: list[tuple[Any, Any, str]] = [
    (2**40, np.int32, "does not fit the dtype"),
    (1.5, np.int32, "another dtype"),
    (1e300, np.float32, "does not fit the dtype"),
    (np.array([0.1, -1e300]), (np.float32, [2]), "another dtype; at path x; expected float32\\[2\\]; got float64\\[2\\]"),
    ([0.1, -1e300], (np.float32, [2]), "does not fit the dtype"),
    (np.array([1, 70_000]), (np.float16, [2]), "does not fit the dtype"),
    (np.array([2**63], np.uint64), (np.int64, [1]), "does not fit the dtype"),
    (np.array([-1]), (np.uint8, [1]), "does not fit the dtype"),
    (1j, np.float32, "another dtype"),
    ("a", np.float32, "another dtype"),
    (1.5, np.str_, "another dtype"),
    (np.array([1, 2]), (np.str_, [2]), "another dtype"),
    ([1.0], np.float32, "another shape"),
    ([1.0, 2.0], (np.float32, [3]), "another shape"),
    ([[1.0], [1.0, 2.0]], (np.float32, [None]), "path x"),
    (3, [np.int32], "not a struct"),
    ([1, 2], [np.int32], "not a struct"),
    ({"b": 1}, {"a": np.int32}, "other fields"),
    ({"a": 1.5}, {"a": np.int32}, "path x/a"),
    ([1, 1.5], [np.int32, np.int32], "path x\\[1\\]"),
]


@pytest.mark.parametrize(("value", "kind", "message"), REFUSED, ids=repr)
def test_a_conversion_that_changes_a_value_is_refused_with_its_path(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        conform(value, to_type(kind), path="x")


def test_mappings_are_matched_by_name_and_not_by_order() -> None:
    assert conform({"b": 2.0, "a": 1}, to_type({"a": np.int32, "b": np.float32}), path="x") == {"a": 1, "b": 2.0}


def test_a_value_that_fits_already_is_the_same_object_and_unknown_types_take_anything() -> None:
    point = Point(np.float32(1), np.float32(2))
    assert conform(point, to_type(Any), path="x") is point
    assert conform([1, 2], SequenceType(np.float32), path="x") == [1, 2]
