"""The process that all others are: a state, and what makes the next one of it."""

from __future__ import annotations

from typing import Any, TypeAlias

from hansa.core.computation import Computation
from hansa.core.graph import member_of
from hansa.core.types import FunctionType, StructType, Type
from hansa.errors import TraceError
from hansa.local import LocalComputation
from hansa.templates.errors import (
    TemplateInitFnParamNotEmptyError,
    TemplateNextFnNumArgsError,
    TemplateStateNotAssignableError,
)

TypedFunction: TypeAlias = Computation | LocalComputation


class IterativeProcess:
    """`initialize: ( -> S)` and `next: (<S,...> -> <S,...>)`: a state, and a step that takes it first and gives it first.

    Where `next` takes or gives one value, that is the state. `next_is_multi_arg` says how the argument of `next` is meant where the
    state itself is a struct and both readings would do; None takes the computation's own parameters.

    >>> import numpy as np
    >>> import hansa as hs
    >>> @hs.local_computation
    ... def zero() -> np.int32:
    ...     return 0
    >>> @hs.local_computation(np.int32, np.int32)
    ... def add(total, value) -> np.int32:
    ...     return total + value
    >>> counter = IterativeProcess(zero, add)
    >>> print(counter.state_type, counter.next(counter.initialize(), 3))
    int32 3

    Raises:
        TraceError: not two computations.
        TemplateInitFnParamNotEmptyError: `initialize` takes an argument.
        TemplateNextFnNumArgsError: `next` takes none.
        TemplateStateNotAssignableError: the states do not fit; names both types.
    """

    def __init__(self, initialize_fn: TypedFunction, next_fn: TypedFunction, next_is_multi_arg: bool | None = None) -> None:
        started = signature_of(initialize_fn, "initialize")
        stepped = signature_of(next_fn, "next")
        if started.parameter is not None:
            raise TemplateInitFnParamNotEmptyError("`initialize` takes no argument", got=started, expected="( -> S)")
        if stepped.parameter is None:
            raise TemplateNextFnNumArgsError("`next` takes the state", got=stepped, expected=f"(<{started.result},...> -> ...)")
        taken = _taken(stepped.parameter, started.result, next_is_multi_arg, len(parameters_of(next_fn)))
        if not taken.is_assignable_from(started.result):
            raise TemplateStateNotAssignableError(
                "`next` does not take what `initialize` gives", expected=taken, got=started.result, hint=f"next is {stepped}"
            )
        given = stepped.result
        if not taken.is_assignable_from(given):
            first = given[0] if isinstance(given, StructType) and len(given) else given
            if not taken.is_assignable_from(first):
                raise TemplateStateNotAssignableError(
                    "`next` does not give a state that it takes", expected=taken, got=first, hint=f"next is {stepped}"
                )
        self._initialize, self._next, self._state_type = initialize_fn, next_fn, taken

    @property
    def initialize(self) -> TypedFunction:
        """The first state: `( -> S)`."""
        return self._initialize

    @property
    def next(self) -> TypedFunction:
        """The step."""
        return self._next

    @property
    def state_type(self) -> Type:
        """The type of the state, as `next` takes it."""
        return self._state_type

    @property
    def is_stateful(self) -> bool:
        """Whether there is anything in the state."""
        return not _empty(member_of(self._state_type))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._next.type_signature}>"


def signature_of(fn: object, what: str) -> FunctionType:
    """The type of a computation.

    Raises:
        TraceError: it is none, or one without types of its own.
    """
    if not isinstance(fn, Computation | LocalComputation):
        hint = "decorate it with hs.federated_computation or hs.local_computation, and give it types"
        raise TraceError(f"`{what}` is a computation with types", got=repr(fn), hint=hint)
    return fn.type_signature


def parameters_of(fn: TypedFunction) -> list[Type]:
    """The type of each parameter of a computation."""
    if isinstance(fn, Computation):
        return [node.type for node in fn.arguments.values()]
    return [kind for _, kind in fn.local.parameters]


def called(fn: TypedFunction, *args: Any) -> Any:
    """A computation's result, for type checkers; in a computation that is traced it becomes part of that one."""
    return fn(*args)


def _taken(parameter: Type, state: Type, several: bool | None, count: int) -> Type:
    """The part of the parameter of `next` that is the state."""
    if several is None:
        several = count > 1 or not parameter.is_assignable_from(state)
    return parameter[0] if several and isinstance(parameter, StructType) and len(parameter) else parameter


def _empty(kind: Type) -> bool:
    return isinstance(kind, StructType) and all(map(_empty, kind))
