"""Federated rows: lazy, cached, picklable; pooled and described."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from hansa.core.protocols import Dataset, FederatedData
from hansa.data.federated import FederatedRows, Names, Rows, describe, from_arrays, pool, population
from hansa.errors import DataError


def one_row(slot: int) -> Rows:
    return Rows(np.full((1, 1), slot), np.zeros(1, np.int64))


class Counting:
    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __call__(self, slot: int) -> Rows:
        self.loaded.append(slot)
        return one_row(slot)


def test_federated_rows_are_federated_data() -> None:
    assert isinstance(FederatedRows(["a"], one_row), FederatedData)


def test_nothing_is_loaded_before_it_is_asked_for_and_the_last_sites_are_kept() -> None:
    load = Counting()
    federated = FederatedRows(["a", "b", "c"], load, keep=2)
    assert load.loaded == []
    for slot in (0, 1, 0, 2, 0, 1):
        federated.load(slot)
    assert load.loaded == [0, 1, 2, 1]


def test_a_copy_in_another_process_loads_for_itself() -> None:
    federated = FederatedRows(["a", "b"], one_row, keep=3)
    federated.load(1)
    again = pickle.loads(pickle.dumps(federated))
    assert list(again.sites) == ["a", "b"]
    assert again.load(1).x.tolist() == [[1]]


def test_a_slot_that_is_not_there_is_refused() -> None:
    federated = FederatedRows(["a", "b"], one_row)
    for slot in (-1, 2):
        with pytest.raises(DataError, match="expected 0 to 1"):
            federated.load(slot)


def test_no_sites_or_one_name_twice_are_refused() -> None:
    with pytest.raises(DataError, match="at least one site"):
        FederatedRows([], one_row)
    with pytest.raises(DataError, match="'a' 2 times"):
        FederatedRows(["a", "b", "a"], one_row)


def test_a_million_clients_have_names_without_a_list() -> None:
    federated = population(1_000_000, one_row)
    assert len(federated.sites) == 1_000_000
    assert federated.sites[42] == "site-000042"
    assert federated.sites.index("site-000042") == 42
    assert federated.load(999_999).x.tolist() == [[999_999]]
    assert len(pickle.dumps(federated)) < 1000


def test_names_are_a_sequence() -> None:
    names = Names(3)
    assert list(names) == ["site-000", "site-001", "site-002"]
    assert names[-1] == "site-002"
    assert list(names[1:]) == ["site-001", "site-002"]
    assert "site-003" not in names
    assert "site-2" not in names
    assert "north" not in names
    with pytest.raises(IndexError):
        names[3]
    with pytest.raises(ValueError, match="north"):
        names.index("north")


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_a_population_without_clients_is_refused(count: int) -> None:
    with pytest.raises(DataError, match="positive integer"):
        population(count, one_row)


def test_arrays_become_sites_in_their_order() -> None:
    federated = from_arrays({"south": (np.zeros((4, 1)), np.zeros(4)), "north": (np.ones((2, 1)), np.ones(2))}, split=(0.5, 0, 0.5))
    assert list(federated.sites) == ["south", "north"]
    assert len(federated.load(0).part("test")) == 2
    assert federated.load(1).x.ravel().tolist() == [1.0, 1.0]


def test_arrays_that_do_not_fit_name_their_site() -> None:
    with pytest.raises(DataError, match="site 'south'"):
        from_arrays({"north": (np.zeros((1, 1)), np.zeros(1)), "south": (np.zeros((3, 1)), np.zeros(2))})
    with pytest.raises(DataError, match="site 'south'"):
        from_arrays({"south": (np.zeros(1),)})  # type: ignore[dict-item]  # what a user may write


def test_pooled_parts_are_the_sites_parts_one_after_the_other() -> None:
    sites = {
        "a": Rows(np.array([[1.0], [2.0]]), np.array([0, 1]), parts=np.array([0, 2])),
        "b": Rows(np.array([[3.0], [4.0]]), np.array([1, 1]), parts=np.array([2, 0])),
    }
    one = pool(from_arrays(sites, split=(1, 0, 0)))
    assert list(one.sites) == ["pooled"]
    pooled = one.load(0)
    assert isinstance(pooled, Rows)
    assert pooled.part("train").x.ravel().tolist() == [1.0, 4.0]
    assert pooled.part("test").x.ravel().tolist() == [2.0, 3.0]
    assert len(pooled.part("valid")) == 0
    assert pooled.part("test").columns["site"].tolist() == ["a", "b"]


def test_pooling_loads_nothing_until_it_is_asked_to() -> None:
    load = Counting()
    one = pool(FederatedRows(["a", "b"], load))
    assert load.loaded == []
    assert len(one.load(0)) == 2


def test_sites_of_different_shapes_cannot_be_pooled() -> None:
    federated = from_arrays({"a": (np.zeros((1, 1)), np.zeros(1)), "b": (np.zeros((1, 2)), np.zeros(1))}, split=(1, 0, 0))
    with pytest.raises(DataError, match="different shapes"):
        pool(federated).load(0)


def test_a_description_counts_rows_and_labels() -> None:
    sites = {"a": (np.zeros((3, 1)), np.array([0, 0, 1])), "b": (np.zeros((1, 1)), np.array([1]))}
    summary = describe(from_arrays(sites, split=(1, 0, 0)))
    first, second = summary.sites
    assert first.rows == {"train": 3, "valid": 0, "test": 0}
    assert (first.labels, second.labels, summary.labels) == ({0: 2, 1: 1}, {1: 1}, {0: 2, 1: 2})
    # All: half and half. a: 2/3, 1/3, so 1/6 away. b: 0, 1, so 1/2 away. (3 * 1/6 + 1 * 1/2) / 4 = 1/4.
    assert first.label_skew == pytest.approx(1 / 6)
    assert second.label_skew == pytest.approx(1 / 2)
    assert summary.label_skew == pytest.approx(1 / 4)
    assert summary.quantity_skew == pytest.approx(1 / 4)  # Gini of (1, 3)
    assert summary.total == 4


def test_a_description_without_labels_has_no_label_skew() -> None:
    summary = describe(from_arrays({"a": (np.zeros((2, 1)), np.array([0.5, 1.5]))}, split=(1, 0, 0)))
    assert summary.sites[0].labels == {}
    assert summary.label_skew == 0.0


def test_data_that_is_not_rows_cannot_be_described() -> None:
    def load(slot: int) -> Dataset:
        return "a table"  # type: ignore[return-value]  # a job's own functions may take anything

    with pytest.raises(DataError, match="site 'a'; got str"):
        describe(FederatedRows(["a"], load))
