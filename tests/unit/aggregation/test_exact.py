import math

import numpy as np
import pytest

from hansa.aggregation.exact import ExactMean, ExactSum, FixedPoint
from hansa.core.trees import Tree
from hansa.errors import ConfigError, NotFiniteError, RunError, SpecError, UpdateError, WeightError

POINT = FixedPoint(bound=4.0, weight=8.0, count=16)


def test_the_step_follows_from_the_bounds() -> None:
    # 62 bits for 4 * 8 * 16 = 2^9 leave 53 binary places
    assert POINT.fraction_bits == 53
    assert POINT.step == 2.0**-53
    assert FixedPoint(bound=1.0, count=2, bits=5).step == 1 / 16


def test_terms_are_rounded_half_to_even_to_the_step() -> None:
    total = ExactSum(FixedPoint(bound=1.0, count=1, bits=2))  # steps of 1/4
    assert total.finish(total.add(total.zero({"w": np.zeros(4)}), {"w": np.array([0.125, 0.375, -0.3, 0.9])}))["w"].tolist() == [
        0.0,
        0.5,
        -0.25,
        1.0,
    ]


def test_three_sites_by_hand() -> None:
    mean = ExactMean(POINT)
    acc = mean.zero({"w": np.zeros(2)})
    for update, weight in (([1.0, -2.0], 1.0), ([4.0, 0.0], 2.0), ([0.0, 3.0], 5.0)):
        acc = mean.add(acc, {"w": np.array(update)}, weight)
    assert mean.finish(acc)["w"].tolist() == [1.125, 1.625]


def test_leaves_keep_their_dtypes() -> None:
    tree = {"n": np.array([3, 4]), "h": np.array([0.1], np.float16), "c": np.array([1 + 2j], np.complex64), "b": np.array([True])}
    mean = ExactMean(POINT)
    result = mean.finish(mean.add(mean.zero(tree), tree, 2.0))
    assert {path: (leaf.dtype, leaf.tolist()) for path, leaf in result.items()} == {
        path: (leaf.dtype, leaf.tolist()) for path, leaf in tree.items()
    }


@pytest.mark.parametrize(
    ("update", "weight", "error"),
    [
        ({"w": np.array([1.0, 4.1])}, 1.0, UpdateError),
        ({"w": np.array([1.0, np.nan])}, 1.0, NotFiniteError),
        ({"w": np.array([1.0, -np.inf])}, 1.0, NotFiniteError),
        ({"w": np.array([1.0])}, 1.0, SpecError),
        ({"w": np.array([1.0, 2.0])}, 8.5, WeightError),
        ({"w": np.array([1.0, 2.0])}, 0.0, WeightError),
        ({"w": np.array([1.0, 2.0])}, math.nan, WeightError),
        ({"w": np.array([1.0, 2.0])}, 1e-300, WeightError),
    ],
)
def test_what_is_over_a_bound_is_refused_and_leaves_the_sum_unchanged(update: Tree, weight: float, error: type[Exception]) -> None:
    mean = ExactMean(POINT)
    acc = mean.add(mean.zero({"w": np.zeros(2)}), {"w": np.array([1.0, -1.0])}, 1.0)
    before = acc.sums["w"].tobytes()
    with pytest.raises(error):
        mean.add(acc, update, weight)
    assert acc.sums["w"].tobytes() == before


def test_the_largest_allowed_sum_fits() -> None:
    total = ExactSum(FixedPoint(bound=1.7, count=3))
    acc = total.zero({"w": np.zeros(1)})
    for _ in range(3):
        acc = total.add(acc, {"w": np.array([-1.7])})
    assert total.finish(acc)["w"][0] == pytest.approx(-5.1, rel=1e-15)
    with pytest.raises(RunError, match="at most 3; got 4"):
        total.add(acc, {"w": np.array([0.0])})
    with pytest.raises(RunError, match="at most 3; got 6"):
        total.merge(acc, acc)


def test_nothing_added_and_other_leaves_are_errors() -> None:
    with pytest.raises(RunError, match="nothing was added"):
        ExactMean(POINT).finish(ExactMean(POINT).zero({"w": np.zeros(1)}))
    with pytest.raises(SpecError):
        ExactSum(POINT).merge(ExactSum(POINT).zero({"w": np.zeros(1)}), ExactSum(POINT).zero({"v": np.zeros(1)}))


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"bound": 0.0}, "bound"),
        ({"bound": math.inf}, "bound"),
        ({"bound": 1.0, "weight": -1.0}, "weight"),
        ({"bound": 1.0, "count": 0}, "count"),
        ({"bound": 1.0, "bits": 63}, "bits"),
        ({"bound": 1e308, "weight": 10.0}, "bound"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(settings: dict[str, float], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FixedPoint(**settings)  # type: ignore[arg-type]  # one dict for fields of two types
    assert caught.value.path == path
