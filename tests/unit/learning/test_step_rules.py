"""Optimizers as pure functions: TensorFlow Federated's states and numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.errors import ConfigError
from hansa.learning import step_rules
from hansa.learning.step_rules import StepRule

CASES = [
    (step_rules.build_sgdm(0.1), [0.85, 2.3]),
    (step_rules.build_sgdm(0.1, momentum=0.9), [0.7195, 2.561]),
    (step_rules.build_adam(0.1), [0.700001, 2.299999]),
    (step_rules.build_adamw(0.1, weight_decay=0.004), [0.698922, 2.29748]),
    (step_rules.build_adagrad(0.1), [0.796702, 2.221149]),
    (step_rules.build_rmsprop(0.1), [0.262262, 2.737738]),
    (step_rules.build_yogi(0.1), [0.714154, 2.292794]),
]


@pytest.mark.parametrize(("rule", "expected"), CASES, ids=[f"{rule.name}-{len(rule.slots)}" for rule, _ in CASES])
def test_three_steps_end_where_tffs_end(rule: StepRule, expected: list[float]) -> None:
    weights = [np.array([1.0, 2.0], np.float32)]
    state = rule.initialize(weights)
    first = {name: np.copy(value) for name, value in state.items()}
    after = state
    for _ in range(3):
        after, weights = rule.next(after, weights, [np.array([0.5, -1.0], np.float32)])
    np.testing.assert_allclose(weights[0], expected, atol=2e-6)
    assert list(after) == list(state)
    assert all(np.array_equal(state[name], value) for name, value in first.items())  # nothing given is changed
    halved = rule.set_hparams(after, {**rule.get_hparams(after), "learning_rate": np.float32(0.05)})
    assert float(rule.get_hparams(halved)["learning_rate"]) == pytest.approx(0.05)


def test_a_hyper_parameter_that_is_no_number_of_at_least_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="path momentum"):
        step_rules.build_sgdm(0.1, momentum=-0.5)
