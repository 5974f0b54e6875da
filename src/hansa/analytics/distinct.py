"""How many different items there are at all sites together, by HyperLogLog: no item leaves a site, and none counts twice.

Flajolet 2007 (https://hal.science/hal-00406166); the estimate is Ertl's of 2017 (https://arxiv.org/abs/1702.01284), which needs no
table of corrections for small and large counts.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from hansa.analytics.values import FLOAT64, local, values_of
from hansa.core.computation import Computation, federated_computation
from hansa.core.intrinsics import federated_map, federated_max
from hansa.core.trees import Array
from hansa.core.types import TensorType
from hansa.errors import ConfigError, DataError


def distinct(of: object = np.float64, *, precision: int = 12) -> Computation:
    """How many different items all sites have together, about: the standard error is `standard_error(precision)` of the count.

    of: the dtype of the items: integers, floats (NaN is left out) or strings. A site sends 2**precision bytes. These are small, and
    not private: they tell whether a site may have an item that one can guess.

    >>> print(distinct(np.str_).type_signature)
    ({str[?]}@CLIENTS -> float64@SERVER)
    >>> round(distinct(np.str_)([["ann", "bob"], ["bob", "cy"]]))
    3

    Raises:
        ConfigError: precision is not 4 to 18.
        TraceError: `of` is no dtype.
    """
    if type(precision) is not int or not 4 <= precision <= 18:
        raise ConfigError("precision counts the bits that choose a register", path="precision", expected="4 to 18", got=precision)
    items, held = TensorType(of, [None]), TensorType(np.uint8, [1 << precision])
    fill = local("registers", lambda values: registers(values, precision), {"values": items}, held, about=f"precision={precision}")
    read = local("estimate", lambda kept: np.float64(estimate(kept)), {"registers": held}, FLOAT64)

    @federated_computation(values_of(items))
    def count_distinct(values: Any) -> Any:
        return federated_map(read, federated_max(federated_map(fill, values)))

    return count_distinct


def standard_error(precision: int) -> float:
    """The standard deviation of the estimate, as a share of the count.

    >>> round(standard_error(12), 4)
    0.0163
    """
    return 1.04 / math.sqrt(1 << precision)


def registers(values: Any, precision: int) -> Array:
    """For each register the most leading zeros, plus one, among the hashes of the items that it takes: uint8[2**precision].

    Raises:
        DataError: not a vector of integers, floats or strings.
    """
    kept = np.zeros(1 << precision, np.uint8)
    hashes = _hashes(np.asarray(values))
    places = (hashes >> np.uint64(64 - precision)).astype(np.int64)
    np.maximum.at(kept, places, _leading_zeros(hashes << np.uint64(precision), 64 - precision) + np.uint8(1))
    return kept


def estimate(kept: Array) -> float:
    """How many different items filled the registers."""
    size = len(kept)
    longest = 65 - int(math.log2(size))
    counts = np.bincount(np.minimum(np.asarray(kept, np.int64), longest), minlength=longest + 1).astype(float)
    z = size * _tau(1 - counts[longest] / size)
    for k in range(longest - 1, 0, -1):
        z = 0.5 * (z + counts[k])
    z += size * _sigma(counts[0] / size)
    return size * size / (2 * math.log(2) * z)


def _hashes(items: Array) -> Array:
    if items.ndim != 1 or items.dtype.kind not in "biufUS":
        got = f"{items.dtype.name}{list(items.shape)}"
        raise DataError("not the items of a site", expected="a vector of integers, floats or strings", got=got)
    if items.dtype.kind == "f":
        items = items[~np.isnan(items)].astype("<f8") + 0.0  # -0.0 is 0.0
    elif items.dtype.kind in "biu":
        items = items.astype("<u8" if items.dtype.kind == "u" else "<i8")
    one_each = np.unique(items)
    texts = (str(each).encode() for each in one_each) if items.dtype.kind == "U" else (each.tobytes() for each in one_each)
    joined = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def _leading_zeros(words: Array, most: int) -> Array:
    """The zeros before the first one of 64-bit words, at most `most`."""
    high = (words >> np.uint64(32)).astype(np.float64)  # 32 bits: exact in float64, so that frexp tells the length
    low = (words & np.uint64(0xFFFFFFFF)).astype(np.float64)
    zeros = np.where(high > 0, 32 - np.frexp(high)[1], 64 - np.frexp(low)[1])
    return np.minimum(zeros, most).astype(np.uint8)


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z, y = z + x * y, y * 2
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x, before, y = math.sqrt(x), z, y / 2
        z -= (1 - x) ** 2 * y
    return z / 3
