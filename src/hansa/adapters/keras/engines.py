"""A step of training and a forward pass, in each framework that Keras stands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from hansa.adapters.keras.held import Held
from hansa.adapters.keras.objective import Objective
from hansa.adapters.keras.rules import Asked, shaped
from hansa.core.trees import Array
from hansa.errors import ConfigError


class Engine(Protocol):
    """Trains a held model in place. `begin`, then `step` for each batch (rows, targets, what each row counts for), then `end`."""

    pads: bool  # whether each number of rows is compiled anew, so that short batches are filled up

    def begin(self, asked: Asked) -> None: ...
    def step(self, x: Array, y: Array, share: Array) -> float: ...
    def end(self) -> None: ...
    def forward(self, x: Array) -> Any: ...
    def at_work(self) -> AbstractContextManager[Any]: ...


def engine(held: Held, objective: Objective, optimizer: Any, decay: float) -> Engine:
    """The engine of the framework that Keras was started on. `decay` is added to gradients; the optimizer is built by it.

    Raises:
        ConfigError: Keras stands on a framework that cannot train here.
    """
    known: dict[str, Callable[..., Engine]] = {"tensorflow": OnTensorFlow, "torch": OnTorch, "jax": OnJax}
    name = keras.backend.backend()
    if name not in known:
        raise ConfigError("Keras stands on what cannot train", path="KERAS_BACKEND", got=name, expected=" or ".join(known))
    optimizer.build(held.trained)
    return known[name](held, objective, optimizer, decay)


def _objective_of(held: Held, objective: Objective, output: Any, y: Any, share: Any | None) -> Any:
    """The loss of a batch with what the model's layers add to it (regularisers)."""
    total = objective(output, y, share)
    for own in held.model.losses:
        total = total + ops.cast(own, total.dtype)
    return total


class OnTensorFlow:
    """A step is a graph over the model's own variables, traced once for any number of rows."""

    pads = False

    def __init__(self, held: Held, objective: Objective, optimizer: Any, decay: float) -> None:
        import tensorflow as tf

        self._tf, self._held, self._objective, self._optimizer, self._decay = tf, held, objective, optimizer, decay
        self._steps: dict[Any, Any] = {}
        self._asked = Asked()

        def forward(x: Any) -> Any:
            return held.model(x, training=False)

        self._forward = tf.function(forward, autograph=False, reduce_retracing=True)

    def begin(self, asked: Asked) -> None:
        tensor = self._tf.constant
        pull, limit = ((None if part is None else tensor(part)) for part in (asked.proximal, asked.clip))
        self._asked = asked.converted()._replace(proximal=pull, clip=limit)

    def step(self, x: Array, y: Array, share: Array) -> float:
        tf, asked = self._tf, self._asked
        key = (*(part is None for part in asked), x.dtype, x.shape[1:], y.dtype, y.shape[1:])
        if key not in self._steps:
            rows = [tf.TensorSpec((None, *values.shape[1:]), values.dtype) for values in (x, y, share)]
            specs = tf.nest.map_structure(
                lambda part: None if part is None else tf.TensorSpec(part.shape, part.dtype), tuple(asked)
            )
            self._steps[key] = tf.function(self._step, autograph=False).get_concrete_function(*rows, specs)
        return float(self._steps[key](tf.constant(x), tf.constant(y), tf.constant(share), tuple(asked)))

    def _step(self, x: Any, y: Any, share: Any, asked: Any) -> Any:
        tf, variables = self._tf, self._held.trained
        with tf.GradientTape() as tape:
            loss = _objective_of(self._held, self._objective, self._held.model(x, training=True), y, share)
        found = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        values = [variable.value for variable in variables]
        self._optimizer.apply(shaped([tf.convert_to_tensor(g) for g in found], values, Asked(*asked), self._decay), variables)
        return loss

    def end(self) -> None:
        self._asked = Asked()

    def forward(self, x: Array) -> Any:
        return self._forward(x)

    def at_work(self) -> AbstractContextManager[Any]:
        return nullcontext()


class OnTorch:
    """A step as torch does it, at once, on one thread: with two, bits differ from run to run."""

    pads = False

    def __init__(self, held: Held, objective: Objective, optimizer: Any, decay: float) -> None:
        import torch

        self._torch, self._held, self._objective, self._optimizer, self._decay = torch, held, objective, optimizer, decay
        self._asked = Asked()

    def begin(self, asked: Asked) -> None:
        self._asked = asked.converted()

    def step(self, x: Array, y: Array, share: Array) -> float:
        torch, variables = self._torch, self._held.trained
        with torch.enable_grad():
            output = self._held.model(ops.convert_to_tensor(x), training=True)
            loss = _objective_of(self._held, self._objective, output, *map(ops.convert_to_tensor, (y, share)))
            values = [variable.value for variable in variables]
            found = torch.autograd.grad(loss, values, allow_unused=True)
        with torch.no_grad():
            grads = [torch.zeros_like(v) if g is None else g for v, g in zip(values, found, strict=True)]
            self._optimizer.apply(shaped(grads, values, self._asked, self._decay), variables)
        return float(loss.detach())

    def end(self) -> None:
        self._asked = Asked()

    def forward(self, x: Array) -> Any:
        with self._torch.no_grad():
            return self._held.model(ops.convert_to_tensor(x), training=False)

    def at_work(self) -> AbstractContextManager[Any]:
        return _threads(self._torch, 1)


class OnJax:
    """A step is a compiled pure function; the model's variables are written when training ends."""

    def __init__(self, held: Held, objective: Objective, optimizer: Any, decay: float) -> None:
        import jax

        self._jax, self._held, self._objective, self._optimizer, self._decay = jax, held, objective, optimizer, decay
        self.pads = not held.keeps_statistics
        self._asked = Asked()
        self._state: tuple[Any, ...] = ()
        self._step = jax.jit(self._pure)

        def forward(trained: Any, others: Any, x: Any) -> Any:
            return held.model.stateless_call(trained, others, x, training=False)[0]

        self._forward = jax.jit(forward)

    def begin(self, asked: Asked) -> None:
        self._asked = asked.converted()
        model = self._held.model
        kept = (model.trainable_variables, model.non_trainable_variables, self._optimizer.variables)
        self._state = tuple([variable.value for variable in variables] for variables in kept)

    def step(self, x: Array, y: Array, share: Array) -> float:
        self._state, loss = self._step(self._state, x, y, share, tuple(self._asked))
        return float(loss)

    def _pure(self, state: Sequence[Any], x: Any, y: Any, share: Any, asked: Any) -> tuple[Any, ...]:
        trained, others, kept = state

        def loss(trained: Any) -> Any:
            output, new, own = self._held.model.stateless_call(trained, others, x, training=True, return_losses=True)
            return self._objective(output, y, share) + sum(own), new

        (value, others), grads = self._jax.value_and_grad(loss, has_aux=True)(trained)
        trained, kept = self._optimizer.stateless_apply(kept, shaped(grads, trained, Asked(*asked), self._decay), trained)
        return (trained, others, kept), value

    def end(self) -> None:
        model = self._held.model
        for variables, values in zip((model.trainable_variables, model.non_trainable_variables), self._state, strict=False):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self._asked, self._state = Asked(), ()

    def forward(self, x: Array) -> Any:
        model = self._held.model
        variables = (model.trainable_variables, model.non_trainable_variables)
        return self._forward(*([variable.value for variable in each] for each in variables), np.asarray(x))

    def at_work(self) -> AbstractContextManager[Any]:
        return nullcontext()


class _threads:  # noqa: N801  reads as a function
    """Torch's intra-op threads set for the block, and restored."""

    def __init__(self, torch: Any, count: int) -> None:
        self._torch, self._count, self._before = torch, count, 0

    def __enter__(self) -> None:
        self._before = self._torch.get_num_threads()
        self._torch.set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        self._torch.set_num_threads(self._before)
