"""Random streams: Philox keyed by (seed, round, slot, purpose), so that order and number of workers never matter."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISpawnableSeedSequence


def generator(seed: int, *, round: int = 0, slot: int = -1, purpose: str = "") -> np.random.Generator:  # noqa: A002  DESIGN's word
    """A generator of its own for each (seed, round, slot, purpose); slot -1 is the server. Its `spawn` gives further ones.

    >>> bool(generator(7, round=1, slot=2).random() == generator(7, round=1, slot=2).random())
    True
    """
    digest = hashlib.blake2b(f"{seed}/{round}/{slot}/{purpose}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(_Key(digest)))  # type: ignore[arg-type]  # the stub leaves ISeedSequence out


_WORD = np.dtype("<u8")


class _Key(ISpawnableSeedSequence):
    """Hands Philox its 128-bit key. `Philox(key=...)` gives the same stream, but asks the system for entropy first: 6 us each."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._children = 0

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray[Any, Any]:
        """The key as `n_words` little-endian words."""
        return np.frombuffer(self._digest, _WORD if dtype is np.uint64 else np.dtype(dtype).newbyteorder("<"), n_words)

    def spawn(self, n_children: int) -> list[Any]:
        """Keys of further streams: those of the first call, then others, whatever was drawn between."""
        numbers = range(self._children, self._children + n_children)
        self._children += n_children
        return [_Key(hashlib.blake2b(self._digest + b"/%d" % number, digest_size=16).digest()) for number in numbers]
