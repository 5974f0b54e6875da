"""Local computations: functions that run at one place, written in any framework, with types."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, cast, overload

from hansa import registry
from hansa.core.computation import fitted, local_function
from hansa.core.graph import TRACING, Apply, LocalFunction, Value, as_node, where
from hansa.core.protocols import LocalBackend
from hansa.core.signature import bound, copied, function_first, named, parameter_type, reduced
from hansa.core.task import FLContext, Signal
from hansa.core.types import UNKNOWN, FederatedType, FunctionType, ObjectType, Type, contains, infer_type, to_type
from hansa.core.values import Conform, conformer
from hansa.errors import TraceError

if TYPE_CHECKING:  # a default spares those who write LocalComputation alone; the runtime's TypeVar has it from Python 3.13 on
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")

Many: TypeAlias = Callable[..., list[Any]] | None

_RUNNING: Final = ContextVar("running", default="")  # the backend of the local computation that runs


class _Ready(NamedTuple):
    """What is made of a function before its first run: itself, compiled, and the looks at what it takes and gives."""

    run: Callable[..., Any]
    takes: tuple[tuple[str, Conform], ...]
    gives: Conform
    path: str  # what its result is called
    open: bool  # the result's type is found at the first run
    begin: Callable[..., Callable[[], Any]] | None  # as `run`, waited for later, where the backend can
    folded: Callable[[Any, Iterable[Any]], Callable[[], Any]] | None  # (total, items) -> () -> total, where the backend can


class LocalComputation(Generic[R]):
    """A Python function with declared types that runs at one place. What it takes and gives is converted to them.

    With a backend it is written in a framework: it is given the framework's arrays, and its arrays come back as NumPy's. One whose
    parameters have no types is made anew for those it meets (`of`). Without a backend, a result that is not declared is `?` to
    computations and plans; called, it is found at the first run.
    """

    __name__: str

    def __init__(self, local: LocalFunction) -> None:
        self._fn, self.local = local.fn, replace(local, fn=self, optional=frozenset())
        named(self, local.fn, local.name)
        # whether a framework's function waits for the types of its parameters
        self.polymorphic = bool(local.backend) and any(contains(kind, ObjectType) for _, kind in local.parameters)
        self._found: Type = UNKNOWN
        self._ready: _Ready | None = None
        self._made: dict[str, LocalComputation[R]] = {}

    @property
    def type_signature(self) -> FunctionType:
        """`(float32 -> float32)`; several parameters are one struct."""
        known = self._found if self.local.result == UNKNOWN else self.local.result
        return FunctionType(parameter_type(self.local.parameters), known)

    def as_local(self, *kinds: Type) -> LocalFunction:
        """The function that runs where arguments of these types are."""
        return (self.of(*kinds) if self.polymorphic else self).local

    def of(self, *kinds: Type) -> LocalComputation[R]:
        """The computation for arguments of these types, made once for each.

        Raises:
            TraceError: there are more or fewer parameters; or it cannot be made for them.
        """
        names = [name for name, _ in self.local.parameters]
        if len(kinds) != len(names):
            raise TraceError(f"{self.__name__} has {len(names)} parameters", got=", ".join(map(str, kinds)), hint=where())
        key = repr(kinds)
        if key not in self._made:
            plain = replace(self.local, fn=self._fn, parameters=tuple(zip(names, kinds, strict=True)))
            made: LocalComputation[R] = LocalComputation(_inferred(plain))
            made.polymorphic = False  # what is known by its class alone is handed to it as it is
            self._made[key] = made
        return self._made[key]

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        local = self.local
        if local.backend and _RUNNING.get() == local.backend:  # called by its like: a function as any
            return cast(R, self._fn(*args, **kwargs))
        extra = {name: kwargs.pop(name) for name in local.wants & kwargs.keys()}
        given = self._bound(args, kwargs)
        if TRACING.get():
            return cast(R, self._traced(given))
        if self.polymorphic:
            return self.of(*map(infer_type, given.values()))(**given, **extra)
        ready = self._ready or self._made_ready()
        return cast(R, self.applied([take(given[name], name) for name, take in ready.takes], extra))

    def applied(self, args: Sequence[Any], extra: Mapping[str, Any]) -> Any:
        """The result for arguments that have their types already: they are not looked at again."""
        ready = self._ready or self._made_ready()
        if _RUNNING.get() == self.local.backend:
            made = ready.run(*args, **extra)
        else:
            outer = _RUNNING.set(self.local.backend)
            try:
                made = ready.run(*args, **extra)
            finally:
                _RUNNING.reset(outer)
        return self._given(made, ready)

    def begin(self, args: Sequence[Any], extra: Mapping[str, Any]) -> Callable[[], Any]:
        """What waits for the result of `applied`, which is begun: where the backend can, its device works while Python goes on."""
        ready = self._ready or self._made_ready()
        if ready.begin is None:
            return functools.partial(self.applied, args, extra)
        outer = _RUNNING.set(self.local.backend)
        try:
            wait = ready.begin(*args, **extra)
        finally:
            _RUNNING.reset(outer)
        return lambda: self._given(wait(), ready)

    @property
    def waits(self) -> bool:
        """Whether what is begun is worth being waited for later."""
        return (self._ready or self._made_ready()).begin is not None

    def _given(self, made: Any, ready: _Ready) -> Any:
        if ready.open and self._found is UNKNOWN:
            self._found = infer_type(made)
        return ready.gives(made, ready.path)

    def fold(self, items: Iterable[Any], total: Any) -> Any:
        """`self(... self(total, e1) ..., en)`; what it carries on stays the framework's where its backend can."""
        return self.begin_fold(items, total)()

    def begin_fold(self, items: Iterable[Any], total: Any) -> Callable[[], Any]:
        """What waits for the result of `fold`, as `begin`."""
        ready = self._ready or self._made_ready()
        if ready.folded is None or len(ready.takes) != 2:
            return functools.partial(functools.reduce, self, items, total)
        (first, take_first), (second, take) = ready.takes
        outer = _RUNNING.set(self.local.backend)
        try:
            wait = ready.folded(take_first(total, first), (take(item, second) for item in items))
        finally:
            _RUNNING.reset(outer)
        return lambda: ready.gives(wait(), ready.path)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            return bound(self.local.name, [name for name, _ in self.local.parameters], args, kwargs)
        except TraceError as error:
            if getattr(self._fn, "__defaults__", None) and self.polymorphic:
                error.hint = "give local_computation the types of the first parameters alone, and the others keep their defaults"
            raise

    def _traced(self, given: Mapping[str, Any]) -> Value:
        nodes = {name: as_node(value) for name, value in given.items()}
        if placed := [node.type for node in nodes.values() if contains(node.type, FederatedType)]:
            raise TraceError(f"{self.local.name} runs at one place", got=placed[0], hint="use federated_map" + where())
        local = self.as_local(*(node.type for node in nodes.values()))
        ready = tuple(fitted(nodes[name], want, name, local.name) for name, want in local.parameters)
        return Value(Apply(local, ready, (), None, local.result))

    def _made_ready(self) -> _Ready:
        local, kinds = self.local, [kind for _, kind in self.local.parameters]
        backend = _backend(local.backend) if local.backend else None
        begun, folded = getattr(backend, "begun", None), getattr(backend, "folded", None)
        self._ready = _Ready(
            run=backend.compiled(self._fn, kinds) if backend else self._fn,
            takes=tuple((name, conformer(kind)) for name, kind in local.parameters),
            gives=conformer(local.result),
            path=f"result of {local.name}",
            open=local.result == UNKNOWN,
            begin=begun(self._fn, kinds) if begun else None,
            folded=folded(self._fn, kinds) if folded and not local.wants else None,
        )
        return self._ready

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": None, "_made": {}}  # what is compiled here is compiled there

    __reduce_ex__, __copy__ = reduced, copied

    def __repr__(self) -> str:
        return f"<local computation {self.local.name} {self.type_signature}>"


@overload  # what comes back is NumPy's, whatever the framework's function says
def local_computation(*types: object, returns: object = None, backend: str, many: Many = None) -> LocalComputation[Any]: ...
@overload
def local_computation(  # type: ignore[overload-overlap]  # a class is a type here, not a function
    first: type[Any], /, *types: object, returns: object = None, backend: None = None, many: Many = None
) -> Callable[[Callable[..., R]], LocalComputation[R]]: ...
@overload
def local_computation(  # type: ignore[overload-overlap]  # as there
    fn: Callable[..., R], /, *types: object, returns: object = None, backend: None = None, many: Many = None
) -> LocalComputation[R]: ...
@overload
def local_computation(
    *types: object, returns: object = None, backend: None = None, many: Many = None
) -> Callable[[Callable[..., R]], LocalComputation[R]]: ...
def local_computation(*args: object, returns: object = None, backend: str | None = None, many: Many = None) -> Any:
    """A function that runs at one place, with its types: from annotations, or given as for `to_type`.

    `backend` is the framework it is written in (`numpy`, `torch`, `jax`, or another that is installed as an entry point of
    `hansa.local_backends`): the result's type is found without data where neither `returns` nor an annotation declares it.

    >>> import numpy as np
    >>> @local_computation(np.float32)
    ... def add_half(x) -> np.float32:
    ...     return x + 0.5
    >>> print(add_half.type_signature, add_half(1))
    (float32 -> float32) 1.5

    Raises:
        TraceError: the types do not fit the parameters, or the backend cannot find the result's type.
        ConfigError: there is no such backend.
    """
    fn, types = function_first(args)

    def made(inner: Callable[..., Any]) -> LocalComputation[Any]:
        local = local_function(inner, types, many)
        if returns is not None:
            return LocalComputation(replace(local, result=to_type(returns), backend=backend or ""))
        return LocalComputation(_inferred(replace(local, backend=backend)) if backend else local)

    return made if fn is None else made(fn)


def _backend(name: str) -> LocalBackend:
    return cast(LocalBackend, registry.find("local_backends", name, path="backend"))


def _inferred(local: LocalFunction) -> LocalFunction:
    """The function with its result's type as its backend finds it, unless it is declared or a parameter's is still unknown."""
    kinds = [kind for _, kind in local.parameters]
    if not contains(local.result, ObjectType):
        return local
    if any(contains(kind, ObjectType) for kind in kinds):
        return replace(local, result=UNKNOWN)
    asked: dict[str, object] = {"ctx": FLContext(), "abort": Signal()}
    extra = {name: asked[name] for name in local.wants}
    fn = functools.wraps(local.fn)(lambda *args: local.fn(*args, **extra)) if extra else local.fn
    tracing, running = TRACING.set(False), _RUNNING.set(local.backend)
    try:
        return replace(local, result=_backend(local.backend).result_type(fn, kinds))
    finally:
        TRACING.reset(tracing)
        _RUNNING.reset(running)
