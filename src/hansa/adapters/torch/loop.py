"""One client's local training: the built-in loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hansa.adapters.torch import leaves
from hansa.adapters.torch.held import Held
from hansa.adapters.torch.objective import Objective
from hansa.adapters.torch.rules import Chosen, Terms
from hansa.adapters.training import Plan
from hansa.core.task import Signal
from hansa.core.trees import Leaf, Tree
from hansa.errors import ConfigError, SpecError


def correction(tree: Tree | None, params: Mapping[str, Tensor]) -> list[Tensor | None]:
    """The correction of each parameter; empty when there is none at all.

    Raises:
        SpecError: a leaf has another shape than its parameter.
    """
    if tree is None:
        return []
    out: list[Tensor | None] = []
    for name, p in params.items():
        leaf = tree.get(name)
        if isinstance(leaf, Mapping) or (leaf is not None and leaf.shape != p.shape):
            got = "a branch" if isinstance(leaf, Mapping) else Leaf(leaf.dtype, leaf.shape)
            raise SpecError("a correction does not fit", path=name, expected=tuple(p.shape), got=got)
        out.append(None if leaf is None else leaves.tensor(leaf).to(p.device, p.dtype))
    return out


def train(
    held: Held, objective: Objective, batches: Iterable[Sequence[Tensor]], plan: Plan, *, optimizer: Chosen, abort: Signal
) -> float:
    """Train the module in place, a step for each batch (x, y); the mean of the steps' losses."""
    named, module = held.trainable(), held.module
    params: list[Tensor] = list(named.values())
    start = [p.detach().clone() for p in params] if plan.proximal else []
    terms = Terms(plan.proximal, start, correction(plan.correction, named), plan.clip)
    shaped = bool(plan.proximal or terms.correction or plan.clip is not None)
    rule = optimizer.rule(params, plan.lr)
    total, steps = 0.0, 0
    for x, y in batches:
        abort.check()
        loss = objective(module(x), y)
        if loss.ndim:
            raise ConfigError("the loss of a batch is not a scalar", path="loss", got=tuple(loss.shape), hint="reduction='mean'")
        # Not `backward`: for a small model, to collect in each parameter's own `grad` costs a tenth of the step.
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        with torch.no_grad():
            rule.step(params, terms(params, grads) if shaped else grads, plan.lr)
        total += loss.item()
        steps += 1
    for p in params:
        p.grad = None
    return total / steps
