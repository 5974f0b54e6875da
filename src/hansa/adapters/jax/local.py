"""One client's local training as a compiled loop over its steps; many clients' by `vmap`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from hansa.adapters.jax.rows import Part
from hansa.adapters.jax.rules import Chosen
from hansa.adapters.training import Plan, bucket, padded
from hansa.core.task import Signal
from hansa.core.trees import Array
from hansa.errors import ConfigError

SEGMENT = 256  # steps of one compiled call: between two, an abort is heard

RowLosses = Callable[[list[Any], Any, Any, Any], Any]  # (all leaves, x, y, key) -> (n,)


class Carry(NamedTuple):
    """What goes from step to step: the trained leaves, the rule's state, and the sum of the losses."""

    params: list[Any]
    state: Any
    total: Any


class Asked(NamedTuple):
    """What an algorithm adds to each gradient; a part that is None is not there at all."""

    lr: Any
    proximal: Any | None
    clip: Any | None
    correction: list[Any] | None


@dataclass(frozen=True)
class Client:
    """One client's training: the model's leaves, its rows and steps, and what is asked of it. `seed` is for its own draws."""

    leaves: Sequence[Array]
    part: Part
    plan: Plan
    correction: list[Array] | None
    seed: int

    @property
    def width(self) -> int:
        """The rows of a step, padded only where the site has fewer than a batch."""
        have = self.part.order.shape[1]
        return have if have == self.plan.batch else bucket(have)


@dataclass(frozen=True)
class Local:
    """The compiled training of one model under one step rule. `floats` says which of the model's leaves are trained."""

    losses: RowLosses
    optimizer: Chosen
    floats: tuple[bool, ...]

    def fit(self, client: Client, *, abort: Signal) -> tuple[list[Array], float]:
        """The change of each trained leaf, and the mean loss of the steps."""
        part, plan = client.part, client.plan
        start, still = self._divided(client.leaves)
        asked, key = _asked(plan, np.float32(plan.lr), client.correction), _key(client.seed)
        size, width = bucket(len(part.x)), client.width
        x, y = padded(part.x, size), padded(part.y, size)
        # SGD keeps nothing: a call of the device less.
        carry = Carry(list(start), [], np.float32(0)) if self.optimizer.rule == "sgd" else self._begin(start, asked.lr)
        for first in range(0, part.steps, SEGMENT):
            abort.check()
            rows, share = part.order[first : first + SEGMENT], part.share[first : first + SEGMENT]
            long = bucket(len(rows))
            steps = (padded(rows, long, width), padded(share, long, width), len(rows), first)
            carry = self._advance(carry, start, still, x, y, *steps, asked, key)
        return [np.asarray(a) - b for a, b in zip(carry.params, start, strict=True)], float(carry.total) / part.steps

    def fit_many(self, clients: Sequence[Client]) -> list[tuple[list[Array], float]]:
        """The same for many clients of like size at once; they are filled up with clients that take no step."""
        parts = [client.part for client in clients]
        count, counts = bucket(len(clients)), np.array([part.steps for part in parts])
        size, width, most = bucket(max(len(part.x) for part in parts)), max(c.width for c in clients), int(counts.max())

        def stacked(arrays: Iterable[Array]) -> Array:
            return padded(np.stack(list(arrays)), count)

        divided = [self._divided(client.leaves) for client in clients]
        start, still = ([stacked(column) for column in zip(*side, strict=True)] for side in zip(*divided, strict=True))
        x, y = stacked(padded(part.x, size) for part in parts), stacked(padded(part.y, size) for part in parts)
        rates = padded(np.array([client.plan.lr for client in clients], np.float32), count)
        each = [client.correction for client in clients if client.correction is not None]  # of all or of none
        asked = _asked(clients[0].plan, rates, [stacked(column) for column in zip(*each, strict=True)] if each else None)
        keys = stacked(_key(client.seed) for client in clients)
        carry = self._begin_many(start, rates)
        for first in range(0, most, SEGMENT):
            last = min(first + SEGMENT, most)
            rows = stacked(padded(part.order[first:last], bucket(last - first), width) for part in parts)
            share = stacked(padded(part.share[first:last], bucket(last - first), width) for part in parts)
            left = padded(np.clip(counts - first, 0, last - first), count)
            carry = self._advance_many(asked)(carry, start, still, x, y, rows, share, left, first, asked, keys)
        deltas = [np.asarray(a) - b for a, b in zip(carry.params, start, strict=True)]
        means = (np.asarray(carry.total)[: len(counts)] / counts).tolist()
        return [([delta[i] for delta in deltas], mean) for i, mean in enumerate(means)]

    def _divided(self, leaves: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        trained = [leaf for leaf, floats in zip(leaves, self.floats, strict=True) if floats]
        return trained, [leaf for leaf, floats in zip(leaves, self.floats, strict=True) if not floats]

    def _whole(self, params: list[Any], still: list[Any]) -> list[Any]:
        trained, others = iter(params), iter(still)
        return [next(trained) if floats else next(others) for floats in self.floats]

    @cached_property
    def _begin(self) -> Callable[..., Carry]:
        def begin(start: list[Any], lr: Any) -> Carry:
            return Carry(start, self.optimizer.at(lr).init(start), jnp.zeros(()))

        return _jit(begin)

    @cached_property
    def _begin_many(self) -> Callable[..., Carry]:
        return _jit(jax.vmap(self._begin))

    @cached_property
    def _advance(self) -> Callable[..., Carry]:
        return _jit(self._steps)

    @cached_property
    def _many(self) -> dict[tuple[bool, ...], Callable[..., Carry]]:
        return {}

    def _advance_many(self, asked: Asked) -> Callable[..., Carry]:
        """Vectorised over clients; of what is asked only the step sizes and corrections are the client's own."""
        given = tuple(part is not None for part in asked)
        if given not in self._many:
            axes = Asked(0, None, None, cast(Any, None if asked.correction is None else 0))
            self._many[given] = _jit(jax.vmap(self._steps, in_axes=(0, 0, 0, 0, 0, 0, 0, 0, None, axes, 0)))
        return self._many[given]

    def _steps(
        self,
        carry: Carry,
        start: list[Any],
        still: list[Any],
        x: Any,
        y: Any,
        order: Any,
        share: Any,
        count: Any,
        first: Any,
        asked: Asked,
        key: Any,
    ) -> Carry:
        rule = self.optimizer.at(asked.lr)

        def loss(params: list[Any], rows: Any, weights: Any, now: Any) -> Any:
            each = self.losses(self._whole(params, still), x[rows], y[rows], now)
            return jnp.sum(each * weights)

        def step(t: Any, carry: Carry) -> Carry:
            params, state, total = carry
            value, grads = jax.value_and_grad(loss)(params, order[t], share[t], jax.random.fold_in(key, first + t))
            moves, state = rule.update(_with_terms(grads, params, start, asked), state, params)
            moved = [(p + u).astype(p.dtype) for p, u in zip(params, moves, strict=True)]
            return Carry(moved, state, total + value.astype(total.dtype))

        done: Carry = jax.lax.fori_loop(0, count, step, carry)
        return done


def _jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    return cast(Callable[..., Any], jax.jit(fn))


def _key(seed: int) -> Array:
    """What `jax.random.PRNGKey` makes of a seed below 2^32, without a call of the device."""
    return np.array([0, seed], np.uint32)


def _asked(plan: Plan, lr: Any, correction: list[Array] | None) -> Asked:
    return Asked(
        lr,
        np.float32(plan.proximal) if plan.proximal else None,
        None if plan.clip is None else np.float32(plan.clip),
        correction,
    )


def _with_terms(grads: list[Any], params: list[Any], start: list[Any], asked: Asked) -> list[Any]:
    """mu (w - start) added, then the correction, then the whole scaled down to the norm."""
    if asked.proximal is not None:
        grads = [g + asked.proximal * (p - w) for g, p, w in zip(grads, params, start, strict=True)]
    if asked.correction is not None:
        grads = [g + c for g, c in zip(grads, asked.correction, strict=True)]
    if asked.clip is not None:
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in grads))
        scale = jnp.minimum(1.0, asked.clip / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny))
        grads = [(g * scale).astype(g.dtype) for g in grads]
    return grads


def agreed(plans: Sequence[Plan]) -> None:
    """Return if the clients' plans differ in `lr` and `correction` alone.

    Raises:
        ConfigError: names the first other setting that differs.
    """
    for key in ("epochs", "steps", "batch", "clip", "proximal"):
        for plan in plans:
            if (got := getattr(plan, key)) != (expected := getattr(plans[0], key)):
                raise ConfigError("batched clients may differ in lr and correction alone", path=key, got=got, expected=expected)
