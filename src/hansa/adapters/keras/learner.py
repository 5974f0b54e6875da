"""KerasLearner: a Keras model as pure functions over Trees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from hansa.adapters.keras import engines
from hansa.adapters.keras.engines import Engine
from hansa.adapters.keras.held import Held, array
from hansa.adapters.keras.objective import Loss, Objective
from hansa.adapters.keras.rules import Asked, Chosen, Factory
from hansa.adapters.settings import RuleName, Scores, described, metric_names, named, refusing, require_scores
from hansa.adapters.training import Plan, bucket, drawn, inputs, order, padded, require_targets, targets, training
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.core.types import TensorType
from hansa.errors import ConfigError

_ROWS = 1024  # rows of one forward pass when no gradient is taken


class KerasLearner:
    """A learner from a function that builds a Keras 3 model. It holds settings, never weights.

    A model is Keras's weights under Keras's own paths ("dense/kernel", "batch_normalization/moving_mean"), those that are not
    trained included, each in its own dtype. `to_model(tree)` gives a Keras model, and `load(model, tree)` fills one of yours.

    model: builds the model, which knows its inputs (`keras.Input`); called once in a process, and again for new initial weights.
    loss: Keras's name of a loss, a keras.losses.Loss, or a function of (y, output) with a loss for each row. It decides, unless
        `scores` says otherwise, how outputs are read: a cross entropy from logits gives softmax or sigmoid scores, others the
        output itself. What layers add (regularisers) counts in training.
    lr, epochs or steps, batch: local training, where the algorithm asks for nothing else; one epoch, or all rows with batch 0.
    optimizer: "sgd" (with momentum), "adam", "adamw", or a function of the step size that returns a Keras optimizer.

    It runs on TensorFlow, torch or JAX, as KERAS_BACKEND says where Keras is first imported. Under JAX, which compiles for each
    number of rows, short batches are filled up with rows that count nothing, unless the model has batch normalisation. Floats of x
    become the model's dtype, and so do uint8 and booleans; other integers become int32 (token ids). y becomes int32 where it holds
    integers, and float otherwise. One thread at a time. Where workers are forked, Keras must not have been used before:
    `start="spawn"` is safe.

    >>> def net(): return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> KerasLearner(net, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), lr=0.5, batch=0)
    KerasLearner(net, loss=SparseCategoricalCrossentropy(from_logits=True), lr=0.5, epochs=1, batch=0)

    Raises:
        ConfigError: a setting that cannot be; names it.
    """

    def __init__(
        self,
        model: Callable[[], Any],
        *,
        loss: Loss,
        lr: float = 0.1,
        epochs: int | None = None,
        steps: int | None = None,
        batch: int = 32,
        optimizer: RuleName | Factory = "sgd",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        scores: Scores | None = None,
        metrics: Sequence[str] | None = None,
    ) -> None:
        if isinstance(model, keras.Model) or not callable(model):
            raise ConfigError("a learner takes a function that builds the model", path="model", got=type(model).__name__)
        require_scores(scores)
        self._model = model
        self._plan = Plan.given(lr=lr, epochs=epochs, steps=steps, batch=batch)
        self._optimizer = Chosen(optimizer, momentum, weight_decay)
        self._objective = Objective.of(loss, scores=scores, metrics=metric_names(metrics))
        parts = [named(model), f"loss={self._objective}"]
        settings = described(self._plan, optimizer, momentum, weight_decay, scores=scores, metrics=metrics)
        self._text = f"KerasLearner({', '.join([*parts, *settings])})"
        self._kept: Held | None = None
        self._ready: _Ready | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that are reported when the job names none."""
        return self._objective.metrics

    @property
    def rule(self) -> str | None:
        """How a step moves the weights: "sgd", "momentum", "adam" or "adamw"; None for an optimizer of the user's own."""
        return self._optimizer.rule

    def accepts(self, x: TensorType, y: TensorType) -> None:
        """Return if rows of these types can be trained on: the model and the loss take two rows of zeros.

        Raises:
            DataError: they cannot; names the array, and says what Keras says.
        """
        sizes = [(None,) if kind.shape is None else kind.shape[1:] for kind in (x, y)]
        if None in (*sizes[0], *sizes[1]):
            return
        zeros = [np.zeros((2, *(n or 0 for n in size)), kind.dtype) for kind, size in zip((x, y), sizes, strict=True)]
        rows, goals = inputs(zeros[0], self._held.floats), targets(zeros[1], self._held.floats)
        with refusing("x", "rows that the model takes", x):
            output = self._held.model(keras.ops.convert_to_tensor(rows), training=False)
        with refusing("y", "targets that the loss takes", y):
            self._objective(output, keras.ops.convert_to_tensor(goals), None)

    def init(self, rng: np.random.Generator) -> Tree:
        """The weights that the user's function gives when Keras's initializers follow `rng`."""
        return Held(self._model, int(rng.integers(1 << 31))).tree()

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """Local training on the data's training part.

        Raises:
            DataError: no rows, or rows that are no numbers.
            SpecError: the tree is not one of this model. ConfigError: the loss is not one for each row.
            Aborted: `abort` was triggered.
        """
        abort.check()
        plan, part, seed = self._plan.under(config), training(data), drawn(rng)
        held = self._loaded(model, seed=seed)
        engine = self._fresh_engine(plan.lr)
        x, y = inputs(part.x, held.floats), targets(part.y, held.floats)
        start = held.start() if plan.proximal else []
        steps, total = plan.count(len(x)), 0.0
        with engine.at_work():
            engine.begin(Asked.of(plan.proximal, start, held.correction(plan.correction), plan.clip))
            for rows in order(len(x), batch=plan.batch, steps=steps, rng=rng):
                abort.check()
                size = len(rows) if not engine.pads else plan.batch if 0 < plan.batch <= 2 * len(rows) else bucket(len(rows))
                (filled, share), (goals, _) = _filled(x[rows], size), _filled(y[rows], size)
                total += engine.step(filled, goals, np.ones(size, np.float32) if share is None else share)
            engine.end()
        return Update(held.delta(model), len(x), steps, plan.lr, total / steps)

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """The score of each row, and the mean loss over the rows.

        Raises:
            DataError: rows that are no numbers. SpecError: the tree is not one of this model.
        """
        require_targets(data.x, data.y)
        held = self._loaded(model)
        y, total, scores = targets(data.y, held.floats), 0.0, []
        for output, where in self._outputs(data.x):
            count = where.stop - where.start
            scores.append(self._objective.read(output, y.ndim)[:count])
            if count:
                rows, share = _filled(y[where], len(output))
                total += count * float(self._objective(output, keras.ops.convert_to_tensor(rows), share))
        return Evaluation(np.concatenate(scores), total / len(y) if len(y) else math.nan)

    def predict(self, model: Tree, x: Array) -> Array:
        """The score of each row of x: what `evaluate` gives.

        Raises:
            DataError: rows that are no numbers. SpecError: the tree is not one of this model.
        """
        self._loaded(model)
        scores = [self._objective.read(output, 1)[: where.stop - where.start] for output, where in self._outputs(x)]
        return np.concatenate(scores)

    def to_model(self, model: Tree) -> Any:
        """A new Keras model of the user's function with these weights; `hansa.tensors.load_tree` reads a tree from a file.

        Raises:
            SpecError: the tree is not one of this model.
        """
        held = Held(self._model, 0)
        held.load(model)
        return held.model

    def load(self, mine: Any, model: Tree) -> None:
        """Write these weights into a Keras model that has the same layers.

        Raises:
            SpecError: the tree, or the model, is not one of this learner's.
        """
        self._held.write(mine, model)

    def __repr__(self) -> str:
        return self._text

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None, "_ready": None}

    @property
    def _held(self) -> Held:
        if self._kept is None:
            self._kept = Held(self._model, 0)
        return self._kept

    def _loaded(self, model: Tree, *, seed: int = 0) -> Held:
        self._held.load(model, seed=seed)
        return self._held

    def _engine(self, lr: float) -> Engine:
        """The engine for this step size; one whose step size is a schedule is made anew for another."""
        if self._ready is None or (self._ready.scheduled and self._ready.lr != lr):
            optimizer = self._optimizer.at(lr)
            engine = engines.engine(self._held, self._objective, optimizer, self._optimizer.decay)
            scheduled = all(variable.name != "learning_rate" for variable in optimizer.variables)
            self._ready = _Ready(lr, optimizer, engine, _values(optimizer), scheduled)
        return self._ready.engine

    def _fresh_engine(self, lr: float) -> Engine:
        """The engine, its optimizer as one that was made for this step size and has taken no step."""
        engine = self._engine(lr)
        if (ready := self._ready) is not None:
            if ready.lr != lr:
                other = self._optimizer.at(lr)
                other.build(self._held.trained)
                self._ready = ready = ready._replace(lr=lr, first=_values(other))
            for variable, value in zip(ready.optimizer.variables, ready.first, strict=True):
                variable.assign(value)
        return engine

    def _outputs(self, x: Array) -> Iterator[tuple[Any, slice]]:
        """The model's output for some rows at a time, and for which: it has more where they are padded, and comes once for none.

        Raises:
            DataError: rows that are no numbers.
        """
        engine, floats = self._engine(self._plan.lr), self._held.floats
        with engine.at_work():
            for first in range(0, max(len(x), 1), _ROWS):
                where = slice(first, min(first + _ROWS, len(x)))
                piece = inputs(x[where], floats)
                yield engine.forward(padded(piece, bucket(len(piece))) if engine.pads else piece), where


class _Ready(NamedTuple):
    """What trains the held model: made for `lr`; `first` are the optimizer's variables before the first step."""

    lr: float
    optimizer: Any
    engine: Engine
    first: list[Array]
    scheduled: bool


def _values(optimizer: Any) -> list[Array]:
    return [array(variable.value) for variable in optimizer.variables]


def _filled(rows: Array, size: int) -> tuple[Array, Array | None]:
    """Rows filled up to a size, and what each of them counts for in a mean; None where there is nothing to fill."""
    if size == len(rows):
        return rows, None
    return padded(rows, size), np.where(np.arange(size) < len(rows), size / len(rows), 0).astype(np.float32)
