"""JaxLearner: a model given as two functions of JAX."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from hansa.adapters.jax.leaves import Names
from hansa.adapters.jax.local import Client, Local, agreed
from hansa.adapters.jax.rows import Part
from hansa.adapters.jax.rules import Chosen, Factory
from hansa.adapters.settings import METRICS, RuleName, Scores, described, metric_names, named, refusing, require_scores
from hansa.adapters.training import Plan, bucket, drawn, inputs, padded, require_targets, targets, training
from hansa.core.protocols import Dataset, Evaluation, FitConfig, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.core.types import TensorType
from hansa.errors import ConfigError

_ROWS = 1024  # rows of one forward pass when no gradient is taken
_KINDS: Mapping[str, Scores] = {  # of Optax's losses, by name, so that Optax need not be there
    "softmax_cross_entropy_with_integer_labels": "softmax",
    "softmax_cross_entropy": "softmax",
    "sigmoid_binary_cross_entropy": "sigmoid",
}


class JaxLearner:
    """A learner from `init(key) -> parameters` and `apply(parameters, x) -> output`. It holds settings, never weights.

    The parameters are any pytree of arrays (a dict, Flax's or Haiku's variables); leaves that are no floats are kept as they are. A
    whole local training is one compiled call. Rows are padded to powers of two, so that sites of many sizes share few compilations.

    init: (key) -> parameters. apply: (parameters, x) -> output (n, ...); one that takes `key=` is given a key in training and None
        otherwise, for dropout.
    loss: (output, y) -> a loss for each row (n,), as Optax's are; more dimensions are averaged. Not their mean: rows that pad count
        nothing. Optax's cross entropies say how outputs are read; for others `scores` does.
    lr, epochs or steps, batch: local training, where the algorithm asks for nothing else; one epoch, or all rows with batch 0.
    optimizer: "sgd" (with momentum), "adam", "adamw", or a function of the step size, such as optax.lion.

    Floats of x become the model's dtype, and so do uint8 and booleans; other integers become int32. y becomes int32 where it holds
    integers, and float otherwise. Where workers are forked, JAX must not have been used before: `start="spawn"` is safe.

    >>> def init(key): return {"weight": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}
    >>> def apply(params, x): return x @ params["weight"] + params["bias"]
    >>> def loss(output, y): return ((output - y) ** 2).sum(-1)
    >>> JaxLearner(init, apply, loss=loss, lr=0.5, batch=0)
    JaxLearner(init, apply, loss=loss, lr=0.5, epochs=1, batch=0)

    Raises:
        ConfigError: a setting that cannot be; names it.
    """

    def __init__(
        self,
        init: Callable[[Any], Any],
        apply: Callable[..., Any],
        *,
        loss: Callable[[Any, Any], Any],
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
        for key, value in (("init", init), ("apply", apply), ("loss", loss)):
            if not callable(value):
                raise ConfigError(f"{key} is a function", path=key, got=repr(value))
        require_scores(scores)
        self._init, self._apply, self._loss = init, apply, loss
        self._scores: Scores = scores or _KINDS.get(named(loss), "raw")
        self._metrics = METRICS[self._scores] if metrics is None else metric_names(metrics) or ()
        self._plan = Plan.given(lr=lr, epochs=epochs, steps=steps, batch=batch)
        self._optimizer = Chosen(optimizer, momentum, weight_decay)
        self._keyed = "key" in inspect.signature(apply).parameters
        self._text = self._describe(scores, metrics)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that are reported when the job names none."""
        return self._metrics

    @property
    def rule(self) -> str | None:
        """How a step moves the weights: "sgd", "momentum", "adam" or "adamw"; None for an optimizer of the user's own."""
        return self._optimizer.rule

    def accepts(self, x: TensorType, y: TensorType) -> None:
        """Return if rows of these types can be trained on: the model and the loss take their shapes, and nothing is computed.

        Raises:
            DataError: they cannot; names the array, and says what JAX says.
        """
        sizes = [(None,) if kind.shape is None else kind.shape[1:] for kind in (x, y)]
        read = [like(np.zeros(0, kind.dtype), self._floats).dtype for like, kind in ((inputs, x), (targets, y))]
        if None in (*sizes[0], *sizes[1]):
            return
        rows, goals = (jax.ShapeDtypeStruct((2, *size), dtype) for size, dtype in zip(sizes, read, strict=True))
        known = dict(self._names.spec.items)
        leaves = [jax.ShapeDtypeStruct(known[path].shape, known[path].dtype) for path in self._names.paths]
        with refusing("x", "rows that the model takes", x):
            jax.eval_shape(functools.partial(self._output, key=None), leaves, rows)
        with refusing("y", "targets that the loss takes", y):
            jax.eval_shape(functools.partial(self._row_losses, key=None), leaves, rows, goals)

    def init(self, rng: np.random.Generator) -> Tree:
        """The parameters that the user's `init` gives for a key drawn from `rng`."""
        return self._names.tree(jax.tree_util.tree_leaves(self._init(jax.random.PRNGKey(int(rng.integers(1 << 31))))))

    def fit(self, model: Tree, data: Dataset, config: FitConfig, *, rng: np.random.Generator, abort: Signal) -> Update:
        """Local training on the data's training part.

        Raises:
            DataError: no rows, or rows that are no numbers.
            SpecError: the tree is not one of this model. ConfigError: the loss is not one for each row.
            Aborted: `abort` was triggered.
        """
        abort.check()
        client = self._client(model, data, self._plan.under(config), rng)
        return self._update(client, *self._local.fit(client, abort=abort))

    def fit_many(
        self,
        models: Sequence[Tree],
        datasets: Sequence[Dataset],
        configs: Sequence[FitConfig],
        *,
        rngs: Sequence[np.random.Generator],
    ) -> list[Update]:
        """Each client's update, trained together in groups whose rows and steps are within a factor of two; see `BatchLearner`.

        Raises:
            ConfigError: the configs differ in more than lr and correction. DataError, SpecError: as `fit`.
        """
        plans = [self._plan.under(config) for config in configs]
        agreed(plans)
        alike = any(plan.correction is not None for plan in plans)
        each = zip(models, datasets, plans, rngs, strict=True)
        clients = [self._client(model, data, plan, rng, corrected=alike) for model, data, plan, rng in each]
        updates: dict[int, Update] = {}
        for group in _groups(clients):
            found = self._local.fit_many([clients[i] for i in group])
            updates |= {i: self._update(clients[i], *one) for i, one in zip(group, found, strict=True)}
        return [updates[i] for i in range(len(clients))]

    def evaluate(self, model: Tree, data: Dataset) -> Evaluation:
        """The score of each row, and the mean loss over the rows.

        Raises:
            DataError: rows that are no numbers. SpecError: the tree is not one of this model.
        """
        require_targets(data.x, data.y)
        leaves, y = self._names.leaves(model), targets(data.y, self._floats)
        scores, losses = [], [np.zeros(0)]
        for x, where in self._pieces(data.x):
            output, each = self._scored_losses(leaves, x, padded(y[where], len(x)))
            scores.append(np.asarray(output)[: len(y[where])])
            losses.append(np.asarray(each, np.float64)[: len(y[where])])
        total = np.concatenate(losses)
        return Evaluation(self._column(np.concatenate(scores), y.ndim), float(total.mean()) if len(total) else math.nan)

    def predict(self, model: Tree, x: Array) -> Array:
        """The score of each row of x: what `evaluate` gives.

        Raises:
            DataError: rows that are no numbers. SpecError: the tree is not one of this model.
        """
        leaves = self._names.leaves(model)
        scores = [np.asarray(self._scored(leaves, piece))[: len(x[where])] for piece, where in self._pieces(x)]
        return self._column(np.concatenate(scores), 1)

    def to_params(self, model: Tree) -> Any:
        """The user's own pytree with these weights.

        Raises:
            SpecError: the tree is not one of this model.
        """
        return self._params([jnp.asarray(leaf) for leaf in self._names.leaves(model)])

    def __repr__(self) -> str:
        return self._text

    def __getstate__(self) -> dict[str, Any]:
        made = ("_names", "_floats", "_local", "_scored", "_scored_losses")
        return {key: value for key, value in self.__dict__.items() if key not in made}

    @functools.cached_property
    def _names(self) -> Names:
        return Names.of(jax.eval_shape(self._init, jax.random.PRNGKey(0)))

    @functools.cached_property
    def _floats(self) -> np.dtype[Any]:
        """The dtype of the first trained leaf: what the model's inputs ought to be."""
        known = dict(self._names.spec.items)
        return next(known[path].dtype for path, floats in zip(self._names.paths, self._names.floats, strict=True) if floats)

    @functools.cached_property
    def _local(self) -> Local:
        return Local(self._row_losses, self._optimizer, self._names.floats)

    @functools.cached_property
    def _scored(self) -> Callable[..., Any]:
        def read(leaves: list[Any], x: Any) -> Any:
            return self._read(self._output(leaves, x, None))

        return cast(Callable[..., Any], jax.jit(read))

    @functools.cached_property
    def _scored_losses(self) -> Callable[..., Any]:
        def both(leaves: list[Any], x: Any, y: Any) -> tuple[Any, Any]:
            return self._read(self._output(leaves, x, None)), self._row_losses(leaves, x, y, None)

        return cast(Callable[..., Any], jax.jit(both))

    def _params(self, leaves: list[Any]) -> Any:
        return jax.tree_util.tree_unflatten(self._names.structure, leaves)

    def _output(self, leaves: list[Any], x: Any, key: Any) -> Any:
        more = {"key": key} if self._keyed else {}
        return self._apply(self._params(leaves), x, **more)

    def _row_losses(self, leaves: list[Any], x: Any, y: Any, key: Any) -> Any:
        output = self._output(leaves, x, key)
        # An output (n, 1) meets y (n,) as one column: they would be stretched to (n, n).
        if output.ndim == y.ndim + 1 and output.shape[-1] == 1:
            output = output[..., 0]
        losses = self._loss(output, y)
        if jnp.ndim(losses) == 0 or losses.shape[0] != x.shape[0]:
            hint = "leave out the mean over the rows: padding counts nothing"
            raise ConfigError("the loss is not one for each row", path="loss", expected="(n,)", got=jnp.shape(losses), hint=hint)
        return losses.reshape(len(losses), -1).mean(1)

    def _read(self, output: Any) -> Any:
        output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
        if self._scores == "softmax":
            return jax.nn.softmax(output, axis=1)
        return jax.nn.sigmoid(output) if self._scores == "sigmoid" else output

    def _column(self, scores: Array, ndim: int) -> Array:
        return scores[:, 0] if self._scores != "softmax" and ndim == 1 and scores.ndim == 2 and scores.shape[1] == 1 else scores

    def _pieces(self, x: Array) -> Iterator[tuple[Array, slice]]:
        """Rows some at a time, padded; once none where there are none, so that scores have their shape."""
        for start in range(0, max(len(x), 1), _ROWS):
            where = slice(start, min(start + _ROWS, len(x)))
            piece = inputs(x[where], self._floats)
            yield padded(piece, bucket(len(piece))), where

    def _client(self, model: Tree, data: Dataset, plan: Plan, rng: np.random.Generator, *, corrected: bool = False) -> Client:
        """One client's training. `corrected` gives it a correction of zeros where it has none."""
        correction = {} if corrected and plan.correction is None else plan.correction
        seed = drawn(rng)
        part = Part.of(training(data), plan, rng, self._floats)
        return Client(self._names.leaves(model), part, plan, self._names.correction(correction), seed)

    def _update(self, client: Client, trained: Sequence[Array], loss: float) -> Update:
        changed = iter(trained)
        each = zip(client.leaves, self._names.floats, strict=True)
        delta = self._names.tree([next(changed) if floats else np.zeros_like(leaf) for leaf, floats in each])
        return Update(delta, len(client.part.x), client.part.steps, client.plan.lr, loss)

    def _describe(self, scores: Scores | None, metrics: Sequence[str] | None) -> str:
        chosen = self._optimizer
        parts = [named(self._init), named(self._apply), f"loss={named(self._loss)}"]
        parts += described(self._plan, chosen.optimizer, chosen.momentum, chosen.weight_decay, scores=scores, metrics=metrics)
        return f"JaxLearner({', '.join(parts)})"


def _groups(clients: Sequence[Client]) -> list[list[int]]:
    """The clients that are trained together: those whose rows, batches and steps have the same powers of two."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, client in enumerate(clients):
        size = (bucket(len(client.part.x)), client.width, bucket(client.part.steps))
        groups.setdefault(size, []).append(i)
    return list(groups.values())
