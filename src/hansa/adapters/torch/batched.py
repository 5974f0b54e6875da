"""Many clients in one call: parameters stacked over clients, and one vmapped pass a step.

Clients stand in order of their steps, the longest first, so that those still at work are always the first k: nobody is masked
out. A short batch is padded with a row of its own client that counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hansa.adapters.torch import leaves, rows
from hansa.adapters.torch.held import Held
from hansa.adapters.torch.loop import correction
from hansa.adapters.torch.objective import Objective
from hansa.adapters.torch.rules import Chosen, Terms
from hansa.adapters.training import Plan, order
from hansa.core.protocols import Dataset, Update
from hansa.core.trees import Array, Leaf, Tree
from hansa.errors import ConfigError, DataError
from hansa.stacked import Stacked

_CHUNK_BYTES = 1 << 27  # of parameters and rows that are trained together
_MIXES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_LOOP = "the loop engine takes any model"


@dataclass(frozen=True, slots=True)
class _Client:
    slot: int
    model: Tree
    plan: Plan
    x: Array
    y: Array
    batches: list[Array]


def fit(
    held: Held,
    objective: Objective,
    optimizer: Chosen,
    models: Sequence[Tree],
    parts: Sequence[Dataset],
    plans: Sequence[Plan],
    *,
    rngs: Sequence[np.random.Generator],
    device: torch.device,
) -> Sequence[Update]:
    """Each client's local training, in the order given: Stacked, where all are trained at once.

    `held` is loaded with the first model, and in train mode.
    """
    clients = _clients(models, parts, plans, rngs)
    for i, model in enumerate(models):
        if i and model is not models[i - 1]:
            leaves.check(held.module, model)
    stack = _Stack(held, objective, optimizer, device)
    ignored = objective.ignored()
    if ignored is not None and any(bool((client.y == ignored).any()) for client in clients):
        raise ConfigError("a label that the loss ignores changes its mean, so clients cannot be batched", path="y", hint=_LOOP)
    stack.probe(clients[0])
    clients.sort(key=lambda c: (-len(c.batches), -len(c.batches[0])))
    if len(clients) <= stack.room(clients[0]):
        return _in_order(stack.fit(clients), [client.slot for client in clients])
    updates: list[Update | None] = [None] * len(clients)
    start = 0
    while start < len(clients):
        end = start + stack.room(clients[start])
        for client, update in zip(clients[start:end], stack.fit(clients[start:end]), strict=True):
            updates[client.slot] = update
        start = end
    return [update for update in updates if update is not None]


def _in_order(updates: Stacked, slots: Sequence[int]) -> Stacked:
    """The updates, of clients that stand in these slots, in the order of the slots."""
    back = np.argsort(slots)
    if (back[1:] > back[:-1]).all():
        return updates
    delta, *columns = updates.whole
    return Stacked(Update({name: leaf[back] for name, leaf in delta.items()}, *(column[back] for column in columns)), len(back))


def _clients(
    models: Sequence[Tree], parts: Sequence[Dataset], plans: Sequence[Plan], rngs: Sequence[np.random.Generator]
) -> list[_Client]:
    """The clients, each with the batches that it would draw alone.

    Raises:
        ConfigError: the plans differ in more than lr and correction.
        DataError: the rows of two clients differ in dtype or shape.
    """
    clients = []
    for slot, (model, part, plan, rng) in enumerate(zip(models, parts, plans, rngs, strict=True)):
        for key in ("epochs", "steps", "batch", "clip", "proximal"):
            if (got := getattr(plan, key)) != (expected := getattr(plans[0], key)):
                raise ConfigError("batched clients may differ in lr and correction alone", path=key, got=got, expected=expected)
        for name, mine, first in (("x", part.x, parts[0].x), ("y", part.y, parts[0].y)):
            if mine.dtype != first.dtype or mine.shape[1:] != first.shape[1:]:
                a, b = Leaf(mine.dtype, mine.shape[1:]), Leaf(first.dtype, first.shape[1:])
                raise DataError("batched clients need rows of one kind", path=name, got=f"rows of {a}", expected=f"rows of {b}")
        batches = list(order(len(part), batch=plan.batch, steps=plan.count(len(part)), rng=rng))
        clients.append(_Client(slot, model, plan, part.x, part.y, batches))
    return clients


class _Stack:
    """A module whose parameters are stacked over clients."""

    def __init__(self, held: Held, objective: Objective, optimizer: Chosen, device: torch.device) -> None:
        module = held.module
        self._held, self._module, self._objective, self._optimizer, self._device = held, module, objective, optimizer, device
        self._row_losses = objective.row_losses()
        self._floats = held.floating()
        if mixing := next((name for name, layer in module.named_modules() if isinstance(layer, _MIXES)), None):
            raise ConfigError("batch normalisation mixes a client's rows with padding", path=mixing, hint=_LOOP)
        state = module.state_dict(keep_vars=True)
        names = {id(value): name for name, value in state.items()}  # of tied weights the last name: it is the one that was loaded
        self._names = {name: names[id(p)] for name, p in held.trainable().items()}
        self._owner = {name: names[id(value)] for name, value in state.items()}
        self._scratch: dict[int, Array] = {}
        self._losses = torch.func.vmap(self._loss, in_dims=0, randomness="error")

    def _loss(self, params: dict[str, Tensor], own: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        output = torch.func.functional_call(self._module, {**own, **params}, (x,))
        return (self._row_losses(output, y) * share).sum()

    def probe(self, client: _Client) -> None:
        """One plain step on a client's first batch, to see what a vmapped one would silently get wrong.

        Raises:
            ConfigError: training changes a buffer, or the loss is not the mean of its rows' losses.
        """
        before = {name: (value, value.detach().clone()) for name, value in self._module.named_buffers()}
        params = {name: dict(self._module.named_parameters())[name] for name in self._names}
        x_y = rows.Rows(client.x, client.y, floats=self._floats, device=self._device, targets=self._objective.targets)
        with torch.enable_grad():
            x, y = x_y.batch(client.batches[0])
            output = self._module(x)
            loss = self._objective(output, y)
            grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
            each = self._row_losses(output, y).detach()
        for name, buffer in self._module.named_buffers():
            if buffer is not before[name][0] or not torch.equal(buffer, before[name][1]):
                raise ConfigError("training changes a buffer, so clients cannot be batched", path=name, hint=_LOOP)
        of_rows, whole = each.mean().item(), loss.item()  # as numbers: torch.allclose takes a tenth of a millisecond
        if each.shape != (len(x),) or not (abs(of_rows - whole) <= 1e-8 + 1e-4 * abs(whole) or repr(of_rows) == repr(whole)):
            raise ConfigError("the loss is not the mean of its rows' losses, so clients cannot be batched", path="loss", hint=_LOOP)
        # A parameter without a part in the loss is left alone, as in the loop: not even decayed.
        self._names = {name: self._names[name] for name, grad in zip(params, grads, strict=True) if grad is not None}

    def room(self, client: _Client) -> int:
        """How many clients like this one, the largest of those left, are trained together."""
        params = sum(p.nbytes for p in self._module.parameters())
        inputs = len(client.batches[0]) * client.x[:1].nbytes * (4 // min(client.x.itemsize, 4))
        return max(1, _CHUNK_BYTES // (3 * params + 4 * inputs + 1))

    def fit(self, clients: Sequence[_Client]) -> Stacked:
        """The updates of clients in order of their steps, the longest first."""
        plan, count = clients[0].plan, len(clients)
        before = {name: self._before(leaf, clients) for name, leaf in self._owner.items()}
        params = {name: leaves.tensor(before[leaf]).to(self._device) for name, leaf in self._names.items()}
        own = self._constants(clients, before)
        rates = torch.tensor([c.plan.lr for c in clients], dtype=torch.float64).to(self._device, self._floats)
        one_rate = all(c.plan.lr == plan.lr for c in clients)
        totals, active = torch.zeros(count, device=self._device), count
        for t in range(len(clients[0].batches)):
            together, active = active, sum(len(c.batches) > t for c in clients[:active])
            own = {name: value[:active] for name, value in own.items()}
            now = {name: p[:active].detach().requires_grad_() for name, p in params.items()}
            grads, losses = self._gradients(now, own, *self._batch(clients[:active], t))
            if t == 0:
                params = _laid(params, grads)
                start = [p.clone() for p in params.values()] if plan.proximal else []
                terms = Terms(plan.proximal, start, self._corrections(clients), plan.clip, stacked=True)
                rule = self._optimizer.stacked(list(params.values()))
            elif active < together:
                terms.keep(active)
                rule.keep(active)
            moved = [p[:active] for p in params.values()]
            with torch.no_grad():
                rule.step(moved, terms(moved, grads), plan.lr if one_rate else rates[:active])
                totals[:active] += losses
        return self._updates(clients, before, params, totals)

    def _gradients(
        self, params: dict[str, Tensor], own: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor
    ) -> tuple[Sequence[Tensor], Tensor]:
        """Each client's gradient of each parameter, stacked, and the losses (k,)."""
        try:
            with torch.enable_grad():
                losses = self._losses(params, own, x, y, share)
                # Clients share nothing, so the gradient of their losses' sum by one's parameters is that of its own loss.
                grads = torch.autograd.grad(losses.sum(), list(params.values()))
        except RuntimeError as error:
            if not any(word in str(error) for word in ("vmap", "stateless API")):  # the second is torch's name for functional_call
                raise
            reason = str(error).split("\n")[0]
            if "random" in reason:
                reason = "it draws random numbers (dropout), which no client would draw alone"
            raise ConfigError(f"this model cannot be batched: {reason}", path="model", hint=_LOOP) from error
        return grads, losses.detach()

    def _batch(self, clients: Sequence[_Client], t: int) -> tuple[Tensor, Tensor, Tensor]:
        """x (k, b, ...), y (k, b, ...) and what each row counts for in its client's mean (k, b): 0 where it is padding."""
        sizes = [len(c.batches[t]) for c in clients]
        width = max(sizes)
        rows_of = np.array(sizes)[:, None]
        share = np.where(np.arange(width) < rows_of, 1.0 / rows_of, 0.0)
        x, y = (self._room_for(i, len(clients), width, like) for i, like in enumerate((clients[0].x, clients[0].y)))
        for i, (client, size) in enumerate(zip(clients, sizes, strict=True)):
            index = client.batches[t]
            # mode="clip" writes straight into `out`; the row numbers come from a permutation, so there is nothing to clip.
            client.x.take(index, axis=0, out=x[i, :size], mode="clip")
            client.y.take(index, axis=0, out=y[i, :size], mode="clip")
            if size < width:
                x[i, size:], y[i, size:] = client.x[index[0]], client.y[index[0]]
        dtypes = (
            rows.input_dtype(x, self._floats),
            rows.target_dtype(clients[0].y, self._floats, self._objective.targets),
            self._floats,
        )
        moved = [torch.from_numpy(a).to(self._device, dtype) for a, dtype in zip((x, y, share), dtypes, strict=True)]
        return moved[0], moved[1], moved[2]

    def _room_for(self, key: int, count: int, width: int, like: Array) -> Array:
        """An array (count, width, ...) from memory that is used again: fresh pages cost more than the copy into them."""
        shape = (count, width, *like.shape[1:])
        size = math.prod(shape)
        if key not in self._scratch or self._scratch[key].size < size:
            self._scratch[key] = np.empty(size, like.dtype)
        return self._scratch[key][:size].reshape(shape)

    def _before(self, leaf: str, clients: Sequence[_Client]) -> Array:
        """The leaf of each client's model (C, ...); a broadcast view when they all start from one."""
        first = clients[0].model
        if all(c.model is first for c in clients):
            one: Any = first[leaf]
            return np.broadcast_to(one, (len(clients), *one.shape))
        return np.stack([np.asarray(c.model[leaf]) for c in clients])

    def _constants(self, clients: Sequence[_Client], before: dict[str, Array]) -> dict[str, Tensor]:
        """Buffers and frozen parameters, stacked; none where all clients start from one model: the module holds them itself."""
        if all(c.model is clients[0].model for c in clients):
            self._held.load(clients[0].model)
            return {}
        still = set(self._owner.values()) - set(self._names.values())
        return {name: leaves.tensor(before[name]).to(self._device) for name in sorted(still)}

    def _corrections(self, clients: Sequence[_Client]) -> list[Tensor | None]:
        if all(c.plan.correction is None for c in clients):
            return []
        params = {name: p for name, p in self._module.named_parameters() if name in self._names}
        each = [correction(c.plan.correction or {}, params) for c in clients]
        return [
            torch.stack([torch.zeros_like(p) if own[i] is None else own[i] for own in each])  # type: ignore[misc]  # None is replaced
            for i, p in enumerate(params.values())
        ]

    def _updates(self, clients: Sequence[_Client], before: dict[str, Array], params: dict[str, Tensor], totals: Tensor) -> Stacked:
        trained = {self._names[name]: leaves.array(p.contiguous()) for name, p in params.items()}
        deltas = {}
        for name, owner in self._owner.items():
            after = trained.get(owner)
            deltas[name] = np.zeros_like(before[name]) if after is None else leaves.difference(after, before[name])
        rows, steps, rates = zip(*((len(client.x), len(client.batches), client.plan.lr) for client in clients), strict=True)
        losses = leaves.array(totals).astype(np.float64) / steps
        columns: Any = (np.array(rows), np.array(steps), np.array(rates, np.float64), losses)
        return Stacked(Update(deltas, *columns), len(clients))


def _laid(params: dict[str, Tensor], grads: Sequence[Tensor]) -> dict[str, Tensor]:
    """The parameters in memory laid out as their gradients are: of a batched linear layer the weights' come transposed, and a step
    across two layouts takes three times as long.
    """
    pairs = zip(params.items(), grads, strict=True)
    return {name: p if p.stride() == g.stride() else torch.empty_like(g).copy_(p) for (name, p), g in pairs}
