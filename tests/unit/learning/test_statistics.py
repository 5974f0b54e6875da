"""Statistics over all sites' rows are those of the pooled rows, and small counts stay at the site."""

import math
from typing import Any

import numpy as np
import pytest

import hansa as hs
from hansa.core.trees import Array
from hansa.data import datasets, partition
from hansa.data.federated import FederatedRows
from hansa.data.rows import Rows
from hansa.errors import ConfigError, QuorumError
from hansa.learning import statistics

nan = math.nan


def told(data: FederatedRows, **options: Any) -> dict[str, Any]:
    value = hs.simulate(hs.Job("s", statistics(**options)), data, seed=1).value
    assert isinstance(value, dict)
    return value


def sites(*xs: Array, labels: tuple[list[int], ...] | None = None) -> FederatedRows:
    ys = [np.zeros(len(x), np.int64) for x in xs] if labels is None else [np.array(each) for each in labels]
    return FederatedRows([f"s{k}" for k in range(len(xs))], lambda slot: Rows(xs[slot], ys[slot]))


def test_three_sites_by_hand() -> None:
    # age: 1, 3, 5 known, one missing: mean 3, spread sqrt(8/3); year: 2000, 2002 known at the first site alone
    data = sites(np.array([[1.0, 2000.0], [3.0, 2002.0]]), np.array([[5.0, nan]]), np.array([[nan, nan]]))
    found = told(data, features=["age", "year"], min_rows=1)
    assert found["columns"]["age"] == {"count": 3, "missing": 0, "mean": 3.0, "std": pytest.approx(math.sqrt(8 / 3)), "sites": 2}
    assert found["columns"]["year"] == {"count": 2, "missing": 0, "mean": 2001.0, "std": 1.0, "sites": 1}
    assert (found["rows"], found["kind"], found["part"]) == (4, "statistics", "all")


def test_the_statistics_are_those_of_the_pooled_rows() -> None:
    heart = datasets.heart()
    data = partition.column(heart, by="site")
    found = told(data, features=heart.features, classes=2, min_rows=1, histograms={"age": [20, 40, 50, 60, 80]})
    x = np.asarray(heart.x, np.float64)
    for k, name in enumerate(heart.features):
        column = found["columns"][name]
        assert column["count"] == int((~np.isnan(x[:, k])).sum())
        assert column["mean"] == pytest.approx(np.nanmean(x[:, k]), rel=1e-12)
        assert column["std"] == pytest.approx(np.nanstd(x[:, k]), rel=1e-9)
    age = x[:, heart.features.index("age")]
    assert found["histograms"]["age"]["counts"] == np.histogram(age, [20, 40, 50, 60, 80])[0].tolist()
    assert found["labels"] == {str(k): int((np.asarray(heart.y) == k).sum()) for k in range(2)}


def test_a_site_says_nothing_of_what_too_few_of_its_rows_have() -> None:
    many, few = np.arange(6.0)[:, None], np.array([[100.0]])
    data = sites(many, few, labels=([0, 0, 0, 0, 0, 1], [1]))
    found = told(data, features=["v"], classes=2, histograms={"v": [0, 3, 6, 200]})
    assert found["columns"]["v"] == {"count": 6, "missing": 0, "mean": 2.5, "std": pytest.approx(math.sqrt(35 / 12)), "sites": 1}
    assert found["histograms"]["v"]["counts"] == [0, 0, 0]  # three in each bin: fewer than five
    assert found["labels"] == {"0": 5, "1": 0}
    assert found["rows"] == 7


def test_a_column_that_nobody_has_is_not_a_number() -> None:
    found = told(sites(np.full((6, 1), nan)))
    column = found["columns"]["x[0]"]
    assert (column["count"], column["sites"]) == (0, 0)
    assert math.isnan(column["mean"])


def test_a_site_with_other_columns_or_labels_is_refused_by_name_and_the_others_count() -> None:
    result = hs.simulate(hs.Job("s", statistics(features=["a"], min_rows=1)), sites(np.ones((5, 1)), np.ones((5, 2))))
    assert [each["site"] for each in result.metrics[0]["refused"]] == ["s1"]
    assert result.value["rows"] == 5
    unnamed = hs.simulate(hs.Job("s", statistics(min_rows=1)), sites(np.ones((5, 1)), np.ones((5, 2))))
    assert [each["code"] for each in unnamed.metrics[0]["refused"]] == ["spec"]
    with pytest.raises(QuorumError, match="quorum"):
        told(sites(np.ones((5, 1)), labels=([0, 1, 2, 0, 0],)), classes=2)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"min_rows": 0}, "min_rows"),
        ({"classes": 1}, "classes"),
        ({"part": "half"}, "part"),
        ({"histograms": {"a": [0, 1]}}, "histograms.a"),
        ({"features": ["a"], "histograms": {"a": [1, 0]}}, "histograms.a"),
        ({"quorum": 0}, "quorum"),
    ],
)
def test_what_cannot_be_asked_is_refused_when_the_job_is_made(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        statistics(**options)
    assert caught.value.path == path
