"""What makes an app's run the same each time: where the global generators begin, and one thread for PyTorch."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator

import numpy as np


def seed_all(rng: np.random.Generator) -> int:
    """Begin the global generators, of which an app's code draws, at a number of the task's own; the number."""
    number = int(rng.integers(1 << 32))
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  the generator that apps use
    seed_torch(number)
    return number


def seed_torch(number: int) -> None:
    """Begin PyTorch's generator at a number, where it is loaded."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(number)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """While it lasts, PyTorch computes with one thread, where it is loaded: two would add numbers up in another order each time."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    if torch is not None:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)
