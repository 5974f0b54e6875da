"""`tff.tensorflow`: local computations whose body is TensorFlow's."""

from functools import partial

from hansa.core.types import to_type
from hansa.local import local_computation

__all__ = ["computation", "to_type"]

computation = partial(local_computation, backend="tensorflow")
