"""Which clients take part in a round: a function of the round's number."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hansa.compat.tff.simulation.datasets.client_data import ClientData
from hansa.core.rng import generator
from hansa.errors import DataError

T = TypeVar("T")


def build_uniform_sampling_fn(
    sample_range: Sequence[T], replace: bool = False, random_seed: int | None = None
) -> Callable[[int, int], list[T]]:
    """`(round_num, size) -> list`: a sample of the range, the same whenever it is asked for the same round.

    The stream is Hansa's own (Philox, keyed by seed and round), so it draws other clients than TensorFlow Federated does. Without a
    seed it draws others whenever a program runs.

    >>> sample = build_uniform_sampling_fn(range(10), random_seed=5)
    >>> sample(3, 2) == sample(3, 2), len(set(sample(0, 10)))
    (True, 10)

    Raises:
        DataError: more are asked for than there are, and none may come twice.
    """
    seed = secrets.randbits(63) if random_seed is None else random_seed

    def sample(round_num: int, size: int) -> list[T]:
        if not replace and size > len(sample_range):
            raise DataError(f"Failed to sample {size} clients from population of size {len(sample_range)}.")
        rng = generator(seed, round=round_num, purpose="tff/sampling")
        return [sample_range[int(k)] for k in rng.choice(len(sample_range), size, replace=replace)]

    return sample


def build_uniform_client_sampling_fn(
    client_data: ClientData, num_clients_per_round: int, random_seed: int | None = None
) -> Callable[[int], list[Any]]:
    """`(round_num) -> list` of client ids, without repeats in a round."""
    sample = build_uniform_sampling_fn(client_data.client_ids, random_seed=random_seed)
    return lambda round_num: sample(round_num, num_clients_per_round)
