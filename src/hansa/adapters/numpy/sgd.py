"""Local SGD for many clients at once: one batched step moves every client that still has a step to take.

One client is a batch of one, so the plain loop and the vectorised engine run the same lines. Clients of like size are
trained together; each keeps the batches that it would draw alone, and padding rows count nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hansa.adapters.numpy import rows
from hansa.adapters.numpy.nets import Net
from hansa.adapters.numpy.optimizers import Optimizer
from hansa.adapters.numpy.settings import Settings
from hansa.adapters.training import training
from hansa.core import trees
from hansa.core.gate import is_finite
from hansa.core.protocols import Dataset, Update
from hansa.core.task import Signal
from hansa.core.trees import Array, Tree
from hansa.stacked import Stacked

_GROUP_BYTES = 1 << 21  # parameters and one step's rows of the clients that move together: they should stay in the cache
_WINDOW_BYTES = 1 << 19  # rows gathered ahead, for several steps in one copy


@dataclass(frozen=True, slots=True)
class Client:
    """One local training: `order` (steps, batch) are the rows of each step, `share` what each counts for in its mean.

    `place` is where its rows stand, for errors.
    """

    model: Tree
    settings: Settings
    x: Array
    labels: Array
    order: Array
    share: Array
    place: str = "x"

    @staticmethod
    def of(
        net: Net,
        model: Tree,
        data: Dataset,
        settings: Settings,
        rng: np.random.Generator,
        *,
        dtype: np.dtype[Any],
        place: str = "x",
    ) -> Client:
        """The rows of a site's training part in the order in which `rng` draws them. That x is finite is seen by training on it."""
        part = training(data)
        x = rows.matrix(part.x, features=net.widths[0], dtype=dtype)
        y = rows.labels(part.y, rows=len(x), classes=max(net.widths[-1], 2))
        order, share = schedule(len(x), settings, rng, dtype)
        return Client(model, settings, x, y, order, share, place)


def schedule(n: int, settings: Settings, rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The rows (steps, batch) of each step and their shares of the step's mean.

    An epoch is a permutation of all rows cut into batches, the last one short: it is padded with row 0 at share 0. All rows at
    once need no permutation.
    """
    batch = min(settings.batch, n) or n
    per_epoch = -(-n // batch)
    steps = settings.steps if settings.steps is not None else settings.epochs * per_epoch
    epochs = -(-steps // per_epoch)
    order = np.zeros((epochs, per_epoch * batch), np.int64)
    for epoch in order:
        epoch[:n] = rng.permutation(n) if settings.batch else np.arange(n)
    share = _shares(n, batch, dtype)
    return order.reshape(-1, batch)[:steps], share if steps == per_epoch else share[np.arange(steps) % per_epoch]


@lru_cache(maxsize=256)
def _shares(n: int, batch: int, dtype: np.dtype[Any]) -> Array:
    """(batches, batch): 1 / the rows of the batch, and 0 for what pads the last one."""
    share = np.zeros(-(-n // batch) * batch, dtype)
    share[:n] = 1.0 / batch
    if short := n % batch:
        share[n - short : n] = 1.0 / short
    share.flags.writeable = False  # kept by the cache
    return share.reshape(-1, batch)


def train(net: Net, clients: Sequence[Client], *, dtype: np.dtype[Any], abort: Signal | None = None) -> Stacked:
    """What each client's training gives back, an Update, in the order of the clients.

    Infinities that come of a step size too large are let through: the gate names them.

    Raises:
        DataError: a row that was trained on holds NaN or infinity; names the client's place and the column.
    """
    like = trees.flatten(clients[0].model)
    deltas = {path: np.empty((len(clients), *shape), like[path].dtype) for path, shape in net.shapes.items()}
    losses = np.empty(len(clients))
    with np.errstate(all="ignore"):
        for members in groups(net, clients, dtype):
            group = [clients[i] for i in members]
            start, after, losses[members] = _train_group(net, group, dtype, abort)
            # NaN or infinity in a row reaches the gradient of the first layer, so only such an update needs a look at the rows.
            if not (is_finite(after) and is_finite(losses[members])):
                for i in sorted(members):
                    rows.require_finite(clients[i].x, path=clients[i].place)
            net.unflatten(after, start, deltas, members)
    counts = np.array([(len(client.x), len(client.order)) for client in clients])
    rates = np.array([client.settings.lr for client in clients], np.float64)
    return Stacked(Update(deltas, counts[:, 0], counts[:, 1], rates, losses), len(clients))  # type: ignore[arg-type]  # columns


def groups(net: Net, clients: Sequence[Client], dtype: np.dtype[Any]) -> Iterator[list[int]]:
    """The clients that move together: batches within a factor of two, longest training first, small enough for the cache."""
    by_size = sorted(range(len(clients)), key=lambda i: (-_size_class(clients[i]), -len(clients[i].order), i))
    group: list[int] = []
    for i in by_size:
        if group:
            first = clients[group[0]]
            one = (_size_class(first) * net.widths[0] + 2 * net.size) * dtype.itemsize
            if _size_class(first) != _size_class(clients[i]) or (len(group) + 1) * one > _GROUP_BYTES:
                yield group
                group = []
        group.append(i)
    if group:
        yield group


def _size_class(client: Client) -> int:
    """The power of two that holds a client's batch."""
    return 1 << int(client.order.shape[1] - 1).bit_length()


def _train_group(net: Net, group: Sequence[Client], dtype: np.dtype[Any], abort: Signal | None) -> tuple[Array, Array, Array]:
    """Parameters before and after (clients, size), and mean losses (clients,), of clients sorted by their steps, most first."""
    steps = np.array([len(client.order) for client in group])
    optimizer = Optimizer.of(net, [(client.model, client.settings) for client in group], dtype)
    params, grads = net.layers(optimizer.w), net.layers(optimizer.grad)
    losses = np.zeros((len(group), steps[0]), dtype)
    active = len(group)
    for step, x, labels, share in _batches(net, group, dtype):
        if abort is not None:
            abort.check()
        if len(x) != active:  # the shortest trainings are done: they are last, and nothing moves them any more
            active = len(x)
            params, grads = ([(w[:active], b[:active]) for w, b in layers] for layers in (params, grads))
        losses[:active, step] = net.gradient(params, grads, x, labels, share, optimizer.lr[:active] if optimizer.plain else None)
        optimizer.step(active)
    return optimizer.start, optimizer.w, losses.sum(axis=1, dtype=np.float64) / steps


def _batches(net: Net, group: Sequence[Client], dtype: np.dtype[Any]) -> Iterator[tuple[int, Array, Array, Array]]:
    """Each step with the rows (active, batch, features), labels and shares (active, batch) of the clients that take it."""
    steps = [len(client.order) for client in group]
    batch = max(client.order.shape[1] for client in group)
    order = np.zeros((len(group), steps[0], batch), np.int64)
    labels, share = np.zeros_like(order), np.zeros(order.shape, dtype)
    for i, client in enumerate(group):
        mine = (i, slice(steps[i]), slice(client.order.shape[1]))
        order[mine], labels[mine], share[mine] = client.order, client.labels[client.order], client.share
    if len(group) == 1 and group[0].settings.batch == 0:  # all rows in their own order: there is nothing to gather
        for step in range(steps[0]):
            yield step, group[0].x[None], labels[:, step], share[:, step]
        return
    window = max(1, _WINDOW_BYTES // (len(group) * batch * net.widths[0] * dtype.itemsize))
    buffer = np.empty((len(group), min(window, steps[0]), batch, net.widths[0]), dtype)
    for first in range(0, steps[0], window):
        last = min(first + window, steps[0])
        for i, client in enumerate(group):
            if steps[i] > first:
                # "clip" writes into `out` without a second buffer; the indices are in range by construction.
                client.x.take(order[i, first:last], axis=0, out=buffer[i, : last - first], mode="clip")
        for step in range(first, last):
            active = sum(count > step for count in steps) if steps[-1] <= step else len(group)
            yield step, buffer[:active, step - first], labels[:active, step], share[:active, step]
