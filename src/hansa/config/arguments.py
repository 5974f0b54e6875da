"""What a function takes from a job file: its keyword arguments, by name and type, as its signature says them."""

from __future__ import annotations

import inspect
import types
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from hansa.errors import ConfigError, HansaError
from hansa.registry import nearest

_SCALARS = {bool, int, float, str, type(None)}
_SEQUENCES = {list, tuple, set, frozenset, abc.Sequence, abc.Collection, abc.Iterable}
_MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}


@dataclass(frozen=True, slots=True)
class Arguments:
    """The keyword arguments of a function: `hints` by name (None: a job file cannot express it), and those without a default.

    `open` says that the function takes any further keyword.
    """

    hints: Mapping[str, Any]
    required: frozenset[str] = frozenset()
    open: bool = False

    @staticmethod
    def of(function: Callable[..., Any], *, given: int = 0) -> Arguments:
        """The arguments of a function, without the first `given` ones, which its caller passes by position."""
        parameters = list(inspect.signature(function).parameters.values())
        annotations = _annotations(function)
        hints: dict[str, Any] = {}
        required, is_open = set(), False
        for parameter in parameters[given:]:
            hint = annotations.get(parameter.name, Any)
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                options = get_args(hint)[0] if get_origin(hint) is Unpack else None
                is_open = not is_typeddict(options)
                hints |= {} if is_open else {name: expressible(kind) for name, kind in get_type_hints(options).items()}
            elif parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
                hints[parameter.name] = expressible(hint)
                required |= {parameter.name} if parameter.default is inspect.Parameter.empty else set()
        return Arguments(hints, frozenset(required), is_open)

    def check(
        self, values: Mapping[str, Any], *, path: str, names: Mapping[str, str] | None = None, also: str = ""
    ) -> dict[str, Any]:
        """The values as the function takes them. `names` says which key of the file an argument comes from, if not `path`'s own.

        `also` is a key of the same table that is not an argument: one that may have been meant.

        Raises:
            ConfigError: a key is unknown (the nearest is named), of the wrong type, or missing; `path` is the table's.
        """
        checked: dict[str, Any] = {}
        known = sorted({also} | {name for name, hint in self.hints.items() if hint is not None})
        for key, value in values.items():
            where = (names or {}).get(key, f"{path}.{key}")
            if key not in self.hints:
                if not self.open:
                    raise ConfigError("no such key", path=where, hint=nearest(key, known))
                checked[key] = value
            elif self.hints[key] is None:
                raise ConfigError("a job file cannot hold this", path=where, hint="write the job in Python: hansa run file.py:job")
            else:
                checked[key] = convert(value, self.hints[key], path=where)
        if missing := sorted(self.required - checked.keys()):
            raise ConfigError("a key is missing", path=f"{path}.{missing[0]}", expected=describe(self.hints[missing[0]]))
        return checked


def positional(function: Callable[..., Any]) -> int:
    """How many arguments a function takes by position.

    >>> positional(lambda learner, *, rounds: None), positional(lambda *, features: None)
    (1, 0)
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in kinds for each in inspect.signature(function).parameters.values())


def convert(value: Any, hint: Any, *, path: str) -> Any:
    """The value as the type has it; nothing is coerced but an integer to a float and a list to another sequence.

    Raises:
        ConfigError: it is of another type; the path leads to the entry.
    """
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        _, _, inside = str(error).partition(" - at `$")
        raise ConfigError(
            "not of the right type", path=path + inside.rstrip("`"), expected=describe(hint), got=repr(value)
        ) from None


def describe(hint: Any) -> str:
    """A type for people.

    >>> describe(float | None), describe(Literal["a", "b"]), describe(list[str])
    ('float', "'a' or 'b'", 'a list of str')
    """
    origin, members = get_origin(hint), [member for member in get_args(hint) if member not in (type(None), Ellipsis)]
    if origin in (Union, types.UnionType):  # TOML cannot say None: the key is left out
        return " or ".join(describe(member) for member in members)
    if origin is Literal:
        return " or ".join(repr(member) for member in members)
    if (origin or hint) in _SEQUENCES:
        return f"a list of {describe(members[0])}" if members else "a list"
    if (origin or hint) in _MAPPINGS:
        return "a table"
    return "any value" if hint is Any else str(hint.__name__)


def expressible(hint: Any) -> Any:
    """The part of a type that TOML can say; None if there is nothing.

    >>> expressible(Union[float, Callable[[int], float]]), expressible(Callable[[int], float])
    (<class 'float'>, None)
    """
    origin, members = get_origin(hint), get_args(hint)
    if hint is Any or hint in _SCALARS or origin is Literal:
        return hint
    if hint is Path:
        return str
    if origin is Annotated:
        return expressible(members[0])
    if origin in (Union, types.UnionType):
        said = [kind for member in members if (kind := expressible(member)) is not None]
        return Union[tuple(said)] if said and said != [type(None)] else None  # noqa: UP007  the members are known at run time only
    if hint in _SEQUENCES | _MAPPINGS:
        return hint
    if origin in _SEQUENCES | _MAPPINGS:
        inner = [member if member is Ellipsis else expressible(member) for member in members]
        return None if None in inner else origin[tuple(inner)]
    return None


@contextmanager
def locate(keys: Mapping[str, str]) -> Iterator[None]:
    """Errors from inside that name an argument name the job file's key instead; `keys` says which that is."""
    try:
        yield
    except HansaError as error:
        name, bracket, index = (error.path or "").partition("[")
        if name in keys:
            error.path = f"{keys[name]}{bracket}{index}"
        raise


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The function's annotations, evaluated; those that cannot be are left out, and so accept anything."""
    target = function.__init__ if inspect.isclass(function) else function  # a class's signature is its init's
    try:
        return get_type_hints(target, include_extras=True)
    except NameError:  # a name imported for type checkers only, in code of a user
        return {}
