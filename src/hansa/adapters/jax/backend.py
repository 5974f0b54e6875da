"""Local computations in JAX: types by `eval_shape`, functions compiled once. A LocalBackend."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hansa.adapters.local import Batches, taker, tensors
from hansa.adapters.local import result_type as found
from hansa.core.graph import where
from hansa.core.types import SequenceType, StructType, TensorType, Type, contains
from hansa.errors import TraceError


def type_of(spec: object) -> Type | None:
    """The type of an array, a `jax.ShapeDtypeStruct`, or a scalar class such as `jnp.bfloat16`."""
    return TensorType(jnp.dtype(spec)) if isinstance(spec, type(jnp.float32)) else _look(spec)


def result_type(fn: Callable[..., Any], parameters: Sequence[Type]) -> Type:
    """The type of what the function gives, by `jax.eval_shape`: nothing is computed.

    Raises:
        TraceError: it cannot be traced, the result's structure follows what the parameters leave open, or JAX computes in 32 bits
            and a parameter has 64.
    """
    _check(parameters)
    return found(fn, parameters, _stand_in, _look, lambda fn, given: jax.eval_shape(fn, *given))


def compiled(fn: Callable[..., Any], parameters: Sequence[Type]) -> Callable[..., Any]:
    """The function, from arrays to arrays, compiled for each set of shapes."""
    begin = begun(fn, parameters)
    return lambda *args, **extra: begin(*args, **extra)()


def begun(fn: Callable[..., Any], parameters: Sequence[Type]) -> Callable[..., Callable[[], Any]]:
    """As `compiled`; a call gives what waits for its result: the device works while Python goes on.

    One that takes a sequence, or asks for its context, runs as Python: the length of a sequence would be compiled in. Compile its
    step with `jax.jit`, or fold it over the sequence with `sequence_reduce`.
    """
    _check(parameters)
    wants = [p for p in inspect.signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if not wants and not any(contains(kind, SequenceType) for kind in parameters):
        whole: Callable[..., Any] = jax.jit(fn)
        return lambda *args: functools.partial(_arrays, whole(*args))
    takers = [_taker(kind) for kind in parameters]

    def run(*args: Any, **extra: Any) -> Callable[[], Any]:
        made = fn(*[take(arg) for take, arg in zip(takers, args, strict=True)], **extra)
        return functools.partial(_arrays, made)

    return run


def folded(fn: Callable[..., Any], parameters: Sequence[Type]) -> Callable[[Any, Iterable[Any]], Callable[[], Any]]:
    """The function, compiled, over the elements of a sequence, begun: what it carries on stays on the device until the last."""
    _check(parameters)
    step: Callable[[Any, Any], Any] = jax.jit(lambda total, item: jax.tree.map(_strong, fn(total, item)))
    return lambda total, items: functools.partial(_arrays, functools.reduce(step, items, total))


def _strong(value: Any) -> Any:
    """An array with a dtype that is its own, as it has when it comes back from NumPy."""
    return jax.lax.convert_element_type(value, jnp.result_type(value))


# Arrays of JAX's own memory, of a whole pytree in one call: `jnp.asarray` is slower, and may share the memory of what it is given.
_own: Callable[[Any], Any] = jax.jit(lambda value: value)


def _taker(kind: Type) -> Callable[[Any], Any]:
    if isinstance(kind, SequenceType):
        element = _taker(kind.element)
        return lambda value: Batches(value, element)
    return _own if _is_pytree(kind) else taker(kind, _own)


def _is_pytree(kind: Type) -> bool:
    """Whether its containers are JAX's as well."""
    if isinstance(kind, StructType):
        container = kind.container or tuple
        known = container in {list, tuple, dict, OrderedDict} or hasattr(container, "_fields")
        return known and all(map(_is_pytree, kind))
    return isinstance(kind, TensorType)


def _arrays(made: Any) -> Any:
    leaves, structure = jax.tree.flatten(made, is_leaf=lambda value: isinstance(value, Batches))
    return structure.unflatten(map(_array, leaves))


def _array(value: Any) -> Any:
    if isinstance(value, Batches):
        return [_arrays(item) for item in value]
    if not isinstance(value, jax.Array | np.ndarray):
        return value
    copy = np.array(value)
    return copy if copy.ndim else copy[()]


def _check(parameters: Sequence[Type]) -> None:
    for kind in (each for parameter in parameters for each in tensors(parameter)):
        if kind.dtype.kind == "U":
            raise TraceError("JAX has no arrays of this type", got=kind, hint=where())
        if jax.dtypes.canonicalize_dtype(kind.dtype) != kind.dtype:
            hint = 'jax.config.update("jax_enable_x64", True), or a type of 32 bits' + where()
            raise TraceError("JAX computes in 32 bits here, and the type has more", got=kind, hint=hint)


def _stand_in(kind: TensorType) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(n or 0 for n in kind.shape or ()), kind.dtype)


def _look(value: Any) -> TensorType | None:
    if isinstance(value, jax.ShapeDtypeStruct | jax.Array | np.ndarray | np.generic):
        return TensorType(value.dtype, value.shape)
    return None
