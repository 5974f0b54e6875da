"""What a traced function took from outside, by the names that its own code has for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_CONSTANT = 128  # elements of a tensor that TensorFlow writes into a graph


def outside(graph: Any, fn: Callable[..., Any]) -> list[str]:
    """Each tensor, variable or data set that is not made in the graph: its name in the function's code, and what it is."""
    known = {id(held): (name, value) for name, value in _named(fn, set()) for held in _held(value)}
    found = [each for each in graph.external_captures if id(each) in known or not _small(each)]
    return list(dict.fromkeys(_described(each, *known.get(id(each), ("", None))) for each in found))


def _small(captured: Any) -> bool:
    """Whether TensorFlow wrote it into the graph as a constant; one without a name in the user's code is its own."""
    return captured.dtype not in (tf.resource, tf.variant) and bool(captured.shape.num_elements() <= _CONSTANT)


def _described(captured: Any, name: str, value: Any) -> str:
    if not name:
        return "a variable or a data set" if captured.dtype in (tf.resource, tf.variant) else f"an eager tensor {captured.shape}"
    what = "eager tensor" if value is captured else "data set" if isinstance(value, tf.data.Dataset) else type(value).__name__
    return f"{name} ({what})"


def _named(fn: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The names in a function's code, and in that of functions that it names, with their values."""
    fn = inspect.unwrap(getattr(fn, "python_function", fn)) if callable(fn) else fn
    if not inspect.isfunction(fn) or id(fn) in seen:
        return
    seen.add(id(fn))
    found = inspect.getclosurevars(fn)
    for name, value in {**found.globals, **found.nonlocals}.items():
        yield name, value
        if not inspect.ismodule(value):
            yield from _named(value, seen)


def _held(value: Any) -> list[Any]:
    """The tensors by which a graph knows a value: a variable's handle, those of a model's variables, a data set's."""
    if isinstance(value, list | tuple):
        return [held for item in value for held in _held(item)]
    if isinstance(value, dict):
        return _held(list(value.values()))
    if isinstance(value, tf.data.Dataset):
        return [value._variant_tensor]
    if isinstance(variables := getattr(value, "variables", None), list | tuple):
        return _held(list(variables))
    return [getattr(value, "handle", value)] if hasattr(value, "handle") else [value]
