"""Schemas: the type of a site's data in the notation of computations, and whether a job's code takes it. Never the data.

The number of rows is data as well: it prints as `?` unless its site says otherwise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np

from hansa.core.graph import member_of
from hansa.core.job import Job
from hansa.core.protocols import Dataset
from hansa.core.types import (
    TREE,
    UNKNOWN,
    ObjectType,
    SequenceType,
    StructType,
    TensorType,
    Type,
    infer_type,
    members,
)
from hansa.errors import HansaError, InputError, TraceError

LONGEST: Final = 4_000  # characters of a schema
_DEEPEST: Final = 20
_LOOKED_AT: Final = 1_000  # elements of a list, whose types are joined
_DATASET: Final = "Dataset"
_OWN: Final = "data"  # the word by which any function may call the job's own data


@dataclass(frozen=True, slots=True)
class Misfit:
    """Where data are not what the code takes: `data -> x: expected float32[?,13], got float64[?,12]`."""

    path: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.got}"


def schema_of(data: object, *, rows: bool = False) -> Type:
    """The type of a site's data. `rows` says that the number of rows may be told.

    >>> print(schema_of({"x": np.zeros((303, 13)), "names": "ab"}), schema_of([np.zeros((20, 4)), np.zeros((7, 4))]))
    <x=float64[?,13],names=str> float64[?,4]*
    """
    if isinstance(data, Path):
        return ObjectType("Path")
    if isinstance(data, np.ndarray):
        kind = _inferred(data)
        return kind if rows or not isinstance(kind, TensorType) or not kind.shape else replace(kind, shape=(None, *kind.shape[1:]))
    if isinstance(data, Dataset):
        return StructType({name: schema_of(np.asarray(getattr(data, name)), rows=rows) for name in ("x", "y")})
    if isinstance(data, list):
        kinds = [_inferred(each) for each in itertools.islice(data, _LOOKED_AT)]
        if len(kinds) == 1:  # a lone batch would tell the number of rows
            kinds = [schema_of(data[0], rows=rows)]
        return SequenceType(_joined(kinds))
    if (items := members(data)) is not None:
        return StructType([(name, schema_of(item, rows=rows)) for name, item in items], type(data))
    return _inferred(data)


def _inferred(data: object) -> Type:
    try:
        return infer_type(data)
    except TraceError:
        return ObjectType(type(data).__name__, type(data))


def _joined(kinds: Sequence[Type]) -> Type:
    """The type that all of these have: sizes that differ are open, and so is what differs otherwise."""
    if not kinds:
        return UNKNOWN
    kind = kinds[0]
    for other in kinds[1:]:
        if kind != other:
            kind = _both(kind, other)
    return kind


def _both(one: Type, other: Type) -> Type:
    if isinstance(one, TensorType) and isinstance(other, TensorType) and one.dtype == other.dtype:
        if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
            return TensorType(one.dtype, None)
        return TensorType(one.dtype, [m if m == n else None for m, n in zip(one.shape, other.shape, strict=True)])
    if isinstance(one, StructType) and isinstance(other, StructType) and _names(one) == _names(other):
        return StructType([(name, _both(a, b)) for (name, a), b in zip(one.items(), other, strict=True)], one.container)
    if isinstance(one, SequenceType) and isinstance(other, SequenceType):
        return SequenceType(_both(one.element, other.element))
    return one if one == other else UNKNOWN


def _names(kind: StructType) -> list[str | None]:
    return [name for name, _ in kind.elements]


def misfits(wanted: Type, found: Type, path: str) -> Iterator[Misfit]:
    """Where data of the type `found` do not fit what is `wanted`; what either leaves open fits.

    >>> x = {"x": (np.float32, [None, 13]), "y": np.int32}
    >>> wanted, found = StructType(x), StructType({"y": np.int32, "x": (np.float64, [None, 12])})
    >>> print(*misfits(wanted, found, "data"))
    data -> x: expected float32[?,13], got float64[?,12]
    """
    if UNKNOWN in (wanted, found):
        return
    match wanted, found:
        case StructType(), StructType():
            yield from _of_struct(wanted, found, path)
        case SequenceType(), SequenceType():
            yield from misfits(wanted.element, found.element, f"{path}[]")
        case SequenceType(), TensorType(shape=(_, *rest)):  # an array is a sequence of its rows
            yield from misfits(wanted.element, TensorType(found.dtype, rest), f"{path}[]")
        case TensorType(), TensorType():
            if wanted.dtype != found.dtype or not _sizes_fit(wanted.shape, found.shape):
                yield Misfit(path, str(wanted), str(found))
        case ObjectType(), _:
            if not _of_class(wanted, found):
                yield Misfit(path, str(wanted), str(found))
        case _:
            yield Misfit(path, str(wanted), str(found))


def _of_struct(wanted: StructType, found: StructType, path: str) -> Iterator[Misfit]:
    if not wanted.fields() or not found.fields():  # by place
        if len(wanted) != len(found):
            yield Misfit(path, str(wanted), str(found))
            return
        for place, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from misfits(one, other, f"{path}[{place}]")
        return
    own, given = dict(wanted.items()), dict(found.items())
    for name in dict.fromkeys([*own, *given]):
        if name in own and name in given:
            yield from misfits(own[name], given[name], f"{path} -> {name}")
        else:
            yield Misfit(f"{path} -> {name}", *(str(side[name]) if name in side else "nothing" for side in (own, given)))


def _sizes_fit(wanted: tuple[int | None, ...] | None, found: tuple[int | None, ...] | None) -> bool:
    if wanted is None or found is None:
        return True
    return len(wanted) == len(found) and all(None in (m, n) or m == n for m, n in zip(wanted, found, strict=True))


def _of_class(wanted: ObjectType, found: Type) -> bool:
    """Whether data of the type may be of the class: only rows, trees and unlike classes are known not to be."""
    if wanted.name == _DATASET:
        return isinstance(found, ObjectType) or (isinstance(found, StructType) and {"x", "y"} <= set(found.fields()))
    if wanted == TREE:
        return isinstance(found, StructType | ObjectType)
    return not isinstance(found, TensorType | SequenceType) or wanted.cls is None


def check(job: Job, here: Mapping[str, Type]) -> list[Misfit]:
    """Where a site's data, by label, are not what the job's code takes: as its computations are typed, and as its learners say.

    A learner says it by `accepts(x, y)`, which raises a HansaError for types of rows and labels that it cannot be trained on.
    """
    found: dict[Misfit, None] = {}
    for stage in (stage for made in job.plans for stage in made.stages):
        for node in stage.parameters:
            label = node.name if node.name in here and node.name != _OWN else job.data
            if label in here:
                found |= dict.fromkeys(misfits(member_of(node.type), here[label], node.name))
    rows = here.get(job.data)
    if rows is None:
        return [Misfit(job.data, "data of this label", "none")]
    for worker in job.workers:
        if (misfit := _refused(worker, rows)) is not None:
            found[misfit] = None
    return list(found)


def _refused(worker: object, rows: Type) -> Misfit | None:
    accepts = getattr(worker, "accepts", None)
    if accepts is None or not isinstance(rows, StructType) or not {"x", "y"} <= set(rows.fields()):
        return None
    x, y = rows["x"], rows["y"]
    if not isinstance(x, TensorType) or not isinstance(y, TensorType) or x.shape is None or y.shape is None:
        return None
    try:
        accepts(x, y)
    except HansaError as error:
        return Misfit(f"{_OWN} -> {error.path or 'x'}", str(error.expected or error.message), str(error.got or rows))
    return None


def read_type(text: str) -> Type:
    """The type of data that a notation says: of tensors, structs, sequences; any other name is a class.

    >>> print(read_type("<x=float32[?,13],y=int32>*"), read_type("?"), read_type("dict[str, float]"))
    <x=float32[?,13],y=int32>* ? dict[str, float]

    Raises:
        InputError: it is no type of data, too long or too deep.
    """
    if len(text) > LONGEST:
        raise InputError("a type is too long", got=f"{len(text):,} characters", expected=f"at most {LONGEST:,}")
    kind, end = _read(text, 0, 0)
    if end != len(text):
        raise _unread(text, end)
    return kind


_TENSOR: Final = re.compile(r"(\w+)(?:\[((?:\d{1,15}|\?)(?:,(?:\d{1,15}|\?))*)\])?(?![\w\[(.])")
_NO_RANK: Final = re.compile(r"'(\w+)'\(shape=None\)")
_CLASS: Final = re.compile(r"[^\W\d][\w.]*(?:\[[\w., \[\]|]*\])?")
_NAME: Final = re.compile(r"([^\W\d]\w*)=")
_DTYPES: Final = {
    "str": np.str_,
    "bfloat16": ml_dtypes.bfloat16,
    **{
        np.dtype(each).name: each
        for each in (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
    },
    **{np.dtype(each).name: each for each in (np.float16, np.float32, np.float64, np.complex64, np.complex128)},
}


def _read(text: str, at: int, depth: int) -> tuple[Type, int]:
    """The type that begins at a place, and the place after it."""
    if depth > _DEEPEST:
        raise InputError("a type is too deep", expected=f"at most {_DEEPEST} levels")
    kind: Type
    if text.startswith("<", at):
        kind, at = _read_struct(text, at + 1, depth)
    elif text.startswith("?", at):
        kind, at = UNKNOWN, at + 1
    elif (found := _TENSOR.match(text, at)) and found[1] in _DTYPES:
        sizes = [None if size == "?" else int(size) for size in found[2].split(",")] if found[2] else []
        kind, at = TensorType(_DTYPES[found[1]], sizes), found.end()
    elif (found := _NO_RANK.match(text, at)) and found[1] in _DTYPES:
        kind, at = TensorType(_DTYPES[found[1]], None), found.end()
    elif found := _CLASS.match(text, at):
        kind, at = ObjectType(found[0]), found.end()
    else:
        raise _unread(text, at)
    while text.startswith("*", at):
        kind, at = SequenceType(kind), at + 1
    return kind, at


def _read_struct(text: str, at: int, depth: int) -> tuple[Type, int]:
    elements: list[Any] = []
    while not text.startswith(">", at):
        if elements:
            if not text.startswith(",", at):
                raise _unread(text, at)
            at += 1
        name = _NAME.match(text, at)
        kind, at = _read(text, at if name is None else name.end(), depth + 1)
        elements.append((name[1] if name else None, kind))
    named = [name for name, _ in elements if name is not None]
    if len(set(named)) < len(named):
        raise InputError("a struct has two fields of one name", path=f"character {at}")
    return StructType(elements), at + 1


def _unread(text: str, at: int) -> InputError:
    return InputError("not a type of data", path=f"character {at}", got=repr(text[at : at + 40]))
