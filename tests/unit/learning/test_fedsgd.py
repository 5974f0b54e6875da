"""FedSGD: three hospitals, two parameters, by hand."""

import numpy as np
import pytest
from tests.unit.learning.linear import Linear, Loss, flat, models, site

from hansa.aggregation.exact import ExactMean, FixedPoint
from hansa.errors import ConfigError
from hansa.learning.fedsgd import fedsgd

# One feature, so (w, b). At w = b = 0 the gradient is -2 mean(x y), -2 mean(y): (-4, -4), (-8, -4), (-9, -3).
SITES = [site(([1.0], 2.0)), site(([2.0], 2.0)), site(([3.0], 1.0), ([3.0], 2.0))]


def test_the_sum_adds_each_hospitals_step_once() -> None:
    (model,) = models(fedsgd(Linear(1), rounds=1, metrics=[Loss()]), SITES, 1)
    assert flat(model) == pytest.approx([0.1 * (4 + 8 + 9), 0.1 * (4 + 4 + 3)])


def test_the_mean_weighs_by_rows_and_is_the_pooled_gradient_step() -> None:
    (model,) = models(fedsgd(Linear(1), rounds=1, combine="mean", metrics=[Loss()]), SITES, 1)
    assert flat(model) == pytest.approx([0.1 * (4 + 8 + 2 * 9) / 4, 0.1 * (4 + 4 + 2 * 3) / 4])
    pooled = site(([1.0], 2.0), ([2.0], 2.0), ([3.0], 1.0), ([3.0], 2.0))
    (alone,) = models(fedsgd(Linear(1), rounds=1, metrics=[Loss()]), [pooled], 1)
    assert flat(model) == pytest.approx(flat(alone), rel=1e-12)


def test_a_uniform_mean_divides_the_sum_by_the_number_of_hospitals() -> None:
    (model,) = models(fedsgd(Linear(1), rounds=1, combine="mean", weighting="uniform", metrics=[Loss()]), SITES, 1)
    assert flat(model) == pytest.approx([0.1 * 21 / 3, 0.1 * 11 / 3])


def test_the_second_sum_starts_from_the_first() -> None:
    two = models(fedsgd(Linear(1), rounds=2, metrics=[Loss()]), SITES, 2)[1]
    w, b = 2.1, 1.1
    slopes = [
        np.mean([2 * (w * x[0] + b - y) * np.array([x[0], 1.0]) for x, y in zip(s.x, s.y, strict=True)], axis=0) for s in SITES
    ]
    assert flat(two) == pytest.approx([w - 0.1 * sum(s[0] for s in slopes), b - 0.1 * sum(s[1] for s in slopes)])


def test_an_aggregator_replaces_the_sum() -> None:
    exact = ExactMean(FixedPoint(bound=8.0, weight=8.0, count=100))
    (model,) = models(fedsgd(Linear(1), rounds=1, aggregator=exact, metrics=[Loss()]), SITES, 1)
    assert flat(model) == pytest.approx([0.1 * 30 / 4, 0.1 * 14 / 4], abs=1e-9)


@pytest.mark.parametrize("name", ["steps", "epochs", "batch"])
def test_another_number_of_steps_is_refused_because_it_would_not_be_fedsgd(name: str) -> None:
    with pytest.raises(ConfigError, match=f"fedsgd never takes '{name}'"):
        fedsgd(Linear(1), rounds=1, metrics=[Loss()], **{name: 3})  # type: ignore[arg-type]  # one of three options


def test_another_way_to_combine_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected sum or mean"):
        fedsgd(Linear(1), rounds=1, combine="median")  # type: ignore[arg-type]  # the point of the test
