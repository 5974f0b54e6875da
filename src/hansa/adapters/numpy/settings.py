"""How a learner trains, checked once, with what an algorithm asks for laid over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from hansa.core.protocols import FitConfig
from hansa.core.trees import Tree
from hansa.errors import ConfigError

Optimizer: TypeAlias = Literal["sgd", "adam"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """lr: step size. epochs or steps: how long; where there are steps they count. batch: rows a step, 0 means all rows.

    l2: adds l2 * w to the gradient of the weights, not of the biases. momentum: of SGD, as torch has it. clip, proximal,
    correction: see FitConfig.

    Raises:
        ConfigError: a value out of range; names it.
    """

    lr: float = 0.1
    epochs: int = 1
    steps: int | None = None
    batch: int = 32
    l2: float = 0.0
    momentum: float = 0.0
    optimizer: Optimizer = "sgd"
    clip: float | None = None
    proximal: float = 0.0
    correction: Tree | None = None

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("steps", 1), ("batch", 0)):
            value = getattr(self, name)
            if not (value is None and name == "steps") and (type(value) is not int or value < low):
                raise ConfigError("not a whole number in range", path=name, expected=f"an integer >= {low}", got=repr(value))
        for name in ("lr", "l2", "momentum", "proximal"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ConfigError("not a number in range", path=name, expected="a number >= 0", got=repr(value))
        if self.clip is not None and not (isinstance(self.clip, int | float) and self.clip > 0):
            raise ConfigError("not a number in range", path="clip", expected="a number > 0", got=repr(self.clip))
        if self.momentum >= 1:
            raise ConfigError("not a number in range", path="momentum", expected="a number below 1", got=repr(self.momentum))
        if self.optimizer not in ("sgd", "adam"):
            raise ConfigError("no optimizer of this name", path="optimizer", expected="'sgd' or 'adam'", got=repr(self.optimizer))
        if self.optimizer == "adam" and self.momentum:
            raise ConfigError("momentum is SGD's", path="momentum", hint="leave it out, or take optimizer='sgd'")

    @staticmethod
    def given(*, epochs: int | None, steps: int | None, **others: Any) -> Settings:
        """The settings that a person gives: epochs or steps, and one epoch where neither is.

        Raises:
            ConfigError: both are given, or a value is out of range.
        """
        if epochs is not None and steps is not None:
            raise ConfigError("give epochs or steps", path="steps", got=f"epochs={epochs}, steps={steps}")
        return Settings(epochs=1 if epochs is None else epochs, steps=steps, **others)

    def under(self, config: FitConfig) -> Settings:
        """These settings with what the algorithm asks for. Its `epochs` or `steps` replace both of the learner's."""
        if config == FitConfig():
            return self
        if config.epochs is None and config.steps is None:
            epochs, steps = self.epochs, self.steps
        else:
            epochs, steps = self.epochs if config.epochs is None else config.epochs, config.steps
        return replace(
            self,
            lr=self.lr if config.lr is None else config.lr,
            epochs=epochs,
            steps=steps,
            batch=self.batch if config.batch is None else config.batch,
            clip=config.clip,
            proximal=config.proximal,
            correction=config.correction,
        )

    def __str__(self) -> str:
        """What differs from the defaults, and always lr, how long, and batch: the inside of a learner's repr."""
        always = {"lr", "batch", "epochs" if self.steps is None else "steps"}
        shown = [f for f in fields(self) if f.name in always or (getattr(self, f.name) != f.default and f.name != "epochs")]
        return ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in shown)


def agreed(settings: Sequence[Settings]) -> None:
    """Return if the clients' settings differ in `lr` and `correction` alone.

    Raises:
        ConfigError: names the first other setting that differs.
    """
    first = settings[0]
    for field in fields(Settings):
        if field.name in {"lr", "correction"}:
            continue
        for other in settings:
            if getattr(other, field.name) != getattr(first, field.name):
                raise ConfigError(
                    "clients that are fitted together may differ in lr and correction alone",
                    path=field.name,
                    expected=getattr(first, field.name),
                    got=getattr(other, field.name),
                    hint="fit these one by one: engine 'loop' or 'pool'",
                )
