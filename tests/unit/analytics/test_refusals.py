"""What analytics refuse: settings that mean nothing, and data that they cannot count."""

import math
from typing import Any

import numpy as np
import pytest

from hansa import analytics
from hansa.core.plan import plan
from hansa.errors import ConfigError, DataError, TraceError


@pytest.mark.parametrize(
    ("made", "path"),
    [
        (lambda: analytics.histogram([1.0]), "edges"),
        (lambda: analytics.histogram([1.0, 1.0]), "edges"),
        (lambda: analytics.histogram([0.0, math.inf]), "edges"),
        (lambda: analytics.quantiles([]), "levels"),
        (lambda: analytics.quantiles([1.1]), "levels"),
        (lambda: analytics.quantiles([0.5], bounds=(1.0, 1.0)), "bounds"),
        (lambda: analytics.quantiles([0.5], rounds=0), "rounds"),
        (lambda: analytics.quantiles([0.5], bins=1), "bins"),
        (lambda: analytics.distinct(precision=3), "precision"),
        (lambda: analytics.distinct(precision=True), "precision"),
    ],
)
def test_a_setting_out_of_its_range_is_named(made: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made()
    assert caught.value.path == path


def test_what_cannot_be_counted_is_refused_where_it_is() -> None:
    with pytest.raises(DataError, match=r"infinite; at path \[1\]"):
        analytics.mean([[1.0, math.inf]])
    with pytest.raises(TraceError, match="client 0 -> values"):
        analytics.mean([[[1.0]]])
    with pytest.raises(TraceError, match="client 1 -> values"):
        analytics.sum([[1.0], ["a"]])


def test_only_counts_sums_and_ends_leave_a_site() -> None:
    stages = plan(analytics.quantiles([0.5], rounds=2)).stages
    leaving = [[(stage.labels[id(each.value)], each.kind) for each in stage.reductions] for stage in stages]
    assert leaving == [[("least", "min"), ("greatest", "max"), ("size", "sum")], [("at_most", "sum")], [("at_most", "sum")]]
    assert [len(stage.reads) for stage in plan(analytics.mean).stages] == [2]


def test_a_site_without_a_number_takes_no_part() -> None:
    sites = [np.array([]), np.array([np.nan]), np.array([2.0, 4.0])]
    found = [float(each(sites)) for each in (analytics.count, analytics.sum, analytics.mean, analytics.variance, analytics.min)]
    assert found == [2.0, 6.0, 3.0, 1.0, 2.0]
