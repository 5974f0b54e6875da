"""Learners from scikit-learn's linear `partial_fit` models; a model is the tree of their `coef_` and `intercept_`.

Served are SGDClassifier, SGDRegressor, Perceptron and the passive-aggressive pair: their fitted state is two arrays, and the mean
of two such models is one again. `partial_fit` moves once for each row, so a *step* here is one call with a batch of rows. It takes
no gradient from outside: `clip`, `proximal` and `correction` are refused, by name, and never left out silently.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Protocol, cast

import numpy as np

from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.core.types import TensorType
from hansa.errors import ConfigError, DataError, MissingExtraError, SpecError

try:
    from sklearn import base, linear_model  # type: ignore[import-untyped,unused-ignore]  # it ships no types
except ImportError:
    raise MissingExtraError("scikit-learn", extra="sklearn") from None

_SERVED = ("SGDClassifier", "SGDRegressor", "Perceptron", "PassiveAggressiveClassifier", "PassiveAggressiveRegressor")


class Estimator(Protocol):
    """What is used of a scikit-learn estimator."""

    coef_: Array
    intercept_: Array
    classes_: Array
    n_features_in_: int
    t_: float

    def get_params(self) -> dict[str, Any]: ...
    def set_params(self, **params: object) -> Any: ...
    def partial_fit(self, x: Array, y: Array) -> Any: ...
    def predict(self, x: Array) -> Array: ...


def sgd_classifier(
    classes: int | None = None,
    features: int | None = None,
    *,
    lr: float = 0.01,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int = 32,
    loss: str = "log_loss",
    penalty: str | None = "l2",
    alpha: float = 1e-4,
) -> SklearnLearner:
    """A learner of scikit-learn's SGDClassifier with `loss`, `penalty` and `alpha`, at the constant step size `lr`.

    >>> from hansa.core.rng import generator
    >>> learner = sgd_classifier(classes=2, features=3)
    >>> model = learner.init(generator(0))
    >>> {path: leaf.shape for path, leaf in model.items()}
    {'coef': (1, 3), 'intercept': (1,)}
    >>> learner.to_estimator(model).predict_proba(np.ones((1, 3)))
    array([[0.5, 0.5]])

    Raises:
        ConfigError: a setting is out of range.
    """
    make = functools.partial(linear_model.SGDClassifier, loss=loss, penalty=penalty, alpha=alpha)
    return SklearnLearner(make, classes=classes, features=features, lr=lr, epochs=_one(epochs, steps), steps=steps, batch=batch)


def sgd_regressor(
    features: int | None = None,
    *,
    lr: float = 0.01,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int = 32,
    loss: str = "squared_error",
    penalty: str | None = "l2",
    alpha: float = 1e-4,
) -> SklearnLearner:
    """A learner of scikit-learn's SGDRegressor with `loss`, `penalty` and `alpha`, at the constant step size `lr`.

    >>> sgd_regressor(features=3)
    SklearnLearner(SGDRegressor(), features=3, lr=0.01, epochs=1, batch=32)

    Raises:
        ConfigError: a setting is out of range.
    """
    make = functools.partial(linear_model.SGDRegressor, loss=loss, penalty=penalty, alpha=alpha)
    return SklearnLearner(make, features=features, lr=lr, epochs=_one(epochs, steps), steps=steps, batch=batch)


def _one(epochs: int | None, steps: int | None) -> int:
    """How many epochs, where a person gives epochs or steps or nothing."""
    if epochs is not None and steps is not None:
        raise ConfigError("give epochs or steps", path="steps", got=f"epochs={epochs}, steps={steps}")
    return 1 if epochs is None else epochs


@dataclass(frozen=True, repr=False)
class SklearnLearner:
    """A Learner from `make`, which gives a new, unfitted linear estimator with `partial_fit` each time.

    Models are float64 trees: "coef" and "intercept" as the estimator shapes them, zero at first. `lr` sets eta0 and a constant
    schedule (of a passive-aggressive model C, the cap on its step); None leaves the estimator's own, whose schedule begins anew
    with each training. Labels are 0 ... classes - 1. The learner draws the order of the rows; the estimator's shuffle is off.

    Scores of a classifier are `predict_proba` where its loss has one (log_loss, modified_huber). Otherwise they are its decision
    values through a sigmoid, or through a softmax where there are several classes: right in order and in the class they
    choose, but not calibrated. The loss is the log loss of these scores, or the mean squared error of a regression.

    Raises:
        ConfigError: an estimator of another kind, one that averages, or a setting out of range.
    """

    make: Callable[[], Any]
    _: KW_ONLY
    classes: int | None = None
    features: int | None = None
    lr: float | None = None
    epochs: int = 1
    steps: int | None = None
    batch: int = 32

    def __post_init__(self) -> None:
        estimator = self.make()
        kind = type(estimator).__name__
        if not any(parent.__name__ in _SERVED for parent in type(estimator).__mro__):
            raise ConfigError(
                "the state of this estimator is not two arrays whose mean is a model",
                path="make",
                got=kind,
                expected=f"coef_ and intercept_ of {', '.join(_SERVED)}",
                hint="counts, trees and neighbours are not averaged; sum statistics with a computation of your own",
            )
        for name, served in (("average", (False, None)), ("early_stopping", (False, None)), ("warm_start", (False, None))):
            if (value := estimator.get_params().get(name)) not in served:
                raise ConfigError(f"{kind} keeps state that is not in coef_ and intercept_", path=name, expected=False, got=value)
        if estimator.get_params().get("class_weight") == "balanced":
            raise ConfigError("partial_fit cannot balance classes", path="class_weight", hint="give the weights as a mapping")
        _check(self)

    def __repr__(self) -> str:
        length = "steps" if self.steps is not None else "epochs"
        shown = [(name, getattr(self, name)) for name in ("classes", "features", "lr", length, "batch")]
        settings = "".join(f", {name}={value!r}" for name, value in shown if value is not None)
        return f"SklearnLearner({' '.join(repr(self.make()).split())}{settings})"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Loss and accuracy (and AUC where there are two classes), or loss and mean absolute error."""
        if self._regression:
            return ("loss", "mae")
        return ("loss", "accuracy", "auc") if self.classes == 2 else ("loss", "accuracy")

    @property
    def needs_data(self) -> bool:
        """Whether the model's shape is not known yet: `bound_to` one site's rows before `init`."""
        return self.features is None or (self.classes is None and not self._regression)

    def bound_to(self, data: Dataset, classes: int | None = None) -> SklearnLearner:
        """This learner with the shapes that were left out: `features` of a site's rows, and `classes`.

        A site may lack the last classes: who knows their number passes it. Otherwise it is the largest label + 1, at least 2.

        Raises:
            DataError: the rows do not fit what the learner was given, or labels are needed and there are none.
        """
        features = math.prod(np.shape(data.x)[1:])
        if self.features is not None and features != self.features:
            raise DataError("rows do not fit the learner", path="x", expected=f"{self.features} features", got=features)
        known = self.classes or classes
        if self._regression:
            known = None
        elif known is None:
            if len(data) == 0:
                raise DataError("there are no labels to count classes by", path="y", hint="give `classes`")
            known = max(2, int(np.max(data.y)) + 1)
        return replace(self, features=features, classes=known)

    def accepts(self, x: TensorType, y: TensorType) -> None:
        """Return if rows of these types can be trained on, as far as types say.

        Raises:
            DataError: they cannot; names the array, what was expected and what came.
        """
        sizes = [(None,) if kind.shape is None else kind.shape[1:] for kind in (x, y)]
        for path, kind in (("x", x), ("y", y)):
            if kind.dtype.kind not in "biuf":
                raise DataError("rows and labels must be numbers", path=path, expected="numbers", got=kind)
        features, labels = (None if None in size else math.prod(n or 0 for n in size) for size in sizes)
        if self.features is not None and features not in (None, self.features):
            raise DataError("rows do not fit the learner", path="x", expected=f"{self.features} features a row", got=x)
        if labels not in (None, 1):
            raise DataError("a label is one number a row", path="y", expected="one number a row", got=y)

    def init(self, rng: np.random.Generator) -> Tree:  # noqa: ARG002  the protocol's: a convex model begins at zero
        """Zeros.

        Raises:
            ConfigError: the shape is not known; names the argument to give.
        """
        for name, value in (("features", self.features), ("classes", 2 if self._regression else self.classes)):
            if value is None:
                hint = f"give the learner {name}=..., or take learner.bound_to(data)"
                raise ConfigError("the model's shape is not known", path=name, hint=hint)
        return {name: np.zeros(shape) for name, shape in self._shapes(self.features or 0, self.classes or 2).items()}

    def to_estimator(self, model: Tree) -> Any:
        """The model as a fitted estimator of scikit-learn's own: `predict`, `score` and `predict_proba` are its.

        `learner.to_estimator(safetensors.numpy.load_file("model.safetensors"))` loads a run's model.

        Raises:
            SpecError: the tree is not a model of this learner.
        """
        return self._loaded(model, self.make())

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """Local training on the site's training part: each step is one `partial_fit` of a batch, in the order of `rng`.

        The loss is the mean over the steps of the batch's loss before it was fitted. With `batch` 0 the rows keep their order.

        Raises:
            DataError: no training rows; NaN or infinity in a row (names the column); a label that is not a class.
            SpecError: the model has other leaves than this learner's.
            ConfigError: `clip`, `proximal` or `correction` is asked for, which `partial_fit` cannot serve.
        """
        settings = self._under(config)
        part = data.part("train")
        if len(part) == 0:
            raise DataError("there are no rows to train on", path="train", got="0 rows", hint="give the site rows, or leave it out")
        estimator = settings._loaded(model, settings._prepared(rng))
        x, y = _matrix(part.x, features=estimator.n_features_in_), settings._labels(part.y)
        params = estimator.get_params()
        losses = []
        for chosen in _batches(len(x), settings, rng):
            abort.check()
            losses.append(settings._loss(settings._scores(estimator, x[chosen]), y[chosen]))
            estimator.partial_fit(x[chosen], y[chosen])
        before = {name: np.asarray(model[name]) for name in ("coef", "intercept")}
        after = {"coef": estimator.coef_, "intercept": estimator.intercept_}
        delta = {name: (after[name] - leaf).astype(leaf.dtype) for name, leaf in before.items()}
        return Update(delta, len(x), len(losses), float(params[_step_size(params)]), float(np.mean(losses)))

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """Scores for each of the rows given, and their mean loss.

        Raises:
            DataError: NaN or infinity in a row, or a label that is not a class.
            SpecError: the model has other leaves than this learner's.
        """
        scores = self.predict(model, data.x)
        return Evaluation(scores, self._loss(scores, self._labels(data.y)) if len(scores) else float("nan"))

    def predict(self, model: Tree, x: Array) -> Array:
        """Scores for each row: (n,) of class 1 where there are two classes, (n, classes), or (n,) values of a regression.

        Raises:
            DataError: NaN or infinity in a row.
            SpecError: the model has other leaves than this learner's.
        """
        estimator = self._loaded(model, self.make())
        return self._scores(estimator, _matrix(x, features=estimator.n_features_in_))

    @property
    def _regression(self) -> bool:
        return bool(base.is_regressor(self.make()))

    def _under(self, config: FitConfig) -> SklearnLearner:
        """This learner with what the algorithm asks for. Its `epochs` or `steps` replace both of the learner's."""
        for name, asked in (("clip", config.clip is not None), ("proximal", config.proximal), ("correction", config.correction)):
            if asked:
                raise ConfigError("partial_fit cannot serve this", path=name, hint="take a numpy or torch learner")
        asked_length = config.epochs is not None or config.steps is not None
        return replace(
            self,
            lr=self.lr if config.lr is None else config.lr,
            epochs=self.epochs if config.epochs is None else config.epochs,
            steps=config.steps if asked_length else self.steps,
            batch=self.batch if config.batch is None else config.batch,
        )

    def _shapes(self, features: int, classes: int) -> dict[str, tuple[int, ...]]:
        outputs = 1 if self._regression or classes == 2 else classes
        return {"coef": (features,) if self._regression else (outputs, features), "intercept": (outputs,)}

    def _loaded(self, model: Tree, estimator: Estimator) -> Estimator:
        coef = model.get("coef")
        rows, features = coef.shape if isinstance(coef, np.ndarray) and coef.ndim == 2 else (1, np.size(cast(Array, coef)))
        classes = self.classes or max(2, rows)
        shapes = self._shapes(self.features or features, classes)
        for name in sorted(shapes.keys() | model.keys()):
            leaf = model.get(name)
            if name not in shapes or not isinstance(leaf, np.ndarray) or leaf.shape != shapes[name]:
                got = leaf.shape if isinstance(leaf, np.ndarray) else type(leaf).__name__
                raise SpecError("not a model of this learner", path=name, expected=shapes.get(name, "no such leaf"), got=got)
        # Copies: partial_fit moves its arrays in place.
        estimator.coef_ = np.array(model["coef"], np.float64)
        estimator.intercept_ = np.array(model["intercept"], np.float64)
        estimator.n_features_in_, estimator.t_ = features, 1.0
        if not self._regression:
            estimator.classes_ = np.arange(classes)
        return estimator

    def _prepared(self, rng: np.random.Generator) -> Estimator:
        """A new estimator with this step size, which leaves the order of the rows to the learner."""
        estimator = cast(Estimator, self.make())
        params = estimator.get_params()
        mine: dict[str, object] = {"shuffle": False, "random_state": int(rng.integers(2**31))}
        if self.lr is not None:
            mine |= {_step_size(params): self.lr, **({"learning_rate": "constant"} if "learning_rate" in params else {})}
        # A clone: a passive-aggressive model reads C when it is made, and never again.
        return cast(Estimator, base.clone(estimator.set_params(**mine)))

    def _labels(self, y: Array) -> Array:
        y = np.asarray(y).ravel()
        if self._regression:
            if not np.isfinite(y).all():
                raise DataError("a value to predict is NaN or infinite", path=f"y row {int(np.argmin(np.isfinite(y)))}")
            return y.astype(np.float64)
        known = np.isin(y, np.arange(self.classes or 2))
        if not known.all():
            row = int(np.argmin(known))
            expected = f"0 to {(self.classes or 2) - 1}"
            raise DataError("a label is not a class of the model", path=f"y row {row}", expected=expected, got=y[row])
        return y.astype(np.int64)

    def _scores(self, estimator: Any, x: Array) -> Array:
        if self._regression:
            return np.asarray(estimator.predict(x)) if len(x) else np.zeros(0)
        outputs = len(estimator.coef_)
        if len(x) == 0:
            return np.zeros(0) if outputs == 1 else np.zeros((0, outputs))
        if hasattr(estimator, "predict_proba"):
            p = np.asarray(estimator.predict_proba(x))
            return p[:, 1] if outputs == 1 else p
        z = np.asarray(estimator.decision_function(x))
        if outputs == 1:
            return np.asarray(0.5 + 0.5 * np.tanh(z / 2))  # the sigmoid, without overflow
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def _loss(self, scores: Array, y: Array) -> float:
        if self._regression:
            return float(np.mean((scores - y) ** 2))
        chosen = np.where(y == 1, scores, 1 - scores) if scores.ndim == 1 else scores[np.arange(len(y)), y]
        return float(-np.mean(np.log(np.maximum(chosen, np.finfo(np.float64).eps))))  # as sklearn.metrics.log_loss clips


def _step_size(params: Mapping[str, object]) -> str:
    return "eta0" if "eta0" in params else "C"


def _batches(n: int, settings: SklearnLearner, rng: np.random.Generator) -> Iterator[Array]:
    """The rows of each step: epochs are permutations, the last batch of each is short."""
    batch = settings.batch or n
    steps = settings.steps if settings.steps is not None else settings.epochs * -(-n // batch)
    while steps > 0:
        order = rng.permutation(n) if settings.batch else np.arange(n)
        for first in range(0, n, batch)[:steps]:
            yield order[first : first + batch]
            steps -= 1


def _matrix(x: Array, *, features: int) -> Array:
    flat = np.asarray(x, np.float64).reshape(len(x), math.prod(np.shape(x)[1:]))
    if flat.shape[1] != features:
        raise DataError("rows do not fit the model", path="x", expected=f"{features} features", got=flat.shape[1])
    finite = np.isfinite(flat).all(axis=0)
    if not finite.all():
        hint = "impute and scale by a federated statistics round: algorithm.standardise = true, in Python standardise=True"
        raise DataError(
            "an entry is NaN or infinite", path=f"x column {int(np.argmin(finite))}", expected="finite numbers", hint=hint
        )
    return flat


def _check(learner: SklearnLearner) -> None:
    for name, low in (("features", 1), ("classes", 2), ("epochs", 1), ("steps", 1), ("batch", 0)):
        value = getattr(learner, name)
        if not (value is None and name in {"features", "classes", "steps"}) and (type(value) is not int or value < low):
            raise ConfigError("not a whole number in range", path=name, expected=f"an integer >= {low}", got=repr(value))
    if learner.lr is not None and not (isinstance(learner.lr, int | float) and math.isfinite(learner.lr) and learner.lr > 0):
        raise ConfigError("not a number in range", path="lr", expected="a number > 0", got=repr(learner.lr))
