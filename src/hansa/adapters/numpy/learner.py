"""The learners that a job names `numpy.logistic`, `numpy.softmax` and `numpy.mlp`: settings only, models are Trees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from hansa.adapters.numpy import rows, sgd
from hansa.adapters.numpy.nets import Head, Net
from hansa.adapters.numpy.settings import Optimizer, Settings, agreed
from hansa.core import trees
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.core.types import TensorType
from hansa.errors import ConfigError, DataError, HansaError, SpecError

Kind: TypeAlias = Literal["logistic", "softmax", "mlp"]

_CHUNK_ROWS = 1 << 14  # rows predicted at a time, so that the memory does not grow with the site


def logistic(
    features: int | None = None,
    *,
    lr: float = 0.1,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int = 32,
    l2: float = 0.0,
    momentum: float = 0.0,
    optimizer: Optimizer = "sgd",
) -> NumpyLearner:
    """Logistic regression of a 0/1 label: leaves "weight" (features, 1) and "bias" (1,), float32, zero at first.

    Scores are (n,), the probability of class 1. `features` may be left out: see `NumpyLearner.bound_to`.

    >>> from hansa.core.rng import generator
    >>> learner = logistic(features=2)
    >>> model = learner.init(generator(0))
    >>> {path: leaf.shape for path, leaf in model.items()}
    {'weight': (2, 1), 'bias': (1,)}
    >>> learner.predict(model, np.ones((3, 2)))
    array([0.5, 0.5, 0.5], dtype=float32)

    Raises:
        ConfigError: a setting is out of range.
    """
    settings = Settings.given(lr=lr, epochs=epochs, steps=steps, batch=batch, l2=l2, momentum=momentum, optimizer=optimizer)
    return NumpyLearner("logistic", settings, features=features)


def softmax(
    classes: int | None = None,
    features: int | None = None,
    *,
    lr: float = 0.1,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int = 32,
    l2: float = 0.0,
    momentum: float = 0.0,
    optimizer: Optimizer = "sgd",
) -> NumpyLearner:
    """Multinomial logistic regression: leaves "weight" (features, classes) and "bias" (classes,), float32, zero at first.

    Rows are flattened, so images need no reshaping. Scores are (n, classes) probabilities. `classes` and `features` may be left
    out: see `NumpyLearner.bound_to`.

    >>> from hansa.core.rng import generator
    >>> learner = softmax(classes=4, features=6)
    >>> learner.predict(learner.init(generator(0)), np.ones((1, 2, 3)))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)

    Raises:
        ConfigError: a setting is out of range.
    """
    settings = Settings.given(lr=lr, epochs=epochs, steps=steps, batch=batch, l2=l2, momentum=momentum, optimizer=optimizer)
    return NumpyLearner("softmax", settings, features=features, classes=classes)


def mlp(
    hidden: Sequence[int] = (64,),
    *,
    classes: int | None = None,
    features: int | None = None,
    lr: float = 0.1,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int = 32,
    l2: float = 0.0,
    momentum: float = 0.0,
    optimizer: Optimizer = "sgd",
) -> NumpyLearner:
    """A perceptron with relu layers of `hidden` units and a softmax: leaves "0.weight" (in, out), "0.bias" (out,), "1.weight" ...

    Weights are float32, drawn as He et al. 2015 (https://arxiv.org/abs/1502.01852); biases are zero at first. Rows are flattened;
    scores are (n, classes) probabilities. `classes` and `features` may be left out: see `NumpyLearner.bound_to`.

    >>> from hansa.core.rng import generator
    >>> {path: leaf.shape for path, leaf in mlp((8,), classes=3, features=4).init(generator(0)).items()}
    {'0.weight': (4, 8), '0.bias': (8,), '1.weight': (8, 3), '1.bias': (3,)}

    Raises:
        ConfigError: a setting is out of range.
    """
    settings = Settings.given(lr=lr, epochs=epochs, steps=steps, batch=batch, l2=l2, momentum=momentum, optimizer=optimizer)
    return NumpyLearner("mlp", settings, features=features, classes=classes, hidden=tuple(hidden))


@dataclass(frozen=True, repr=False)
class NumpyLearner:
    """A Learner and BatchLearner in numpy; make one with `logistic`, `softmax` or `mlp`.

    Rows of any dtype are cast to the model's (float32); integers are not scaled. Models are float32 or float64 trees, and
    updates have the model's dtype. The tree's names are those of `model.safetensors`, so that a program of your own loads it in one
    line: `model = safetensors.numpy.load_file(path)`.
    """

    kind: Kind
    settings: Settings
    features: int | None = None
    classes: int | None = None
    hidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes: list[tuple[str, int | None, int]] = [
            ("features", self.features, 1),
            ("classes", self.classes, 2),
            *(("hidden", n, 1) for n in self.hidden),
        ]
        for name, value, low in sizes:
            if value is not None and (type(value) is not int or value < low):
                raise ConfigError("not a whole number in range", path=name, expected=f"an integer >= {low}", got=repr(value))

    def __repr__(self) -> str:
        shape = {"hidden": self.hidden if self.kind == "mlp" else None, "classes": self.classes, "features": self.features}
        known = [f"{name}={value}" for name, value in shape.items() if value is not None]
        return f"numpy.{self.kind}({', '.join([*known, str(self.settings)])})"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Loss and accuracy; for a 0/1 label also the area under the ROC curve."""
        return ("loss", "accuracy", "auc") if self.kind == "logistic" else ("loss", "accuracy")

    @property
    def rule(self) -> str:
        """How a step moves the weights: "sgd", "momentum" or "adam". Some algorithms hold for plain SGD alone."""
        return "momentum" if self.settings.momentum else self.settings.optimizer

    @property
    def needs_data(self) -> bool:
        """Whether the model's shape is not known yet: `bound_to` one site's rows before `init`."""
        return self.features is None or (self.classes is None and self.kind != "logistic")

    def bound_to(self, data: Dataset, classes: int | None = None) -> NumpyLearner:
        """This learner with the shapes that were left out: `features` of a site's rows, and `classes`.

        So that a job file may say `kind = "numpy.softmax"` alone. A site may lack the last classes: who knows their number (of the
        whole source, say) passes it. Otherwise it is the largest label + 1, at least 2. What the learner was given stands.

        >>> from hansa.testing.contracts import blobs
        >>> softmax().bound_to(blobs(6, seed=0), classes=10)
        numpy.softmax(classes=10, features=4, lr=0.1, epochs=1, batch=32)

        Raises:
            DataError: the rows do not fit what the learner was given, or labels are needed and there are none.
        """
        features = math.prod(np.shape(data.x)[1:])
        if self.features is not None and features != self.features:
            raise DataError("rows do not fit the learner", path="x", expected=f"{self.features} features", got=features)
        if self.kind == "logistic":
            if classes is not None and classes != 2:
                raise DataError("logistic is for two classes", path="y", expected=2, got=classes, hint="take numpy.softmax")
            return replace(self, features=features)
        known = self.classes or classes
        if known is None:
            if len(data) == 0:
                raise DataError("there are no labels to count classes by", path="y", hint="give `classes`")
            known = max(2, int(np.max(data.y)) + 1)
        return replace(self, features=features, classes=known)

    def accepts(self, x: TensorType, y: TensorType) -> None:
        """Return if rows of these types can be trained on, as far as types say.

        Raises:
            DataError: they cannot; names the array, what was expected and what came.
        """
        sizes = (x.shape or ())[1:]
        if x.dtype.kind not in "biuf":
            raise DataError("rows must be numbers", path="x", expected="numbers", got=x)
        if self.features is not None and None not in sizes and math.prod(n or 0 for n in sizes) != self.features:
            raise DataError("rows do not fit the learner", path="x", expected=f"{self.features} features a row", got=x)
        if y.dtype.kind not in "biuf" or len(y.shape or (None,)) != 1:
            raise DataError("a label is one number a row", path="y", expected="one class a row", got=y)

    def init(self, rng: np.random.Generator) -> Tree:
        """The first model: zeros for a convex one, He's draw for a perceptron.

        Raises:
            ConfigError: the shape is not known; names the argument to give.
        """
        outputs = 1 if self.kind == "logistic" else self.classes
        for name, value in (("features", self.features), ("classes", outputs)):
            if value is None:
                hint = f"give numpy.{self.kind} {name}=..., or take learner.bound_to(data)"
                raise ConfigError("the model's shape is not known", path=name, hint=hint)
        widths = (self.features or 0, *self.hidden, outputs or 0)
        net = Net(widths, self._prefixes, self._head)
        tree: dict[str, Array] = {}
        for path, shape in net.shapes.items():
            draw = self.kind == "mlp" and len(shape) == 2
            leaf = rng.normal(scale=np.sqrt(2 / shape[0]), size=shape) if draw else np.zeros(shape)
            tree[path] = leaf.astype(np.float32)
        return tree

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """Local training on the site's training part; see `Learner`.

        Each epoch takes the rows in the order of `rng.permutation`; momentum and Adam's moments begin anew.

        Raises:
            DataError: no training rows; NaN or infinity in a row (names the column); a label that is not a class.
            SpecError: the model or the correction has other leaves than this learner's.
            ConfigError: a setting out of range.
        """
        net, dtype = self._net(model)
        settings = self._settings(net, config)
        client = sgd.Client.of(net, model, data, settings, rng, dtype=dtype)
        update: Update = sgd.train(net, [client], dtype=dtype, abort=abort)[0]
        return update

    def fit_many(
        self,
        models: Sequence[Tree],
        datasets: Sequence[Dataset],
        configs: Sequence[FitConfig],
        *,
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[Update]:
        """Each client's update, trained together: see `BatchLearner`. Padding stays below a factor of two.

        Raises:
            DataError, SpecError, ConfigError: as `fit`, for the first client that is at fault (`path` begins with its place in the
                call: "client 3"); and if configs differ in more than lr and correction.
        """
        if not models:
            return []
        net, dtype = self._net(models[0])
        seen = {id(models[0])}
        settings: dict[int, Settings] = {}
        clients = []
        for i, (model, data, config, rng) in enumerate(zip(models, datasets, configs, rngs, strict=True)):
            try:
                if id(model) not in seen:
                    seen.add(id(model))
                    net.check(model)
                    if wrong := next(
                        (path for path, leaf in trees.leaves(model) if leaf.dtype != trees.flatten(models[0])[path].dtype), None
                    ):
                        raise SpecError("models that are fitted together have the same dtypes", path=wrong, hint="fit it alone")
                if id(config) not in settings:
                    settings[id(config)] = self._settings(net, config)
                place = f"client {i} x"
                clients.append(sgd.Client.of(net, model, data, settings[id(config)], rng, dtype=dtype, place=place))
            except HansaError as error:
                error.path = f"client {i}" + (f" {error.path}" if error.path else "")
                raise
        agreed(list(settings.values()))
        return sgd.train(net, clients, dtype=dtype)

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """Probabilities for each of the rows given, and their mean log loss.

        Raises:
            DataError: NaN or infinity in a row, or a label that is not a class.
            SpecError: the model has other leaves than this learner's.
        """
        net, logits = self._logits(model, data.x)
        y = rows.labels(data.y, rows=logits.shape[2], classes=max(net.widths[-1], 2))
        scores = self._scores(net, logits)
        if not len(y):
            return Evaluation(scores, float("nan"))
        with np.errstate(all="ignore"):
            losses, _ = net.losses(logits, y[None])
        return Evaluation(scores, float(losses.mean(dtype=np.float64)))

    def predict(self, model: Tree, x: Array) -> Array:
        """Probabilities for each row: (n,) of class 1 for `logistic`, else (n, classes).

        Raises:
            DataError: NaN or infinity in a row.
            SpecError: the model has other leaves than this learner's.
        """
        return self._scores(*self._logits(model, x))

    def _logits(self, model: Tree, x: Array) -> tuple[Net, Array]:
        """The net and the logits (1, outputs, n) of all rows."""
        net, dtype = self._net(model)
        row = np.empty((1, net.size), dtype)
        net.flatten(model, row[0])
        layers, x = net.layers(row), np.asarray(x)
        logits = np.empty((1, net.widths[-1], len(x)), dtype)
        with np.errstate(all="ignore"):
            for first in range(0, len(x), _CHUNK_ROWS):
                chunk = rows.matrix(x[first : first + _CHUNK_ROWS], features=net.widths[0], dtype=dtype)
                rows.require_finite(chunk)
                logits[:, :, first : first + _CHUNK_ROWS] = net.logits(layers, chunk[None])[0]
        return net, logits

    def _scores(self, net: Net, logits: Array) -> Array:
        with np.errstate(all="ignore"):
            scores = net.scores(logits)[0]
        return scores[0] if self.kind == "logistic" else np.ascontiguousarray(scores.T)

    @property
    def _head(self) -> Head:
        return "sigmoid" if self.kind == "logistic" else "softmax"

    @property
    def _prefixes(self) -> tuple[str, ...]:
        return tuple(f"{i}." for i in range(len(self.hidden) + 1)) if self.kind == "mlp" else ("",)

    def _net(self, model: Tree) -> tuple[Net, np.dtype[Any]]:
        """The net of a model, and the dtype to compute in: its own if float64, else float32."""
        net = Net.of(model, prefixes=self._prefixes, head=self._head)
        wide = any(leaf.dtype == np.float64 for _, leaf in trees.leaves(model))
        return net, np.dtype(np.float64 if wide else np.float32)

    def _settings(self, net: Net, config: FitConfig) -> Settings:
        settings = self.settings.under(config)
        if settings.correction is not None:
            net.check(settings.correction, partial=True)
        return settings
