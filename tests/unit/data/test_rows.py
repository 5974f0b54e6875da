"""Rows and their division into train, valid and test."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from hansa.core.protocols import Dataset
from hansa.core.trees import Array
from hansa.data.rows import PARTS, Rows, divide
from hansa.errors import DataError


def rows(count: int, *, parts: list[int] | None = None, y: Array | None = None) -> Rows:
    codes = None if parts is None else np.array(parts, np.int8)
    return Rows(np.arange(float(count))[:, None], np.zeros(count, np.int64) if y is None else y, {"site": np.arange(count)}, codes)


def test_rows_are_a_dataset() -> None:
    assert isinstance(rows(3), Dataset)


def test_a_part_has_its_rows_in_order_with_their_columns() -> None:
    part = rows(5, parts=[2, 0, 1, 0, 2]).part("train")
    assert part.x.ravel().tolist() == [1.0, 3.0]
    assert part.columns["site"].tolist() == [1, 3]


def test_a_part_of_a_part_is_itself_and_has_nothing_of_another() -> None:
    part = rows(5, parts=[2, 0, 1, 0, 2]).part("test")
    assert part.part("test") is part
    assert len(part.part("train")) == 0


def test_a_part_without_rows_is_an_empty_dataset_of_the_same_shape() -> None:
    empty = rows(2, parts=[0, 0]).part("valid")
    assert empty.x.shape == (0, 1)
    assert isinstance(empty, Dataset)


def test_undivided_rows_are_all_for_training() -> None:
    whole = rows(2)
    assert whole.part("train") is whole
    assert len(whole.part("test")) == 0


def test_divided_parts_are_views() -> None:
    whole = divide(rows(20), seed=1)
    assert all(np.shares_memory(whole.part(name).x, whole.x) for name in PARTS)


def test_rows_that_are_taken_keep_their_part() -> None:
    taken = rows(4, parts=[0, 1, 2, 0]).take(np.array([2, 0]))
    assert taken.part("test").x.ravel().tolist() == [2.0]
    assert taken.part("train").x.ravel().tolist() == [0.0]


@pytest.mark.parametrize("indices", [np.array([4]), np.array([-1]), np.array([0.5]), np.array([[0]])])
def test_rows_that_are_not_there_cannot_be_taken(indices: Array) -> None:
    with pytest.raises(DataError, match="integers from 0 to 3"):
        rows(4).take(indices)


def test_a_part_with_another_name_is_refused() -> None:
    with pytest.raises(DataError, match="train or valid or test"):
        rows(2).part("training")  # type: ignore[arg-type]  # what a user may write


def test_arrays_of_different_length_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="path y; expected 3 rows, as x has; got 2"):
        Rows(np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(DataError, match="path columns/site"):
        Rows(np.zeros((3, 1)), np.zeros(3), {"site": np.zeros(4)})


def test_python_objects_unknown_parts_and_too_few_names_are_refused() -> None:
    with pytest.raises(DataError, match="path x; got object"):
        Rows(np.array([[1], ["a"]], object), np.zeros(2))
    with pytest.raises(DataError, match="path parts"):
        Rows(np.zeros((1, 1)), np.zeros(1), parts=np.array([3]))
    with pytest.raises(DataError, match="path features"):
        Rows(np.zeros((1, 2)), np.zeros(1), features=("age",))


def test_rows_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(rows(3, parts=[0, 1, 2])))
    assert again.part("valid").x.ravel().tolist() == [1.0]


def test_a_split_gives_each_part_its_fraction() -> None:
    whole = divide(rows(100), split=(0.7, 0.15, 0.15), seed=3)
    assert [len(whole.part(name)) for name in PARTS] == [70, 15, 15]
    assert sorted(whole.x.ravel().tolist()) == list(range(100))


def test_each_label_is_split_alike() -> None:
    y = np.repeat([0, 1, 2], [80, 40, 20])
    whole = divide(rows(140, y=y), split=(0.5, 0.25, 0.25), seed=3)
    assert np.bincount(whole.part("train").y).tolist() == [40, 20, 10]
    assert np.bincount(whole.part("test").y).tolist() == [20, 10, 5]


def test_a_site_with_one_row_trains_on_it() -> None:
    assert len(divide(rows(1)).part("train")) == 1


def test_a_fraction_of_zero_gives_no_rows() -> None:
    whole = divide(rows(10), split=(1, 0, 0))
    assert [len(whole.part(name)) for name in PARTS] == [10, 0, 0]


def test_a_split_depends_on_seed_and_slot_alone() -> None:
    def held(seed: int, slot: int) -> list[float]:
        return list(divide(rows(60), seed=seed, slot=slot).part("test").x.ravel().tolist())

    assert held(1, 2) == held(1, 2)
    assert held(1, 2) != held(1, 3)
    assert held(1, 2) != held(2, 2)


def test_targets_that_are_not_labels_are_split_at_random() -> None:
    whole = divide(rows(100, y=np.linspace(0, 1, 100)), split=(0.5, 0, 0.5), seed=0)
    assert len(whole.part("test")) == 50
    assert 0.4 < float(whole.part("test").y.mean()) < 0.6


def test_a_test_set_of_its_own_stays_the_test_part() -> None:
    whole = divide(rows(10, parts=[0] * 8 + [2] * 2), split=(0.6, 0.2, 0.2), seed=0)
    assert whole.part("test").x.ravel().tolist() == [8.0, 9.0]
    assert [len(whole.part(name)) for name in PARTS] == [6, 2, 2]


def test_rows_with_all_three_parts_are_left_as_they_are() -> None:
    whole = divide(rows(4, parts=[0, 0, 1, 2]), split=(0, 0.5, 0.5))
    assert [len(whole.part(name)) for name in PARTS] == [2, 1, 1]


@pytest.mark.parametrize("split", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.5, -0.5, 0), (float("nan"), 0.5, 0.5), "abc", 1])
def test_fractions_that_do_not_make_a_whole_are_refused(split: object) -> None:
    with pytest.raises(DataError, match="three numbers from 0 to 1 that sum to 1"):
        divide(rows(4), split=split)  # type: ignore[arg-type]  # what a job file may hold


def test_a_split_that_leaves_a_source_with_a_test_set_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="train or valid"):
        divide(rows(4, parts=[0, 0, 0, 2]), split=(0, 0, 1))
