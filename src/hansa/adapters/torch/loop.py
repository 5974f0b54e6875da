"""One client's local training: how much of it was asked for, and the built-in loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hansa.adapters.torch import leaves
from hansa.adapters.torch.held import Held
from hansa.adapters.torch.objective import Objective
from hansa.adapters.torch.rules import Chosen, Terms
from hansa.core.protocols import FitConfig
from hansa.core.task import Signal
from hansa.core.trees import Leaf, Tree
from hansa.errors import ConfigError, SpecError


@dataclass(frozen=True, slots=True)
class Plan:
    """One local training with nothing left open. `steps` None means `epochs`; `batch` 0 means all rows a step.

    Raises:
        ConfigError: a number that cannot be; names the setting.
    """

    lr: float
    epochs: int
    steps: int | None
    batch: int
    clip: float | None = None
    proximal: float = 0.0
    correction: Tree | None = None

    def __post_init__(self) -> None:
        for key, least in (("epochs", 1), ("steps", 1), ("batch", 0)):
            value = getattr(self, key)
            if not (value is None and key == "steps") and (type(value) is not int or value < least):
                raise ConfigError("not a length of training", path=key, got=repr(value), expected=f"an integer, {least} or more")
        for key in ("lr", "proximal", "clip"):
            value = getattr(self, key)
            if value is None and key == "clip":
                continue
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ConfigError("not a setting of training", path=key, got=repr(value), expected="a finite number, 0 or more")
        if self.clip == 0:
            raise ConfigError("a gradient of norm 0 trains nothing", path="clip", got=self.clip, expected="more than 0, or None")

    def under(self, config: FitConfig) -> Plan:
        """What the algorithm asks for, and this plan's settings where it asks for nothing."""
        return Plan(
            lr=self.lr if config.lr is None else config.lr,
            epochs=self.epochs if config.epochs is None else config.epochs,
            # An algorithm that asks for epochs means epochs, though the learner was set to steps.
            steps=(self.steps if config.epochs is None else None) if config.steps is None else config.steps,
            batch=self.batch if config.batch is None else config.batch,
            clip=config.clip,
            proximal=config.proximal,
            correction=config.correction,
        )

    def count(self, rows: int) -> int:
        """Steps over this many rows."""
        return self.epochs * -(-rows // (self.batch or rows)) if self.steps is None else self.steps

    def config(self) -> FitConfig:
        """The same as the record that a user's own loop is given."""
        return FitConfig(self.lr, self.epochs, self.steps, self.batch, self.clip, self.proximal, self.correction)


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
