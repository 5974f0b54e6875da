"""Partitions on small sources, with counts that can be checked by hand."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from hansa.core.trees import Array
from hansa.data import partition
from hansa.data.federated import FederatedRows, Rows, from_arrays
from hansa.errors import DataError

ALL = (1, 0, 0)


def source(count: int = 60, labels: int = 3) -> Rows:
    return Rows(np.arange(float(count))[:, None], np.arange(count) % labels)


def sizes(federated: FederatedRows) -> list[int]:
    return [len(federated.load(slot)) for slot in range(len(federated.sites))]


def xs(federated: FederatedRows, slot: int) -> list[float]:
    return list(federated.load(slot).x.ravel().tolist())


def test_iid_sites_have_equal_size() -> None:
    federated = partition.iid(source(7), sites=3, split=ALL)
    assert sizes(federated) == [3, 2, 2]
    assert list(federated.sites) == ["site-000", "site-001", "site-002"]


def test_a_small_alpha_gives_a_site_few_labels_and_a_large_one_all() -> None:
    rows = source(3000)
    skewed = [len(np.unique(partition.dirichlet(rows, sites=5, alpha=0.01, split=ALL).load(slot).y)) for slot in range(5)]
    even = [np.bincount(partition.dirichlet(rows, sites=5, alpha=1e6, split=ALL).load(slot).y) for slot in range(5)]
    assert max(skewed) <= 2
    assert all(abs(count - 200) <= 2 for counts in even for count in counts)


def test_dirichlet_keeps_the_smallest_site_at_min_rows() -> None:
    assert min(sizes(partition.dirichlet(source(200), sites=20, alpha=0.1, min_rows=3, split=ALL))) >= 3


def test_dirichlet_that_cannot_fill_each_site_says_what_to_change() -> None:
    with pytest.raises(DataError, match="a larger alpha, fewer sites or a smaller min_rows"):
        partition.dirichlet(source(40, labels=1), sites=20, alpha=0.001, min_rows=2)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_site_has_at_most_its_shards_labels(classes: int) -> None:
    federated = partition.shards(source(120, labels=4), sites=8, classes=classes, split=ALL)
    assert max(len(np.unique(federated.load(slot).y)) for slot in range(8)) <= classes
    assert sum(sizes(federated)) == 120


def test_shards_of_even_labels_are_even() -> None:
    assert sizes(partition.shards(source(120, labels=4), sites=6, classes=2, split=ALL)) == [20] * 6


def test_a_rare_label_is_cut_into_fewer_shards() -> None:
    rows = Rows(np.zeros((13, 1)), np.repeat([0, 1], [12, 1]))
    federated = partition.shards(rows, sites=5, classes=1, split=ALL)
    assert sorted(sizes(federated)) == [1, 3, 3, 3, 3]


def test_shards_need_a_shard_for_each_label_and_a_row_for_each_shard() -> None:
    for sites, classes in ((1, 2), (31, 2)):
        with pytest.raises(DataError, match="sites \\* classes from 3 to 60"):
            partition.shards(source(), sites=sites, classes=classes)


def test_quantity_skews_sizes_and_not_labels() -> None:
    federated = partition.quantity(source(3000), sites=5, alpha=0.3, min_rows=10, split=ALL)
    assert min(sizes(federated)) >= 10
    assert max(sizes(federated)) > 2 * min(sizes(federated))
    biggest = int(np.argmax(sizes(federated)))
    shares = np.bincount(federated.load(biggest).y) / sizes(federated)[biggest]
    assert np.abs(shares - 1 / 3).max() < 0.05


def test_a_column_gives_natural_sites_their_names() -> None:
    rows = Rows(
        np.arange(4.0)[:, None], np.zeros(4), {"site": np.array(["s", "n", "s", "n"]), "ward": np.array([2.0, 10.0, 2.0, 2.0])}
    )
    by_site, by_ward = partition.column(rows, split=ALL), partition.column(rows, by="ward", split=ALL)
    assert list(by_site.sites) == ["n", "s"]
    assert xs(by_site, 0) == [1.0, 3.0]
    assert list(by_ward.sites) == ["2", "10"]


def test_a_column_that_is_not_there_or_not_filled_is_refused() -> None:
    rows = Rows(np.zeros((2, 1)), np.zeros(2), {"ward": np.array([1.0, np.nan]), "site": np.array(["a", ""])})
    with pytest.raises(DataError, match="one of its columns: site, ward; got hospital"):
        partition.column(rows, by="hospital")
    with pytest.raises(DataError, match="iid, dirichlet"):
        partition.column(source())
    for by in ("ward", "site"):
        with pytest.raises(DataError, match=f"columns/{by}"):
            partition.column(rows, by=by)


PARTITIONS: dict[str, Callable[[Rows, int, int], FederatedRows]] = {
    "iid": lambda rows, sites, seed: partition.iid(rows, sites=sites, seed=seed),
    "dirichlet": lambda rows, sites, seed: partition.dirichlet(rows, sites=sites, alpha=0.5, seed=seed),
    "shards": lambda rows, sites, seed: partition.shards(rows, sites=sites, classes=2, seed=seed),
    "quantity": lambda rows, sites, seed: partition.quantity(rows, sites=sites, alpha=0.5, seed=seed),
}


@pytest.mark.parametrize("kind", PARTITIONS)
def test_the_same_seed_deals_the_same_rows_and_another_seed_others(kind: str) -> None:
    deal = PARTITIONS[kind]
    assert xs(deal(source(), 4, 1), 2) == xs(deal(source(), 4, 1), 2)
    assert xs(deal(source(), 4, 1), 2) != xs(deal(source(), 4, 2), 2)


@pytest.mark.parametrize("kind", PARTITIONS)
def test_a_test_set_of_the_source_is_dealt_whole_and_stays_the_test_part(kind: str) -> None:
    rows = Rows(np.arange(90.0)[:, None], np.arange(90) % 3, parts=np.repeat([0, 2], [60, 30]))
    federated = PARTITIONS[kind](rows, 10, 0)
    tested = [x for slot in range(10) for x in federated.load(slot).part("test").x.ravel().tolist()]
    assert sorted(tested) == list(range(60, 90))
    assert all(len(federated.load(slot).part("train")) for slot in range(10))


@pytest.mark.parametrize("kind", PARTITIONS)
@pytest.mark.parametrize("sites", [0, -1, 61, 2.0, True])
def test_a_number_of_sites_that_cannot_be_is_refused(kind: str, sites: int) -> None:
    with pytest.raises(DataError, match=r"path (sites|classes)"):
        PARTITIONS[kind](source(), sites, 0)


@pytest.mark.parametrize("alpha", [0, -1, float("inf"), float("nan"), "0.3"])
def test_a_concentration_that_is_not_positive_is_refused(alpha: float) -> None:
    for deal in (partition.dirichlet, partition.quantity):
        with pytest.raises(DataError, match="a positive number"):
            deal(source(), sites=2, alpha=alpha)


def test_too_many_rows_asked_for_each_site_says_how_many_sites_fit() -> None:
    with pytest.raises(DataError, match="too few for 10 rows at each site; at path sites; expected at most 6; got 7"):
        partition.quantity(source(), sites=7, alpha=1.0, min_rows=10)


@pytest.mark.parametrize("y", [np.linspace(0, 1, 6), np.zeros((6, 2), np.int64)])
def test_partitions_by_label_refuse_other_targets(y: Array) -> None:
    with pytest.raises(DataError, match="use iid, quantity or column"):
        partition.dirichlet(Rows(np.zeros((6, 1)), y), sites=2, alpha=1.0)
    with pytest.raises(DataError, match="use iid, quantity or column"):
        partition.shards(Rows(np.zeros((6, 1)), y), sites=2, classes=1)


def test_data_with_sites_of_its_own_takes_no_partition() -> None:
    federated = from_arrays({"a": (np.zeros((1, 1)), np.zeros(1))})
    with pytest.raises(DataError, match="takes no partition"):
        partition.iid(federated, sites=1)  # type: ignore[arg-type]  # what a job file may ask for


def test_a_partition_holds_indices_and_copies_when_a_site_is_loaded() -> None:
    rows = source()
    federated = partition.iid(rows, sites=2, split=ALL)
    rows.x[:] = -1
    assert set(xs(federated, 0)) == {-1.0}


def test_a_partition_survives_pickling() -> None:
    federated = partition.dirichlet(source(), sites=3, alpha=1.0)
    again = pickle.loads(pickle.dumps(federated))
    assert xs(again, 1) == xs(federated, 1)
