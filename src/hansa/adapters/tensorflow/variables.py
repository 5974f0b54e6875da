"""Variables of a traced function that live for one call of it.

`tf.function` keeps the variables that are made while it traces: a model that a function builds would go on from where the last call
left it. A local computation builds its model afresh in each call, as TensorFlow Federated's do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.context import anonymous_name
from tensorflow.python.framework import ops
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable

__all__ = ["fresh_variables"]


def fresh_variables() -> Any:
    """A context within which each tf.Variable, made while a graph is traced, begins anew whenever that graph runs.

    >>> @tf.function
    ... def count(x):
    ...     with fresh_variables():
    ...         total = tf.Variable(0.0)
    ...     total.assign_add(x)
    ...     return total.read_value()
    >>> float(count(tf.constant(2.0))), float(count(tf.constant(3.0)))
    (2.0, 3.0)
    """
    return tf.variable_creator_scope(_create)


def _create(make: Callable[..., Any], **asked: Any) -> Any:
    """The variable that is asked for; where nothing is traced, an ordinary one."""
    return make(**asked) if tf.executing_eagerly() else _OfOneCall(**asked)


class _OfOneCall(BaseResourceVariable):  # type: ignore[misc]  # TensorFlow ships no types
    """A variable whose resource is made, and set to its first value, by the graph itself."""

    def __init__(
        self, initial_value: Any, *, dtype: Any = None, shape: Any = None, name: str | None = None, trainable: Any = None, **_: Any
    ) -> None:
        value = tf.convert_to_tensor(initial_value() if callable(initial_value) else initial_value, dtype)
        shape = tf.TensorShape(value.shape if shape is None else shape)
        # Under the anonymous name each execution of the operation makes a resource of its own, which ends with its last reader.
        handle = tf.raw_ops.VarHandleOp(dtype=value.dtype, shape=shape, shared_name=anonymous_name(), container="")
        label = name or "Variable"
        super().__init__(
            trainable=trainable,
            shape=shape,
            dtype=value.dtype,
            handle=handle,
            name=label,
            unique_id=f"{label}_{ops.uid()}",
            handle_name=label,
        )
        tf.raw_ops.AssignVariableOp(resource=handle, value=value)
