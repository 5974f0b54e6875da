"""Generic signatures: whether a type is an instance of one that has labels (`AbstractType`) in it."""

from __future__ import annotations

from hansa.core.types import AbstractType, FederatedType, FunctionType, SequenceType, StructType, Type, assignable, contains
from hansa.errors import TraceError


def check_concrete_instance_of(concrete: Type, generic: Type) -> dict[str, Type]:
    """The type that each label of `generic` stands for in `concrete`, which has none itself.

    A label is bound where a function takes what it stands for: in `(<(T -> U),T*> -> U*)` the elements of the second argument bind
    T, the result of the first binds U. Where it is bound twice, the types are the same; elsewhere a value of that type may stand.

    >>> import numpy as np
    >>> t, u = AbstractType("T"), AbstractType("U")
    >>> generic = FunctionType([FunctionType(t, u), SequenceType(t)], SequenceType(u))
    >>> made = FunctionType([FunctionType(np.int32, np.float32), SequenceType(np.int32)], SequenceType(np.float32))
    >>> print(*(f"{label}={kind}" for label, kind in sorted(check_concrete_instance_of(made, generic).items())))
    T=int32 U=float32

    Raises:
        TraceError: it is no instance; says which label, or where the structures differ.
    """
    if contains(concrete, AbstractType):
        raise TraceError("a concrete type has no labels", got=concrete)
    binding: dict[str, list[Type]] = {}
    used: dict[str, list[Type]] = {}
    _collect(concrete, generic, False, binding, used)
    for label, kinds in binding.items():
        if other := next((kind for kind in kinds if kind != kinds[0]), None):
            raise TraceError(f"{label} stands for two types", expected=kinds[0], got=other)
    for label, kinds in used.items():
        if label not in binding:
            raise TraceError(f"nothing that is taken says what {label} stands for", got=generic)
        for kind in kinds:
            if not assignable(kind, binding[label][0]):
                raise TraceError(f"what {label} stands for cannot stand here", expected=kind, got=binding[label][0])
    return {label: kinds[0] for label, kinds in binding.items()}


def _collect(concrete: Type, generic: Type, binds: bool, binding: dict[str, list[Type]], used: dict[str, list[Type]]) -> None:
    """What each label meets. `binds`: what is here is taken; a function's parameter turns that round."""
    if isinstance(generic, AbstractType):
        (binding if binds else used).setdefault(generic.label, []).append(concrete)
        return
    if not contains(generic, AbstractType):
        target, source = (generic, concrete) if binds else (concrete, generic)
        if not assignable(target, source):
            raise TraceError("not an instance of the generic type", expected=generic, got=concrete)
        return
    match generic, concrete:
        case StructType(), StructType() if [name for name, _ in generic.items()] == [name for name, _ in concrete.items()]:
            pass
        case SequenceType(), SequenceType():
            pass
        case FederatedType(), FederatedType() if (generic.placement, generic.all_equal) == (concrete.placement, concrete.all_equal):
            pass
        case FunctionType(), FunctionType() if (generic.parameter is None) == (concrete.parameter is None):
            if generic.parameter is not None and concrete.parameter is not None:
                _collect(concrete.parameter, generic.parameter, not binds, binding, used)
            _collect(concrete.result, generic.result, binds, binding, used)
            return
        case _:
            raise TraceError("the types have different structures", expected=generic, got=concrete)
    for part, whole in zip(concrete.children(), generic.children(), strict=True):
        _collect(part, whole, binds, binding, used)
