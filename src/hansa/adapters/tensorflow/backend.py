"""Local computations in TensorFlow: types by tracing, a function compiled once into a graph. A LocalBackend."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

from hansa.adapters import local
from hansa.adapters.local import SAY, each_leaf
from hansa.adapters.tensorflow.captures import outside
from hansa.adapters.tensorflow.variables import fresh_variables
from hansa.core.graph import where
from hansa.core.types import ObjectType, SequenceType, StructType, TensorType, Type, contains, members
from hansa.core.values import restore
from hansa.errors import HansaError, TraceError


def type_of(spec: object) -> Type | None:
    """The type of a dtype, a tensor, a variable or a TensorSpec; of a data set or its specification, the sequence.

    Raises:
        TraceError: a data set has elements that are no tensors (ragged or sparse ones).
    """
    if isinstance(spec, tf.DType):
        return TensorType(_numpy(spec))
    if isinstance(spec, tf.data.Dataset | tf.data.DatasetSpec):
        return SequenceType(_tensors_only(local.type_of(spec.element_spec, type_of), "a data set's elements"))
    if isinstance(spec, tf.Tensor | tf.Variable | tf.TensorSpec):
        return TensorType(_numpy(spec.dtype), None if spec.shape.rank is None else spec.shape.as_list())
    return None


def result_type(fn: Callable[..., Any], parameters: Sequence[Type]) -> Type:
    """The type of what the function gives when it is traced for tensors of these types; nothing is computed.

    Raises:
        TraceError: it cannot be traced, it gives what is no tensor, or it takes a tensor or a variable from outside: names it.
    """
    return _traced(fn, parameters).result


def compiled(fn: Callable[..., Any], parameters: Sequence[Type]) -> Callable[..., Any]:
    """The function, from arrays to arrays, as one graph; variables that it makes, a model's too, begin anew in each call.

    A sequence reaches it as a tf.data.Dataset; `for` over one, and `if` and `while` over tensors, become part of the graph. One
    that asks for its context runs as Python.
    """

    def run(*args: Any, **extra: Any) -> Any:
        given = [_given(arg, kind) for arg, kind in zip(args, parameters, strict=True)]
        if extra:
            return each_leaf(fn(*given, **extra), _array)
        graph = _traced(fn, parameters)
        return _filled(graph.result, iter(graph.run(*given)))

    return run


class _Graph(NamedTuple):
    """A traced function: its tensors and data sets one after another, and the type that they make up."""

    run: Callable[..., list[Any]]
    result: Type


_TRACED: Final[WeakKeyDictionary[Callable[..., Any], dict[tuple[Type, ...], _Graph]]] = WeakKeyDictionary()


def _traced(fn: Callable[..., Any], parameters: Sequence[Type]) -> _Graph:
    """The function's graph for arguments of these types, made once: to trace a model's training takes a second."""
    graphs = _TRACED.setdefault(fn, {})
    if (key := tuple(parameters)) not in graphs:
        graphs[key] = _trace(fn, [_spec(kind) for kind in parameters])
    return graphs[key]


def _trace(fn: Callable[..., Any], specs: Sequence[Any]) -> _Graph:
    name = getattr(fn, "__name__", type(fn).__name__).replace("<lambda>", "the function")
    plain = _graph_code(fn)
    found: list[Type] = []

    def body(*args: Any) -> list[Any]:
        with fresh_variables():
            made = plain(*args)
            found[:] = [_tensors_only(local.type_of(made, _look), f"what {name} gives")]
            return [each if isinstance(each, tf.data.Dataset) else _tensor(each) for each in _leaves(made)]

    try:
        graph = tf.function(body, autograph=False).get_concrete_function(*specs)
    except HansaError:
        raise
    except Exception as error:  # the function is the user's: it may raise anything, and that is told, with the cause
        what = f"TensorFlow cannot trace {name}, so what it gives is not known before it runs"
        raise TraceError(what, got=f"{type(error).__name__}: {error}", hint=SAY + where()) from error
    if taken := outside(graph.graph, fn):
        hint = "make it inside the function, or give it as an argument" + where()
        raise TraceError(f"{name} captures what was made outside it", got=", ".join(taken), hint=hint)
    return _Graph(graph, found[0])


def _graph_code(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its `for`, `if` and `while` over tensors as operations; as it is where its source is not there."""
    if not inspect.isfunction(fn) or hasattr(fn, "__wrapped__") or fn.__name__ == "<lambda>":
        return fn
    try:
        inspect.getsource(fn)
    except (OSError, TypeError):
        return fn
    converted: Callable[..., Any] = tf.autograph.to_graph(fn)
    return converted


def _tensors_only(kind: Type, what: str) -> Type:
    if contains(kind, ObjectType):
        raise TraceError(f"{what} must be tensors", got=kind, hint="of a ragged tensor give `.to_tensor()`" + where())
    return kind


def _look(value: Any) -> Type | None:
    """The type of a tensor or of what becomes one: Keras has variables of its own."""
    value = getattr(value, "value", value) if type(value).__module__.startswith("keras.") else value
    return type_of(value)


def _leaves(value: Any) -> Iterator[Any]:
    items = members(value)
    if items is None:
        yield value
    for _, item in items or ():
        yield from _leaves(item)


def _tensor(value: Any) -> Any:
    """What a graph gives: a tensor for a variable, an array or a number."""
    return tf.convert_to_tensor(value, np.int64 if type(value) is int and not -(2**31) <= value < 2**31 else None)


def _filled(kind: Type, flat: Iterator[Any]) -> Any:
    """The result of a graph's tensors in their order."""
    if isinstance(kind, StructType):
        return restore([_filled(item, flat) for item in kind], kind)
    return _array(next(flat))


def _spec(kind: Type) -> Any:
    match kind:
        case TensorType():
            return tf.TensorSpec(kind.shape, tf.string if kind.dtype.kind == "U" else tf.as_dtype(kind.dtype))
        case SequenceType():
            return tf.data.DatasetSpec(_spec(kind.element))
        case StructType():
            return restore([_spec(item) for item in kind], kind)
    raise TraceError("TensorFlow has no values of this type", got=kind, hint=where())


def _given(value: Any, kind: Type) -> Any:
    """A value of this type in tensors and data sets."""
    match kind:
        case SequenceType():
            return value if isinstance(value, tf.data.Dataset) else _data_set(list(value), kind.element)
        case StructType():
            return restore([_given(each, item) for (_, each), item in zip(members(value) or (), kind, strict=True)], kind)
    return tf.convert_to_tensor(value)


def _data_set(elements: list[Any], kind: Type) -> Any:
    """The data set of elements in memory: a table where only the last has other shapes, for that is twenty times as fast."""
    spec = _spec(kind)
    columns = [[np.asarray(leaf) for leaf in _leaves(element)] for element in elements]
    shapes = [[leaf.shape for leaf in column] for column in columns]
    if not shapes or not shapes[0] or any(shape != shapes[0] for shape in shapes[:-1]):
        return tf.data.Dataset.from_generator(lambda: iter(elements), output_signature=spec)
    alike = columns if shapes[-1] == shapes[0] else columns[:-1]
    tables = [
        tf.data.Dataset.from_tensor_slices(tf.nest.pack_sequence_as(spec, [np.stack(column) for column in zip(*part, strict=True)]))
        for part in (alike, columns[len(alike) :])
        if part
    ]
    return tables[0] if len(tables) == 1 else tables[0].concatenate(tables[1])


def _array(value: Any) -> Any:
    if isinstance(value, tf.data.Dataset):
        return [each_leaf(item, _array) for item in value]
    value = getattr(value, "value", value) if type(value).__module__.startswith("keras.") else value
    if not isinstance(value, tf.Tensor | tf.Variable):
        return value
    array = value.numpy()
    if value.dtype == tf.string:
        return array.decode() if isinstance(array, bytes) else np.char.decode(np.asarray(array, np.bytes_))
    copy = np.array(array)
    return copy if copy.ndim else copy[()]


def _numpy(dtype: Any) -> np.dtype[Any]:
    return np.dtype(np.str_ if dtype == tf.string else dtype.as_numpy_dtype)
