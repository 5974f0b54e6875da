"""A site's numbers: which count, and how they are added up without losing a bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from hansa.core.graph import LocalFunction
from hansa.core.trees import Array
from hansa.core.types import CLIENTS, FederatedType, TensorType, Type
from hansa.errors import DataError

NUMBERS: Final = TensorType(np.float64, [None])
INT64, FLOAT64 = TensorType(np.int64), TensorType(np.float64)

# A float64 is a whole number of 2^-1074 below 2^2098. Limbs of 16 bits: a term has 42 bits where it stands, so that 2^20 terms fit
# an int64 before carries are made, and those of 2^47 sites do afterwards.
BITS: Final = 16
LIMBS: Final = 134
CHUNK: Final = 1 << 20
LEAST: Final = 1074


def values_of(kind: object = NUMBERS) -> FederatedType:
    """The type of a vector at each site."""
    return FederatedType(kind, CLIENTS)


def local(name: str, fn: Any, takes: Mapping[str, Type], gives: Type, *, about: str = "") -> LocalFunction:
    """A function of these types that runs at one place; the vectorised engine may call it client by client."""
    return LocalFunction(fn, name, tuple(takes.items()), gives, loops=True, about=about)


def known(values: Any) -> Array:
    """The values that are known, as float64: NaN is what was not measured.

    Raises:
        DataError: not a vector of numbers, or one is infinite.
    """
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DataError("not the values of a site", expected="a vector of numbers", got=f"{array.dtype.name}{list(array.shape)}")
    wide = array.astype(np.float64)
    if np.isinf(wide).any():
        raise DataError("a value is infinite", path=f"[{int(np.isinf(wide).argmax())}]", hint="write nan for what is not known")
    return np.asarray(wide[~np.isnan(wide)])


def limbs(values: Array) -> Array:
    """The exact sum of float64 numbers, as int64 limbs of 16 bits from 2^-1074 up: limbs of several sites may be added.

    >>> rounded(limbs(np.array([1e308, 1.0, -1e308])))
    1.0
    """
    total = np.zeros(LIMBS, np.int64)
    for begin in range(0, len(values), CHUNK):
        fraction, exponent = np.frexp(values[begin : begin + CHUNK])
        whole = np.ldexp(np.abs(fraction), 53).astype(np.int64)
        place = exponent.astype(np.int64) - 53 + LEAST
        whole >>= np.maximum(-place, 0)  # a subnormal number ends in that many zeros
        place = np.maximum(place, 0)
        sign = np.sign(fraction).astype(np.int64)
        for part, at in ((whole & (2**27 - 1), place), (whole >> 27, place + 27)):
            np.add.at(total, at // BITS, sign * (part << (at % BITS)))
        for i in range(LIMBS - 1):
            carry = total[i] >> BITS
            total[i] -= carry << BITS
            total[i + 1] += carry
    return total


def rounded(total: Any, count: int = 1) -> float:
    """The sum that limbs stand for, divided by a count, rounded once; nan of nothing, infinite beyond float64."""
    whole = sum(int(limb) << (BITS * i) for i, limb in enumerate(np.asarray(total)))
    if count == 0:
        return float("nan")
    try:
        return whole / (count << LEAST)  # of two integers, Python rounds the quotient once
    except OverflowError:
        return float("inf") if whole > 0 else float("-inf")
