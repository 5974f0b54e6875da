"""Schemas: what is said of data, how it is read, and where data are not what a job takes."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import hansa as hs
from hansa.adapters.numpy import logistic, softmax
from hansa.adapters.torch import TorchLearner
from hansa.core.types import ObjectType, SequenceType, StructType, TensorType, Type, to_type
from hansa.data.rows import Rows
from hansa.errors import DataError, InputError
from hansa.learning import fedavg
from hansa.schema import LONGEST, Misfit, check, misfits, read_type, schema_of


class Sample(NamedTuple):
    image: Any
    label: int


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (Rows(np.zeros((303, 13)), np.zeros(303, np.int32)), "<x=float64[?,13],y=int32[?]>"),
        (np.zeros((303, 13), np.float32), "float32[?,13]"),
        (3.0, "float32"),
        ([], "?*"),
        ([1.0, 2.0], "float32*"),
        ([np.zeros((20, 784)), np.zeros((7, 784))], "float64[?,784]*"),
        ([np.zeros((303, 784))], "float64[?,784]*"),
        (
            [{"x": np.zeros((20, 4)), "y": np.zeros(20)}, {"x": np.zeros((3, 4)), "y": np.zeros(3)}],
            "<x=float64[?,4],y=float64[?]>*",
        ),
        ([np.zeros(2), np.zeros((2, 2))], "'float64'(shape=None)*"),
        ([np.zeros(2), 1], "?*"),
        ([[1, 2], [3, 4]], "<int32,int32>*"),
        ({"a": np.zeros((5, 2)), "b": "words"}, "<a=float64[?,2],b=str>"),
        (Sample(np.zeros((28, 28), np.uint8), 3), "<image=uint8[?,28],label=int32>"),
        (Path("/srv/images"), "Path"),
        (object(), "object"),
        (2**80, "int"),
    ],
)
def test_a_schema_says_the_type_and_neither_values_nor_the_number_of_rows(data: object, text: str) -> None:
    assert str(schema_of(data)) == text
    assert str(read_type(text)) == text


def test_the_number_of_rows_is_said_only_where_it_is_permitted() -> None:
    rows = Rows(np.zeros((303, 13)), np.zeros(303))
    assert "303" not in str(schema_of(rows))
    assert str(schema_of(rows, rows=True)) == "<x=float64[303,13],y=float64[303]>"


tensors = st.builds(
    TensorType,
    st.sampled_from([np.bool_, np.int8, np.uint64, np.float16, np.float32, np.complex64, np.str_]),
    st.none() | st.lists(st.none() | st.integers(0, 10**9), max_size=3),
)
objects = st.sampled_from([ObjectType("Dataset"), ObjectType("?"), ObjectType("pandas.DataFrame"), ObjectType("float320")])
names = st.sampled_from([None, "a", "b", "float32", "x1"])


def struct(parts: list[tuple[str | None, Type]]) -> Type:
    return StructType([(name if name not in [n for n, _ in parts[:i]] else None, kind) for i, (name, kind) in enumerate(parts)])


kinds = st.recursive(
    tensors | objects,
    lambda inner: st.builds(struct, st.lists(st.tuples(names, inner), max_size=3)) | st.builds(SequenceType, inner),
)


@given(kinds)
def test_a_notation_is_read_as_the_type_that_prints_so_which_fits_itself(kind: Type) -> None:
    assert str(read_type(str(kind))) == str(kind)
    assert list(misfits(kind, read_type(str(kind)), "data")) == []


@given(st.text("<>[]{}@,=?*'()abfloat32 ", max_size=40))
def test_whatever_a_site_says_is_read_or_refused_by_name(text: str) -> None:
    with contextlib.suppress(InputError):
        assert str(read_type(text)) == text


@pytest.mark.parametrize(
    "text", ["", "<", "<a=>", "float32[", "float32[-1]", "{float32}@CLIENTS", "(a -> b)", "x" * (LONGEST + 1), "<" * 99]
)
def test_what_is_no_type_of_data_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_type(text)


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        ("float32[?,13]", "float64[?,12]", ["data: expected float32[?,13], got float64[?,12]"]),
        ("float32[?,13]", "float32[303,13]", []),
        ("float32[20,13]", "float32[?,13]", []),
        ("?", "<x=str>", []),
        ("<x=float32[?,13],y=int32>", "<y=int32,x=float32[?,13]>", []),
        (
            "<x=float32,y=int32>",
            "<x=float32,z=int8>",
            ["data -> y: expected int32, got nothing", "data -> z: expected nothing, got int8"],
        ),
        ("<a=<b=float32*>>", "<a=<b=float64*>>", ["data -> a -> b[]: expected float32, got float64"]),
        ("<float32,int32>*", "<float32,int64>*", ["data[][1]: expected int32, got int64"]),
        ("<float32,int32>", "<float32>", ["data: expected <float32,int32>, got <float32>"]),
        ("float32[13]*", "float32[?,13]", []),
        ("float32[13]*", "float32[?,12]", ["data[]: expected float32[13], got float32[12]"]),
        ("float32*", "float32", ["data: expected float32*, got float32"]),
        ("Dataset", "<x=float32[?,13],y=int32[?]>", []),
        ("Dataset", "float32*", ["data: expected Dataset, got float32*"]),
        ("Dataset", "MyRows", []),
        ("float32", "DataFrame", ["data: expected float32, got DataFrame"]),
    ],
)
def test_each_place_where_data_do_not_fit_is_named(wanted: str, found: str, said: list[str]) -> None:
    assert [str(each) for each in misfits(read_type(wanted), read_type(found), "data")] == said


def rows_of(x: tuple[int | None, ...], y: object = np.int32) -> dict[str, Type]:
    return {
        "heart": StructType({"x": TensorType(np.float64, (None, *x)), "y": to_type(y if isinstance(y, tuple) else (y, [None]))})
    }


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(13, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def torch_learner(loss: Callable[..., Any] = nn.functional.cross_entropy) -> TorchLearner:
    return TorchLearner(net, loss=loss, lr=0.1, epochs=1)


@pytest.mark.parametrize(
    ("learner", "here", "paths"),
    [
        (logistic(features=13), rows_of((13,)), []),
        (logistic(features=13), rows_of((12,)), ["data -> x"]),
        (logistic(), rows_of((12,)), []),
        (softmax(10, 784), rows_of((28, 28)), []),
        (softmax(10, 784), rows_of((28, 27)), ["data -> x"]),
        (softmax(10, 784), rows_of((28, None)), []),
        (logistic(features=13), rows_of((13,), np.str_), ["data -> y"]),
        (logistic(features=13), rows_of((13,), (np.int32, [None, 2])), ["data -> y"]),
        (torch_learner(), rows_of((13,)), []),
        (torch_learner(), rows_of((12,)), ["data -> x"]),
        (torch_learner(), rows_of((13,), np.str_), ["data -> y"]),
        (torch_learner(), rows_of((13,), np.float32), ["data -> y"]),
        (torch_learner(nn.functional.mse_loss), rows_of((13,), (np.float32, [None, 3])), ["data -> y"]),
        (torch_learner(), rows_of((None,)), []),
    ],
)
def test_a_learner_says_which_rows_it_can_be_trained_on(learner: Any, here: dict[str, Type], paths: list[str]) -> None:
    job = hs.Job("hearts", fedavg(learner, rounds=1), data="heart")
    assert [each.path for each in check(job, here)] == paths


def test_what_torch_says_is_passed_on_and_no_weight_is_made() -> None:
    before = torch.random.get_rng_state()
    (misfit,) = check(hs.Job("h", fedavg(torch_learner(), rounds=1), data="heart"), rows_of((12,)))
    assert str(misfit).startswith("data -> x: expected rows that the model takes, got float64[?,12] (")
    assert torch.equal(before, torch.random.get_rng_state())


def test_columns_are_standardised_so_images_are_not() -> None:
    job = hs.Job("h", fedavg(logistic(features=784), rounds=1, standardise=True), data="heart")
    assert [each.path for each in check(job, rows_of((28, 28)))] == ["data -> x"]
    assert check(job, rows_of((784,))) == []


def count(data: Any) -> np.int32:
    return np.int32(len(data["x"]))


@hs.federated_computation(hs.FederatedType({"x": (np.float32, [None, 13]), "y": (np.int32, [None])}, hs.CLIENTS))
def typed(data: Any) -> Any:
    return hs.federated_sum(hs.federated_map(count, data))


def test_a_typed_computation_says_what_data_it_takes_and_a_site_without_them_is_told_so() -> None:
    job = hs.Job("count", typed, data="heart")
    assert check(job, rows_of((12,))) == [Misfit("data -> x", "float32[?,13]", "float64[?,12]")]
    assert check(job, {"lungs": to_type(np.float32)}) == [Misfit("heart", "data of this label", "none")]


class Sites:
    """Sites whose rows have so many columns."""

    sites = ("north", "south")

    def __init__(self, columns: int) -> None:
        self.columns, self.loaded = columns, 0

    def load(self, slot: int) -> Any:
        self.loaded += 1
        return {"x": np.zeros((5, self.columns), np.float32), "y": np.zeros(5, np.int32)}


def test_a_simulation_looks_at_the_first_site_that_it_asks_and_loads_none_for_it() -> None:
    fitting = Sites(13)
    assert hs.simulate(hs.Job("count", typed, data="heart"), fitting).value == 10
    assert fitting.loaded == 2
    result = hs.simulate(hs.Job("count", hs.once(typed, quorum=1), data="heart"), Sites(12)).metrics
    (refused,) = result[0]["refused"]
    assert (refused["site"], refused["path"]) == ("north", "data -> x")
    assert "expected float32[?,13]; got float32[?,12]" in refused["message"]


def test_a_learner_raises_for_the_rows_that_it_does_not_accept() -> None:
    with pytest.raises(DataError, match="13 features a row"):
        logistic(features=13).accepts(TensorType(np.float32, (None, 12)), TensorType(np.int32, (None,)))
