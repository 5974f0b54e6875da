"""TorchLearner against the suite of every Learner: plain, with each step rule, and with buffers that training changes."""

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from torch import nn  # noqa: E402  after importorskip

from hansa.adapters.torch import TorchLearner  # noqa: E402
from hansa.core.protocols import Learner  # noqa: E402
from hansa.testing.contracts import LearnerContract  # noqa: E402


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def deep() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1))


class TestASoftmaxRegression(LearnerContract):
    def learner(self) -> Learner:
        return TorchLearner(linear, loss=nn.functional.cross_entropy, lr=0.1)


class TestADeepBinaryModel(LearnerContract):
    def learner(self) -> Learner:
        return TorchLearner(deep, loss=nn.BCEWithLogitsLoss(), lr=0.1)
