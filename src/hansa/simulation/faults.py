"""Drop-outs, stragglers and bad updates: what befalls a site depends on (seed, round, slot, task, attempt) and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import msgspec
import numpy as np

from hansa.core import trees
from hansa.core.rng import generator
from hansa.core.task import Expect, Shareable
from hansa.core.trees import Array
from hansa.errors import ConfigError

Kind: TypeAlias = Literal["nan", "inf", "shape", "dtype", "missing", "weight", "weight_zero", "weight_nan"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong at a simulated site, for each task it is given. The default is that nothing does.

    dropout: probability that no reply comes. straggle: probability that the task takes `slowdown` times as long.
    duration_s: the mean of a task's virtual duration, in seconds. spread: the standard deviation of its logarithm; 0 makes all
    durations equal. bad: probability that the reply is spoiled, in one of `kinds` with equal chances (see `spoil`).

    Each fault has draws of its own: with a higher `dropout`, the sites that dropped out before still do, and no other fault moves.

    Raises:
        ConfigError: a field is out of its range; names the field.
    """

    dropout: float = 0.0
    straggle: float = 0.0
    slowdown: float = 10.0
    duration_s: float = 1.0
    spread: float = 0.0
    bad: float = 0.0
    kinds: tuple[Kind, ...] = ("nan", "inf", "shape", "weight")

    def __post_init__(self) -> None:
        for field, share in (("dropout", self.dropout), ("straggle", self.straggle), ("bad", self.bad)):
            _require(_is_real(share) and 0 <= share <= 1, field, share, "a probability from 0 to 1")
        _require(_is_real(self.slowdown) and self.slowdown >= 1, "slowdown", self.slowdown, "a factor of at least 1")
        _require(_is_real(self.duration_s) and self.duration_s > 0, "duration_s", self.duration_s, "seconds above 0")
        _require(_is_real(self.spread) and self.spread >= 0, "spread", self.spread, "at least 0")
        known = isinstance(self.kinds, tuple) and len(self.kinds) > 0 and all(kind in KINDS for kind in self.kinds)
        _require(known, "kinds", self.kinds, f"one or more of {', '.join(KINDS)}")


class Fate(msgspec.Struct, frozen=True):
    """What befalls one attempt: whether the site drops out, after how many virtual seconds its reply (or its loss) is known,
    and how the reply is spoiled, None for not at all.
    """

    dropped: bool
    duration_s: float
    spoil: Kind | None


def fate(faults: Faults, *, seed: int, round: int, slot: int, attempt: int, task: str = "") -> Fate:  # noqa: A002  DESIGN's word
    """The fate of one attempt of one site at one task of a round, the same in whatever order and however often it is asked for.

    >>> fate(Faults(), seed=7, round=1, slot=3, attempt=1)
    Fate(dropped=False, duration_s=1.0, spoil=None)
    """
    if not (faults.dropout or faults.straggle or faults.spread or faults.bad):
        return Fate(False, faults.duration_s, None)  # what the draws would give; saves 20 us a site
    rng = generator(seed, round=round, slot=slot, purpose=f"faults/{task}/{attempt}")
    # Every draw is made, whether it is used or not, so that one setting never shifts the luck of another.
    drop, straggle, bad, kind = rng.random(4).tolist()
    # exp(s z - s^2/2) has mean 1 for a standard normal z: the spread changes who is slow, not how long a task takes on average.
    factor = math.exp(faults.spread * rng.standard_normal() - faults.spread**2 / 2)
    duration_s = faults.duration_s * factor * (faults.slowdown if straggle < faults.straggle else 1.0)
    spoiled = faults.kinds[int(kind * len(faults.kinds))] if bad < faults.bad else None
    return Fate(drop < faults.dropout, duration_s, spoiled)


def spoil(shareable: Shareable, kind: Kind, *, expect: Sequence[Expect] = ()) -> Shareable:
    """A reply gone bad, as sites have sent them; the given one is left as it is.

    nan, inf: one entry of a float leaf. shape: a leaf with one more axis, which NumPy would broadcast without a word. dtype: a
    leaf as float64 (a float64 one as float32). missing: a leaf left out. weight, weight_zero, weight_nan: the weight negated
    (never above -1), zero or NaN.

    With `expect`, the task's own, the leaf is below one of its paths and the weight is the one it names. Without, they are the
    first array and the first scalar of the body, by path.

    Raises:
        ConfigError: the reply has no leaf that can be spoiled like this.
    """
    body = trees.flatten(shareable.body)
    path = _weight(body, expect, kind) if kind.startswith("weight") else _leaf(body, expect, kind)
    value = np.asarray(body.pop(path))
    if kind != "missing":
        body[path] = _spoiled(value, kind)
    return replace(shareable, body=trees.unflatten(body))


def _leaf(body: dict[str, Array], expect: Sequence[Expect], kind: Kind) -> str:
    """The first leaf, by path, that can be spoiled: not a weight, and for nan and inf a float with entries."""
    weights = {part.weight for part in expect}
    wanted = tuple(part.path for part in expect)

    def fits(path: str) -> bool:
        leaf = np.asarray(body[path])
        if path in weights or (not expect and not leaf.ndim):
            return False
        if expect and not any(root in ("", path) or path.startswith(f"{root}/") for root in wanted):
            return False
        return kind not in ("nan", "inf") or (leaf.size > 0 and leaf.dtype.kind in "fcV")  # V: bfloat16 and its kin

    return _first([path for path in body if fits(path)], kind)


def _weight(body: dict[str, Array], expect: Sequence[Expect], kind: Kind) -> str:
    if expect:
        return _first([part.weight for part in expect if part.weight is not None and part.weight in body], kind)
    return _first([path for path in body if np.ndim(body[path]) == 0], kind)


def _first(paths: list[str], kind: Kind) -> str:
    if not paths:
        raise ConfigError(f"a reply of this task cannot be spoiled as {kind!r}", path="faults.kinds", hint="leave this kind out")
    return min(paths)


def _spoiled(value: Array, kind: Kind) -> Array:
    match kind:
        case "nan" | "inf":  # one entry, not all: a gate must see it among good ones
            out = np.array(value, copy=True)
            out.flat[0] = math.nan if kind == "nan" else math.inf
            return out
        case "shape":
            return value[np.newaxis]
        case "dtype":
            return value.astype(np.float32 if value.dtype == np.float64 else np.float64)
        case "weight":
            return np.array(-max(1.0, abs(float(value))))
        case "weight_zero":
            return np.zeros_like(value)
        case _:
            return np.array(math.nan)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, field: str, got: object, expected: str) -> None:
    if not holds:
        raise ConfigError("faults cannot be injected like this", path=field, got=repr(got), expected=expected)
