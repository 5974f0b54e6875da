"""`tff.jax`: local computations whose body is JAX's."""

from functools import partial

from hansa.local import local_computation

__all__ = ["computation"]

computation = partial(local_computation, backend="jax")
