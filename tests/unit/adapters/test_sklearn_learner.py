import functools
import importlib
import math
import sys

import numpy as np
import pytest

from hansa import registry
from hansa.core import trees
from hansa.core.protocols import FitConfig, Learner, Update
from hansa.core.rng import generator
from hansa.core.task import Signal
from hansa.core.trees import Array
from hansa.core.types import TensorType
from hansa.errors import ConfigError, DataError, MissingExtraError, SpecError
from hansa.testing.contracts import LearnerContract, SplitRows, blobs

pytest.importorskip("sklearn", reason="the extra `sklearn` is not installed")

from sklearn.linear_model import (  # type: ignore[import-untyped,unused-ignore]  # it ships no types
    PassiveAggressiveClassifier,
    Perceptron,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.naive_bayes import MultinomialNB  # type: ignore[import-untyped,unused-ignore]  # it ships no types

from hansa.adapters.sklearn import SklearnLearner, sgd_classifier, sgd_regressor


def leaves(update: Update) -> dict[str, Array]:
    return trees.flatten(update.delta)


def test_a_job_is_checked_against_the_types_of_a_sites_data() -> None:
    ours, x, y = sgd_classifier(classes=2, features=12), TensorType(np.uint8, (None, 3, 4)), TensorType(np.int32, (None,))
    for rows, labels in ((x, y), (TensorType(np.float32, None), y), (x, TensorType(np.float64, (None, 1)))):
        ours.accepts(rows, labels)
    sgd_regressor().accepts(x, y)
    wrong = [(TensorType(np.float32, (None, 13)), y, "x"), (TensorType(np.str_, (None, 12)), y, "x")]
    for rows, labels, path in [*wrong, (x, TensorType(np.int32, (None, 2)), "y"), (x, TensorType(np.str_, (None,)), "y")]:
        with pytest.raises(DataError) as caught:
            ours.accepts(rows, labels)
        assert caught.value.path == path


class TestClassifier(LearnerContract):
    refuses = ("clip", "proximal", "correction")

    def learner(self) -> Learner:
        return sgd_classifier(classes=2, features=4, lr=0.1, penalty=None)


class TestThreeClassesOfAPerceptron(LearnerContract):
    refuses = ("clip", "proximal", "correction")

    def learner(self) -> Learner:
        return SklearnLearner(Perceptron, classes=3, features=4, lr=0.1)

    def test_the_algorithms_step_size_is_used_and_reported(self) -> None:
        assert self.fit(FitConfig(lr=0.25)).lr == 0.25  # a perceptron from zero is the same for any step size, but for scale


class TestRegressor(LearnerContract):
    refuses = ("clip", "proximal", "correction")

    def learner(self) -> Learner:
        return sgd_regressor(features=4, lr=0.01, penalty=None)


def test_a_row_moves_a_regression_by_the_step_size_times_its_residual() -> None:
    # SGDRegressor's loss is (p - y)^2 / 2: from zero, x = (1, 2), y = 3 gives w = lr 3 x, b = lr 3.
    learner = sgd_regressor(features=2, lr=0.1, penalty=None)
    data = SplitRows(np.array([[1.0, 2.0]]), np.array([3.0]), 1)
    update = learner.fit(learner.init(generator(0)), data, FitConfig(), rng=generator(0), abort=Signal())
    np.testing.assert_allclose(leaves(update)["coef"], [0.3, 0.6])
    np.testing.assert_allclose(leaves(update)["intercept"], [0.3])
    assert update[1:] == (1, 1, 0.1, 9.0)


def test_the_fitted_estimator_of_a_model_scores_as_the_learner_does() -> None:
    data, learner = blobs(30, seed=1), sgd_classifier(classes=2, features=4)
    start = learner.init(generator(0))
    model = trees.add(start, learner.fit(start, data, FitConfig(epochs=3), rng=generator(0), abort=Signal()).delta)
    estimator = learner.to_estimator(model)
    np.testing.assert_array_equal(estimator.predict_proba(data.x)[:, 1], learner.predict(model, data.x))
    assert estimator.score(data.x, data.y) > 0.7
    estimator.coef_ += 1.0
    assert not np.shares_memory(estimator.coef_, model["coef"])


def test_a_loss_without_probabilities_is_squashed_in_the_order_of_its_decisions() -> None:
    model = {"coef": np.array([[1.0]]), "intercept": np.array([0.0])}
    hinge = sgd_classifier(classes=2, features=1, loss="hinge")
    np.testing.assert_allclose(hinge.predict(model, np.array([[0.0], [math.log(3)], [1e4]])), [0.5, 0.75, 1.0])
    several = {"coef": np.eye(3), "intercept": np.zeros(3)}
    scores = sgd_classifier(classes=3, features=3, loss="hinge").predict(several, np.array([[math.log(2), 0.0, 0.0]]))
    np.testing.assert_allclose(scores, [[0.5, 0.25, 0.25]])


def test_the_shape_is_read_from_a_sites_rows() -> None:
    free = sgd_classifier()
    assert free.needs_data
    assert "classes" not in repr(free)
    bound = free.bound_to(blobs(5, seed=0), classes=4)
    assert not bound.needs_data
    assert {path: leaf.shape for path, leaf in trees.leaves(bound.init(generator(0)))} == {"coef": (4, 4), "intercept": (4,)}
    assert free.bound_to(blobs(5, seed=0)).classes == 2
    assert not sgd_regressor().bound_to(blobs(5, seed=0)).needs_data
    with pytest.raises(ConfigError, match="features"):
        free.init(generator(0))
    with pytest.raises(ConfigError, match="classes"):
        sgd_classifier(features=2).init(generator(0))


def test_an_estimator_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"coef_ and intercept_.*MultinomialNB"):
        SklearnLearner(MultinomialNB)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (functools.partial(SGDClassifier, average=True), "average"),
        (functools.partial(SGDRegressor, early_stopping=True), "early_stopping"),
        (functools.partial(SGDClassifier, class_weight="balanced"), "class_weight"),
    ],
)
def test_an_estimator_that_keeps_more_than_its_arrays_is_refused(make: functools.partial[object], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        SklearnLearner(make)


@pytest.mark.parametrize(("setting", "value"), [("lr", 0.0), ("epochs", 0), ("steps", 0), ("batch", -1), ("classes", 1)])
def test_a_setting_out_of_range_is_named(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=setting):
        SklearnLearner(SGDClassifier, **{setting: value})  # type: ignore[arg-type]  # the wrong value is the test


def test_a_missing_value_names_its_column() -> None:
    data = blobs(4, seed=0)
    x = data.x.copy()
    x[2, 3] = np.nan
    learner = sgd_classifier(classes=2, features=4)
    with pytest.raises(DataError, match=r"x column 3.*standardise"):
        learner.fit(learner.init(generator(0)), SplitRows(x, data.y, 4), FitConfig(), rng=generator(0), abort=Signal())


def test_a_label_that_is_no_class_names_its_row() -> None:
    learner = sgd_classifier(classes=2, features=4)
    with pytest.raises(DataError, match=r"y row 2.*0 to 1"):
        learner.evaluate(learner.init(generator(0)), SplitRows(blobs(3, seed=0).x, np.array([0, 1, 2]), 3))


def test_a_model_of_another_shape_is_refused() -> None:
    learner = sgd_classifier(classes=2, features=4)
    with pytest.raises(SpecError, match="coef"):
        learner.predict({"coef": np.zeros((1, 3)), "intercept": np.zeros(1)}, np.zeros((1, 3)))
    with pytest.raises(SpecError, match="extra"):
        learner.predict({**learner.init(generator(0)), "extra": np.zeros(1)}, np.zeros((1, 4)))


def test_without_a_step_size_of_its_own_the_estimators_schedule_stands() -> None:
    learner = SklearnLearner(functools.partial(SGDClassifier, learning_rate="invscaling", eta0=0.5), classes=2, features=4)
    update = learner.fit(learner.init(generator(0)), blobs(4, seed=0), FitConfig(), rng=generator(0), abort=Signal())
    assert update.lr == 0.5


@pytest.mark.filterwarnings("ignore:Class PassiveAggressive")  # scikit-learn is taking it out; it is served while it is there
def test_the_step_size_of_a_passive_aggressive_model_is_its_cap() -> None:
    # Hinge loss 1 at w = 0, y = +1 and x = (3, 4): the step is min(C, 1 / 25), along x.
    learner = SklearnLearner(PassiveAggressiveClassifier, classes=2, features=2)
    data, start = SplitRows(np.array([[3.0, 4.0]]), np.array([1]), 1), {"coef": np.zeros((1, 2)), "intercept": np.zeros(1)}
    update = learner.fit(start, data, FitConfig(lr=0.01), rng=generator(0), abort=Signal())
    np.testing.assert_allclose(leaves(update)["coef"], [[0.03, 0.04]])
    assert update.lr == 0.01


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "hansa.adapters.sklearn")
    with pytest.raises(MissingExtraError, match=r"hansa\[sklearn\]"):
        importlib.import_module("hansa.adapters.sklearn")


@pytest.mark.parametrize("name", ["sgd_classifier", "sgd_regressor"])
def test_a_job_file_finds_the_learner_by_name(name: str) -> None:
    make = registry.find("learners", f"sklearn.{name}")
    assert callable(make)
    assert isinstance(make(features=2), SklearnLearner)


def test_epochs_and_steps_are_not_given_together() -> None:
    with pytest.raises(ConfigError, match="give epochs or steps"):
        sgd_regressor(4, epochs=1, steps=2)
