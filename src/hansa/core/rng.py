"""Random streams: Philox keyed by (seed, round, slot, purpose), so that order and number of workers never matter."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *, round: int = 0, slot: int = -1, purpose: str = "") -> np.random.Generator:  # noqa: A002  DESIGN's word
    """A generator of its own for each (seed, round, slot, purpose); slot -1 is the server.

    >>> bool(generator(7, round=1, slot=2).random() == generator(7, round=1, slot=2).random())
    True
    """
    digest = hashlib.blake2b(f"{seed}/{round}/{slot}/{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
