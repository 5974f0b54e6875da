"""Two rounds of each algorithm on TFF's tiny problem, against the values that TensorFlow Federated 0.87 printed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from tests.unit.learning.linear import A, B, Linear, Loss, flat, models

from hansa.core.protocols import Dataset, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Tree
from hansa.learning.fedavg import fedavg
from hansa.learning.fedopt import fedopt
from hansa.learning.fedprox import fedprox
from hansa.learning.fedsgd import fedsgd
from hansa.learning.rounds import Rounds
from hansa.learning.schedules import Inverse

Made = Callable[..., Rounds]
WEIGHTED = [-1.4, -1.2, 0.2]
CASES: dict[str, tuple[Made, dict[str, Any], list[float], list[float]]] = {
    "FedAvg": (fedavg, {}, WEIGHTED, [-2.016, -0.874667, 1.141333]),
    "unweighted": (fedavg, {"weighting": "uniform"}, [-0.8, -0.4, 0.4], [-1.144, -0.032001, 1.112]),
    "server Adam": (
        fedopt,
        {"optimizer": "adam", "server_lr": 0.1},
        [-0.1, -0.1, 0.099998],
        [-0.199778, -0.199464, 0.199887],
    ),
    "server momentum": (
        fedopt,
        {"optimizer": "sgd", "server_lr": 1.0, "momentum": 0.9},
        WEIGHTED,
        [-3.276, -1.954667, 1.321333],
    ),
    "FedSGD": (fedsgd, {"combine": "mean"}, [1.866667, 2.933334, 1.066667], [-1.12, -1.386667, -0.266667]),
    "schedule": (fedavg, {"client_lr": Inverse(0.1)}, WEIGHTED, [0.356, 1.714667, 1.358667]),
}


@pytest.mark.parametrize("name", CASES)
def test_two_rounds_give_the_values_of_tensorflow_federated(name: str) -> None:
    algorithm, options, first, second = CASES[name]
    one, two = models(algorithm(Linear(), rounds=2, metrics=[Loss()], **options), [A, B], 2)
    assert flat(one) == pytest.approx(first, abs=1e-5)
    assert flat(two) == pytest.approx(second, abs=1e-5)


@dataclass(frozen=True)
class Repelled(Linear):
    """A linear regression whose proximal term pushes away from the server's model."""

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        return Linear.fit(self, model, data, replace(config, proximal=-config.proximal), rng=rng, abort=abort)


def test_fedprox_pulls_to_the_servers_model_where_tensorflow_federated_0_87_pushed_away() -> None:
    # TFF 0.87 printed the values of -mu (w - w0). The paper's term is mu/2 |w - w0|^2, whose gradient is +mu (w - w0).
    one, two = models(fedprox(Repelled(), rounds=2, mu=0.5, metrics=[Loss()]), [A, B], 2)
    assert flat(one) == pytest.approx([-1.366667, -1.133334, 0.233333], abs=1e-5)
    assert flat(two) == pytest.approx([-1.934667, -0.733334, 1.201333], abs=1e-5)
    # By hand: A's first step leads to w = (1, 2), b = 1; its second has the gradient (36, 48, 12) + 0.5 (1, 2, 1), so A ends at
    # (-2.65, -2.9, -0.25), B at (1, 2, 1), and the mean is (2 A + B) / 3.
    (pulled,) = models(fedprox(Linear(), rounds=1, mu=0.5, metrics=[Loss()]), [A, B], 1)
    assert flat(pulled) == pytest.approx([-4.3 / 3, -3.8 / 3, 0.5 / 3], abs=1e-12)
    assert flat(models(fedprox(Linear(), rounds=1, mu=0.0, metrics=[Loss()]), [A, B], 1)[0]) == pytest.approx(WEIGHTED)
