"""Every learner of the light core keeps the Learner contract; those of a framework inherit it in their own tests."""

from hansa.adapters import numpy as learners
from hansa.core.protocols import Learner
from hansa.testing.contracts import LearnerContract


class TestLogistic(LearnerContract):
    def learner(self) -> Learner:
        return learners.logistic(features=4)


class TestSoftmax(LearnerContract):
    def learner(self) -> Learner:
        return learners.softmax(classes=3, features=4)


class TestPerceptron(LearnerContract):
    def learner(self) -> Learner:
        return learners.mlp((5, 3), classes=2, features=4)
