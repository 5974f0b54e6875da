"""Logistic regression, softmax regression and a multi-layer perceptron in numpy alone, written for many clients at once."""

from hansa.adapters.numpy.learner import NumpyLearner, logistic, mlp, softmax

__all__ = ["NumpyLearner", "logistic", "mlp", "softmax"]
