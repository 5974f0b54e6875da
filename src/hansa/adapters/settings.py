"""What learners are told, checked and printed alike in every framework: step rules, scores, metrics."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from hansa.adapters.training import Plan
from hansa.core.types import TensorType
from hansa.errors import ConfigError, DataError, HansaError

Scores: TypeAlias = Literal["softmax", "sigmoid", "raw"]
RuleName: TypeAlias = Literal["sgd", "adam", "adamw"]

METRICS: Mapping[Scores, tuple[str, ...]] = {
    "softmax": ("loss", "accuracy"),
    "sigmoid": ("loss", "accuracy", "auc"),
    "raw": ("loss",),
}


def require_rule(optimizer: object, momentum: float, decay: float, *, own: str) -> None:
    """Return if this can be a step rule: one by name, or a function of the user's, which is `own`.

    Raises:
        ConfigError: a setting that cannot be; names it.
    """
    if not callable(optimizer) and optimizer not in ("sgd", "adam", "adamw"):
        raise ConfigError("no such optimizer", path="optimizer", got=repr(optimizer), expected=f"sgd, adam, adamw or {own}")
    for key, value in (("momentum", momentum), ("weight_decay", decay)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError("not a setting of an optimizer", path=key, got=value, expected="a finite number, 0 or more")
        if value and callable(optimizer):
            raise ConfigError("your own optimizer takes its own settings", path=key, got=value, hint="set it in your function")
    if momentum >= 1 or (momentum and optimizer != "sgd"):
        raise ConfigError("a momentum is sgd's, and less than 1", path="momentum", got=momentum)


def rule_name(optimizer: object, momentum: float) -> str | None:
    """How a step moves the weights: "sgd", "momentum", "adam" or "adamw"; None for an optimizer of the user's own."""
    if not isinstance(optimizer, str):
        return None
    return "momentum" if momentum else optimizer


def require_scores(scores: object) -> None:
    """Return if the scores are one of the three, or None.

    Raises:
        ConfigError: they are not.
    """
    if scores not in (None, *METRICS):
        raise ConfigError("no such scores", path="scores", got=repr(scores), expected="softmax, sigmoid or raw")


def metric_names(metrics: Sequence[str] | None) -> tuple[str, ...] | None:
    """The names as a tuple.

    Raises:
        ConfigError: one name stands where a sequence of them belongs.
    """
    if isinstance(metrics, str):
        raise ConfigError("metrics are a sequence of names", path="metrics", got=repr(metrics), hint=f"({metrics!r},)")
    return None if metrics is None else tuple(metrics)


def named(value: Any) -> str:
    """A callable on one line, without an address: a function's name, a partial's settings."""
    if isinstance(value, functools.partial):
        options = [*map(repr, value.args), *(f"{key}={item!r}" for key, item in value.keywords.items())]
        return f"partial({', '.join([named(value.func), *options])})"
    return getattr(value, "__name__", type(value).__name__)


def described(
    plan: Plan, optimizer: Any, momentum: float, decay: float, *, scores: Scores | None, metrics: Sequence[str] | None
) -> list[str]:
    """The settings as they were given: how long always, the others where they differ from the defaults."""
    parts = [
        f"lr={float(plan.lr)!r}",
        f"epochs={plan.epochs}" if plan.steps is None else f"steps={plan.steps}",
        f"batch={plan.batch}",
    ]
    if optimizer != "sgd":
        parts.append(f"optimizer={optimizer if isinstance(optimizer, str) else named(optimizer)}")
    parts += [f"{key}={value}" for key, value in (("momentum", momentum), ("weight_decay", decay)) if value]
    parts += [f"scores={scores}"] if scores else []
    return parts if metrics is None else [*parts, f"metrics={tuple(metrics)}"]


@contextmanager
def refusing(path: str, wanted: str, got: TensorType) -> Iterator[None]:
    """What a model or a loss raises for rows that it does not take, as an error of ours that says what the framework says.

    Raises:
        DataError: it raised something; names the array.
    """
    try:
        yield
    except HansaError:
        raise
    except Exception as error:  # the model is the user's, on any framework: it may raise anything, and that is told, with the cause
        bold = re.search(r"\x1b\[1m(.+?)\x1b", str(error))  # Keras puts the reason so
        says = bold[1] if bold else str(error).strip().partition("\n")[0]
        raise DataError(says, path=path, expected=wanted, got=f"{got} ({says})") from error
