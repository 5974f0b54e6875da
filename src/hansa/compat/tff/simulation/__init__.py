"""`tff.simulation`: data by client, and how the clients of a round are drawn."""

from hansa.compat.tff.simulation import datasets
from hansa.compat.tff.simulation.composing import (
    compose_dataset_computation_with_computation,
    compose_dataset_computation_with_iterative_process,
)
from hansa.compat.tff.simulation.sampling import build_uniform_client_sampling_fn, build_uniform_sampling_fn

__all__ = [
    "build_uniform_client_sampling_fn",
    "build_uniform_sampling_fn",
    "compose_dataset_computation_with_computation",
    "compose_dataset_computation_with_iterative_process",
    "datasets",
]
