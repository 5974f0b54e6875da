"""FedSGD: three hospitals, two parameters, by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import Linear, Loss, Recorded, flat, models, site

from hansa.adapters.numpy import softmax
from hansa.aggregation.exact import ExactMean, FixedPoint
from hansa.errors import ConfigError, SpecError
from hansa.learning.fedsgd import SumOfSteps, fedsgd
from hansa.learning.rounds import Rounds
from hansa.learning.scaffold import scaffold
from hansa.testing.fakes import ConstantLearner, rows

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


def test_statistics_and_counters_are_averaged_where_steps_are_summed() -> None:
    # Each of ten sites brings the running variance from 1 to 0.9; their changes added up would bring it to 0.
    delta = {"w": np.full(1, 0.5), "bn.running_var": np.full(1, -0.1), "bn.num_batches_tracked": np.array(1)}
    init = {"w": np.zeros(1), "bn.running_var": np.ones(1), "bn.num_batches_tracked": np.array(0)}
    job = fedsgd(ConstantLearner(delta), rounds=1, metrics=[], init=init, evaluate_sites="none")
    model = Recorded([rows(3) for _ in range(10)], job).run().model
    assert [float(np.asarray(model[name]).item()) for name in init] == pytest.approx([5.0, 0.9, 1.0])


def test_the_mean_of_statistics_weighs_by_rows() -> None:
    steps, like = SumOfSteps(), {"w": np.zeros(1), "bn.running_mean": np.zeros(1)}
    left = steps.add(steps.zero(like), {"w": np.ones(1), "bn.running_mean": np.full(1, 4.0)}, 3.0)
    right = steps.add(steps.zero(like), {"w": np.ones(1), "bn.running_mean": np.full(1, 8.0)}, 1.0)
    both = steps.finish(steps.merge(left, right))
    assert (both["w"].tolist(), both["bn.running_mean"].tolist()) == ([2.0], [5.0])


def test_an_update_of_other_leaves_adds_nothing_to_either() -> None:
    steps, like = SumOfSteps(), {"w": np.zeros(1), "bn.running_mean": np.zeros(1)}
    acc = steps.add(steps.zero(like), {"w": np.ones(1), "bn.running_mean": np.full(1, 4.0)}, 1.0)
    with pytest.raises(SpecError):
        steps.add(acc, {"w": np.ones(2), "bn.running_mean": np.full(1, 8.0)}, 1.0)
    assert steps.finish(acc)["bn.running_mean"].tolist() == [4.0]


@pytest.mark.parametrize("algorithm", [fedsgd, scaffold])
@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"momentum": 0.9}])
def test_a_learner_with_another_rule_than_sgd_is_refused(algorithm: Callable[..., Rounds], settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="plain SGD") as caught:
        algorithm(softmax(2, 4, **settings), rounds=1)
    assert caught.value.path == "learner.optimizer"
    algorithm(softmax(2, 4), rounds=1)


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
